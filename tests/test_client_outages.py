"""The client when connections are cut, servers are gone, or another one has taken their place."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.client import connect
from exo_stream.errors import (
    BatchEvictedError,
    LogMismatchError,
    OutcomeUnknownError,
    UnavailableError,
)
from exo_stream.feed import SnapshotBegin, SnapshotEnd, SnapshotPage
from exo_stream.limits import Limits
from exo_stream.model import Batch, Cursor
from exo_stream.protocol import messages as m
from tests.network import (
    URL,
    Puppet,
    connected_over,
    log_of,
    networked,
    next_batch,
    puppets,
    puts_at_once,
    server_of,
)
from tests.wire_examples import LOG_ID
from tests.worlds import in_memory


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


@pytest.mark.slow
async def test_puts_take_effect_once_wherever_the_connection_is_cut(
    clock: MockClock,
) -> None:
    """The cable breaks at every seventh byte from the handshake to the last answer."""
    cut_between = 0
    for length in range(200, 5_000, 7):
        async with in_memory()() as platform, networked(platform) as network:
            async with connected_over(network) as other:
                await other.put_batch([(b"there", b"before")])
            network.cuts.append(length)
            try:
                async with connected_over(network, attempts_max=5) as client:
                    sequences = await puts_at_once(client, 5)
            except UnavailableError:
                assert length < 700, "only the first handshake is not tried again"
                continue

            assert sorted(sequences) == [2, 3, 4, 5, 6]
            written = [keys for _, keys in await log_of(platform)]
            assert sorted(written[1:]) == [[b"%d" % number] for number in range(5)]
            if len(network.cables) == 2:
                break  # the cable was longer than the conversation
            cut_between += 1
    assert cut_between > 20


async def test_many_puts_over_many_cuts_take_effect_once(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        network.cuts.extend([3_000, 4_000, 700, 5_000, 900, 20_000])
        async with connected_over(network) as client:
            sequences = await puts_at_once(client, 600)

        assert sorted(sequences) == list(range(1, 601))
        assert await platform.current_sequence() == 600
        assert len(network.cables) > 3


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(700, 6_000), max_size=8), prefix=st.sampled_from([b"", b"a"]))
def test_a_feed_over_a_broken_network_has_no_gap_and_no_duplicate(
    cuts: list[int], prefix: bytes
) -> None:
    async def main() -> None:
        async with in_memory()() as platform, networked(platform) as network:
            network.cuts.extend(cuts)
            for number in range(30):
                await platform.put_batch([(b"a%d" % number, b"v" * 50)])
            async with connected_over(network) as client, trio.open_nursery() as nursery:

                async def write_more() -> None:
                    for number in range(30, 60):
                        await trio.sleep(0.3)
                        await platform.put_batch([(b"a%d" % number, b"v" * 50)])

                nursery.start_soon(write_more)
                async with client.subscribe(prefix=prefix) as feed:
                    seen = []
                    async for batch in feed:
                        assert isinstance(batch, Batch)
                        seen.append((batch.sequence, batch.entries[0].key))
                        if len(seen) == 60:
                            break

            assert seen == [(n + 1, b"a%d" % n) for n in range(60)]

    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    except UnavailableError:
        # Only a first handshake that is cut is not tried again.
        assert cuts
        assert cuts[0] < 800


async def test_a_snapshot_that_is_cut_begins_again_and_says_so(clock: MockClock) -> None:
    limits = Limits(page_rows_max=10)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        await platform.put_batch([(b"%03d" % n, b"v" * 100) for n in range(100)])
        network.cuts.append(5_000)
        async with connected_over(network) as client:
            async with client.subscribe(snapshot=True) as feed:
                rows: dict[bytes, bytes | None] = {}
                begins = 0
                async for message in feed.messages():
                    match message:
                        case SnapshotBegin():
                            begins += 1
                            rows = {}
                        case SnapshotPage(entries=entries):
                            assert not rows.keys() & {entry.key for entry in entries}
                            rows |= {entry.key: entry.value for entry in entries}
                            if begins == 1:
                                await platform.put_batch([(b"new", b"v")])
                        case SnapshotEnd():
                            break
                        case _:
                            pass

        assert begins == 2
        assert len(rows) == 101
        assert b"new" in rows


async def test_patience_may_cover_the_first_connection_too(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        network.is_down = True
        with pytest.raises(UnavailableError, match="the network is down"):
            async with connected_over(network):
                pass
        before = trio.current_time()
        bounds: list[Any] = [{"attempts_max": 5}, {"outage_seconds_max": 20}]
        for bound in bounds:
            with pytest.raises(UnavailableError, match="the network is down"):
                async with connected_over(network, covers_first=True, **bound):
                    pass
        assert trio.current_time() > before

        async def repair() -> None:
            await trio.sleep(3)
            network.is_down = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(repair)
            async with connected_over(network, covers_first=True) as client:
                assert await client.put_batch([(b"k", b"v")]) == 1


async def test_when_patience_is_used_up_callers_are_told_and_later_ones_succeed(
    clock: MockClock,
) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        errors: list[Exception] = []

        async def told(call: Any, *arguments: Any) -> None:
            with pytest.raises((UnavailableError, OutcomeUnknownError)) as caught:
                await call(*arguments)
            errors.append(caught.value)

        async def follow() -> None:
            async with client.subscribe() as feed:
                await feed.__anext__()

        async with connected_over(network, attempts_max=3) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(told, follow)
                await wait_all_tasks_blocked()
                network.is_down = True
                client._link.connection._send = trio.sleep_forever  # type: ignore[union-attr,method-assign]  # a connection that takes nothing; it is there
                await network.cut()
                nursery.start_soon(told, client.get, b"k")
                nursery.start_soon(told, client.put_batch, [(b"k", b"v")])
            assert {type(error) for error in errors} == {UnavailableError}
            assert {str(error) for error in errors} == {"the network is down"}

            with pytest.raises(UnavailableError):
                await client.get(b"k")
            network.is_down = False
            assert await client.put_batch([(b"k", b"v")]) == 1
            assert await client.get(b"k") == b"v"


async def test_a_write_that_may_have_arrived_has_an_unknown_outcome(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network, attempts_max=3) as client:

            async def cut_after_arrival() -> None:
                await platform.get(b"k", min_sequence=1)
                network.is_down = True
                await network.cut()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cut_after_arrival)
                with pytest.raises(OutcomeUnknownError, match="may have taken effect"):
                    await client.put_batch([(b"k", b"v")])

        assert await platform.get(b"k") == b"v"


async def test_a_range_that_is_cut_between_its_pages_is_read_again(clock: MockClock) -> None:
    limits = Limits(page_rows_max=10)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        await platform.put_batch([(b"%03d" % n, b"v" * 100) for n in range(100)])
        network.cuts.append(4_000)
        async with connected_over(network) as client:
            pairs = await client.range_scan()

        assert [key for key, _ in pairs] == [b"%03d" % n for n in range(100)]
        assert len(network.cables) == 2


@pytest.mark.slow
async def test_a_server_that_drains_is_left_and_its_successor_found() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        sockets = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = sockets[0].socket.getsockname()
        url = f"{URL}:{address[1]}"

        async def serve(scope: trio.CancelScope, sockets: list[trio.SocketListener]) -> None:
            with scope:
                await server_of(platform)[1].run(sockets)

        first = trio.CancelScope()
        nursery.start_soon(serve, first, sockets)
        with trio.fail_after(30):
            async with connect(url) as client, client.subscribe() as feed:
                await client.put_batch([(b"a", b"1")])
                assert (await next_batch(feed)).sequence == 1
                first.cancel()
                with pytest.raises(OSError, match="failed"):
                    while True:
                        await (await trio.open_tcp_stream("127.0.0.1", address[1])).aclose()
                sockets = await trio.open_tcp_listeners(address[1], host="127.0.0.1")
                nursery.start_soon(serve, trio.CancelScope(), sockets)

                assert await client.put_batch([(b"b", b"2")]) == 2
                assert (await next_batch(feed)).sequence == 2
        nursery.cancel_scope.cancel()


async def test_another_log_behind_the_same_address_is_not_mistaken_for_it(
    clock: MockClock,
) -> None:
    async with in_memory()() as platform, in_memory()() as other:
        async with networked(platform) as network:
            async with connected_over(network) as client, client.subscribe() as feed:
                await client.put_batch([(b"a", b"1")])
                await feed.__anext__()
                network.serve, _ = server_of(other)
                await network.cut()

                with pytest.raises(LogMismatchError) as caught:
                    await feed.__anext__()
                assert caught.value.log_id == other.log_id
                with pytest.raises(LogMismatchError):
                    await feed.__anext__()
                await client.current_sequence()
                assert client.log_id == other.log_id


async def test_batches_evicted_during_an_outage_are_missed_knowingly(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client, client.subscribe() as feed:
            await client.put_batch([(b"a", b"1")])
            await feed.__anext__()
            network.is_down = True
            await network.cut()
            for number in range(3):
                await platform.put_batch([(b"%d" % number, b"v")])
            await platform.prune_batch_log(4)
            network.is_down = False

            with pytest.raises(BatchEvictedError) as caught:
                await feed.__anext__()
            assert caught.value.oldest_retained == 4


async def test_a_client_can_be_closed_while_it_is_cut_off(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            async with client.subscribe():
                network.is_down = True
                await network.cut()
                await trio.sleep(1)


async def test_a_write_that_is_given_up_during_an_outage_is_not_sent_again(
    clock: MockClock,
) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            serve, network.serve = network.serve, silent
            await network.cut()
            with trio.move_on_after(7):
                await client.put_batch([(b"given up", b"v")])
            with trio.move_on_after(1):
                await client.put_batch([(b"never sent", b"v")])
            network.serve = serve

            assert await client.put_batch([(b"k", b"v")]) == 1
            assert not client._link._numbering._owed


async def silent(_: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def test_a_write_that_was_sent_and_given_up_during_an_outage_is_not_sent_again(
    clock: MockClock,
) -> None:
    async def take_it_and_go(puppet: Puppet) -> None:
        await puppet.greet()
        await puppet.hear(m.Write)

    async with in_memory()() as platform, networked(platform) as network:
        serve, network.serve = network.serve, puppets(take_it_and_go)
        async with connected_over(network) as client:
            network.is_down = True
            # The connection it is sent on is there already; no other one is to be had.
            with trio.move_on_after(1):
                await client.put_batch([(b"given up", b"v")])
            network.serve, network.is_down = serve, False

            with pytest.raises(LogMismatchError):
                async with client.subscribe(after=Cursor(LOG_ID, 0)):
                    pass
            assert await client.put_batch([(b"k", b"v")]) == 1
            assert not client._link._numbering._owed
