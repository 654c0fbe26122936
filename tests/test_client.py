"""The client against the real server, over a network in memory that breaks when it is told to."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Platform
from exo_stream.client import Client, connect
from exo_stream.client.patience import Patience
from exo_stream.client.remote_feed import RemoteFeed
from exo_stream.errors import (
    BatchEvictedError,
    ConflictError,
    LimitExceededError,
    LogMismatchError,
    OutcomeUnknownError,
    SnapshotExpiredError,
    UnavailableError,
)
from exo_stream.feed import CaughtUp, SnapshotBegin, SnapshotEnd, SnapshotPage
from exo_stream.limits import Limits
from exo_stream.model import Batch
from exo_stream.producers import Producer
from tests.network import URL, connected_over, networked, server_of
from tests.worlds import in_memory


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


async def log_of(platform: Platform) -> list[tuple[int, list[bytes]]]:
    found = []
    for sequence in range(1, await platform.current_sequence() + 1):
        batch = await platform.get_batch(sequence)
        assert batch is not None
        found.append((sequence, [entry.key for entry in batch.entries]))
    return found


async def next_batch(feed: RemoteFeed) -> Batch:
    batch = await feed.__anext__()
    assert isinstance(batch, Batch)
    return batch


async def puts_at_once(client: Client, count: int) -> list[int]:
    """The sequences of so many puts of different tasks, in no order."""
    sequences: list[int] = []

    async def put(number: int) -> None:
        sequences.append(await client.put_batch([(b"%d" % number, b"v")]))

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(put, number)
    return sequences


async def test_concurrent_calls_travel_in_one_frame(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            [cable] = network.cables
            sent: list[int] = []
            send_all = cable.send_all

            async def counted(data: Any) -> None:
                sent.append(len(data))
                await send_all(data)

            cable.send_all = counted  # type: ignore[method-assign]
            link_stream: Any = client._link.connection._websocket._stream  # type: ignore[union-attr]
            link_stream.send_all = counted

            assert sorted(await puts_at_once(client, 64)) == list(range(1, 65))

            assert len(sent) == 1


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 1, 2])
async def test_puts_take_effect_once_wherever_the_connection_is_cut(
    clock: MockClock, start: int
) -> None:
    """The cable breaks at every third byte from the handshake to the last answer."""
    cut_between = 0
    for length in range(200 + start, 1_400, 3):
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
            cut_between += len(network.cables) > 2
    assert cut_between > 50


async def test_many_puts_over_many_cuts_take_effect_once(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        network.cuts.extend([3_000, 4_000, 700, 5_000, 900, 20_000])
        async with connected_over(network) as client:
            sequences = await puts_at_once(client, 600)

        assert sorted(sequences) == list(range(1, 601))
        assert await platform.current_sequence() == 600
        assert len(network.cables) > 3


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


async def test_a_snapshot_larger_than_the_readers_memory_waits_for_the_reader(
    clock: MockClock,
) -> None:
    limits = Limits(page_rows_max=10)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        await platform.put_batch([(b"%03d" % n, b"v" * 100) for n in range(500)])
        async with connected_over(network) as client:
            async with client.subscribe(snapshot=True) as feed:
                await wait_all_tasks_blocked()
                assert len(feed._inbox) <= 9 + 1
                rows = 0
                async for message in feed.messages():
                    if isinstance(message, SnapshotPage):
                        rows += len(message.entries)
                        await wait_all_tasks_blocked()
                        assert len(feed._inbox) <= 9 + 1
                    if isinstance(message, CaughtUp):
                        break

        assert rows == 500


async def test_a_slow_feed_holds_up_nobody_and_misses_nothing(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network, feed_bytes_max=20_000) as client:
            async with client.subscribe() as slow, client.subscribe() as fast:
                for number in range(200):
                    await client.put_batch([(b"%d" % number, b"v" * 1_000)])
                for number in range(200):
                    assert (await next_batch(fast)).entries[0].key == b"%d" % number

                assert slow._inbox.held_bytes < 40_000
                assert await client.get(b"199") == b"v" * 1_000
                for number in range(200):
                    await trio.sleep(0.01)
                    assert (await next_batch(slow)).entries[0].key == b"%d" % number


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
                client._link.connection._send = trio.sleep_forever  # type: ignore[union-attr,method-assign,assignment]
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


async def test_the_producer_of_a_caller_is_kept(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            producer = Producer(b"mine", 0, 7)
            first = await client.write(puts=[(b"k", b"v")], producer=producer)

            assert await client.write(puts=[(b"k", b"v")], producer=producer) == first
            assert await platform.current_sequence() == 1


async def test_a_large_write_is_refused_in_words(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            with pytest.raises(LimitExceededError, match="message_bytes_max"):
                await client.put_batch([(b"%d" % n, b"v" * (9 << 20)) for n in range(2)])

            assert await client.put_batch([(b"k", b"v")]) == 1


async def test_a_large_batch_comes_in_parts_and_is_handed_over_whole(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        pairs = [(b"%d" % n, bytes([n]) * 300_000) for n in range(10)]
        await platform.put_batch(pairs)
        async with connected_over(network) as client:
            batch = await client.get_batch(1)
            assert batch is not None
            assert [(e.key, e.value) for e in batch.entries] == pairs

            async with client.subscribe() as feed:
                assert await feed.__anext__() == batch


async def test_a_scan_is_lazy_and_ends_with_its_connection(clock: MockClock) -> None:
    limits = Limits(page_rows_max=10)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        await platform.put_batch([(b"%03d" % n, b"v") for n in range(50)])
        async with connected_over(network) as client:
            async with client.scan(b"010") as rows:
                assert (await rows.__anext__())[0] == b"010"
                await platform.put_batch([(b"999", b"late")])
                assert [key async for key, _ in rows] == [b"%03d" % n for n in range(11, 50)]
            async with client.scan() as rows:
                await rows.__anext__()
                await network.cut()
                with pytest.raises(SnapshotExpiredError):
                    assert [key async for key, _ in rows]
            async with client.scan() as rows:
                await rows.__anext__()
            await client.get(b"k")
            assert not len(platform.sources.snapshots.floors())


async def test_a_range_that_is_cut_between_its_pages_is_read_again(clock: MockClock) -> None:
    limits = Limits(page_rows_max=10)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        await platform.put_batch([(b"%03d" % n, b"v" * 100) for n in range(100)])
        network.cuts.append(4_000)
        async with connected_over(network) as client:
            pairs = await client.range_scan()

        assert [key for key, _ in pairs] == [b"%03d" % n for n in range(100)]
        assert len(network.cables) == 2


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
                with pytest.raises(OSError, match="refused"):
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


async def test_a_cancelled_call_leaves_the_client_usable(clock: MockClock) -> None:
    """Every call is cancelled after every number of steps of its program until it succeeds."""
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:

            async def follow() -> None:
                async with client.subscribe(snapshot=True) as feed:
                    async for message in feed.messages():
                        if isinstance(message, CaughtUp):
                            break

            async def scan() -> None:
                async with client.scan() as rows:
                    assert [row async for row in rows]

            async def put() -> None:
                await client.put_batch([(b"put", b"v")])

            async def get() -> None:
                await client.get(b"there")

            await client.put_batch([(b"there", b"v")])
            for call in (follow, scan, put, get):
                steps = 0
                while await was_cancelled_after(steps, call):
                    steps += 1
                    with trio.fail_after(60):
                        assert await client.get(b"there") == b"v"
                assert steps > 3

            assert not client._link._waiting
            assert not client._link._feeds


async def was_cancelled_after(steps: int, call: Any) -> bool:
    async with trio.open_nursery() as nursery:
        done = False

        async def run() -> None:
            nonlocal done
            await call()
            done = True

        nursery.start_soon(run)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        if not done:
            nursery.cancel_scope.cancel()
    return not done


async def test_errors_of_the_body_leave_as_themselves(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        with pytest.raises(KeyError):
            async with connected_over(network):
                raise KeyError
        with pytest.raises(ConflictError):
            async with connected_over(network) as client:
                await client.write(puts=[(b"k", b"v")], require={b"k": "present"})
        with pytest.raises(ConflictError):
            async with connected_over(network) as client, client.subscribe():
                await client.write(puts=[(b"k", b"v")], require={b"k": "present"})


async def test_after_its_block_a_client_is_closed(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            feed = client.subscribe()
            await feed.__aenter__()

        with pytest.raises(UnavailableError, match="closed"):
            await client.get(b"k")
        with pytest.raises(UnavailableError, match="closed"):
            await feed.__anext__()
        with pytest.raises(UnavailableError, match="closed"):
            async with client.subscribe():
                pass


async def test_a_client_can_be_closed_while_it_is_cut_off(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            async with client.subscribe():
                network.is_down = True
                await network.cut()
                await trio.sleep(1)


async def test_over_a_real_socket_with_seats() -> None:
    """One test must not rest on streams in memory: it would be embarrassing."""
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        listener = server_of(platform)[1]
        sockets = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(listener.run, sockets)
        url = f"{URL}:{sockets[0].socket.getsockname()[1]}"
        with trio.fail_after(30):
            async with connect(url, patience=Patience(attempts_max=1)) as client:
                async with client.subscribe(prefix=b"k") as feed:
                    async for message in feed.messages():
                        if isinstance(message, CaughtUp):
                            break
                    for number in range(20):
                        await client.put_batch([(b"k%d" % number, b"v")])
                        assert (await next_batch(feed)).entries[0].key == b"k%d" % number
        nursery.cancel_scope.cancel()
