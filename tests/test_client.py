"""The client against the real server, over a network in memory."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.client import connect
from exo_stream.client.call import Call
from exo_stream.client.patience import Patience
from exo_stream.errors import (
    ConflictError,
    InvalidRequestError,
    LimitExceededError,
    SnapshotExpiredError,
    UnavailableError,
)
from exo_stream.feed import CaughtUp, Heartbeat, SnapshotPage
from exo_stream.limits import Limits
from exo_stream.producers import Producer
from exo_stream.protocol import messages as m
from tests.certificates import self_signed
from tests.network import URL, connected_over, networked, next_batch, puts_at_once, server_of
from tests.worlds import in_memory


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


async def test_concurrent_calls_travel_in_one_frame(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            [cable] = network.cables
            sent: list[int] = []
            send_all = cable.send_all

            async def counted(data: Any) -> None:
                sent.append(len(data))
                await send_all(data)

            cable.send_all = counted  # type: ignore[method-assign]  # counts what passes
            link_stream: Any = client._link.connection._websocket._stream  # type: ignore[union-attr]  # it is connected
            link_stream.send_all = counted

            assert sorted(await puts_at_once(client, 64)) == list(range(1, 65))

            assert len(sent) == 1


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


async def test_a_snapshot_whose_reader_rests_holds_up_no_other_call(clock: MockClock) -> None:
    limits = Limits(page_rows_max=10)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        await platform.put_batch([(b"%04d" % number, bytes(100)) for number in range(1000)])
        async with connected_over(network, feed_bytes_max=2_000, room_seconds_max=1) as client:
            async with client.subscribe(snapshot=True) as feed:
                await wait_all_tasks_blocked()
                begun = trio.current_time()
                for _ in range(10):
                    assert await client.get(b"0001") == bytes(100)
                assert trio.current_time() == begun
                rows = 0
                while rows < 1000:
                    rows += len((await feed.__anext__()).entries)


class CancelledAndAnswered(Call):
    """A call whose caller is cancelled in the moment in which the answer is there."""

    scope = trio.CancelScope()

    def set(self, reply: m.Reply) -> None:
        self.scope.cancel()
        super().set(reply)


async def test_a_scan_cancelled_just_as_it_is_answered_leaves_no_snapshot_behind(
    clock: MockClock,
) -> None:
    limits = Limits(page_rows_max=10)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        await platform.put_batch([(b"%04d" % number, b"") for number in range(100)])
        async with connected_over(network) as client:
            scan = client.scan()
            scan._first = CancelledAndAnswered(scan._first.build)
            with CancelledAndAnswered.scope as scope:
                async with scan:
                    raise AssertionError
            assert scope.cancelled_caught
            await wait_all_tasks_blocked()
            assert not platform.sources.snapshots.floors()


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


async def test_an_answer_that_is_too_large_is_refused_in_words(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        await platform.put_batch([(b"a", b"v" * (9 << 20)), (b"b", b"v" * (9 << 20))])
        async with connected_over(network) as client:
            with pytest.raises(LimitExceededError, match="message_bytes_max"):
                await client.get_many([b"a", b"b"])

            assert len(await client.get(b"a") or b"") == 9 << 20
            assert len(await client.range_scan()) == 2
        assert len(network.cables) == 1


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


@pytest.mark.slow
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


async def test_over_tls(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, x509.IPAddress(ip_address("127.0.0.1")))
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        serve, _ = server_of(platform)

        async def serve_tls(stream: trio.SocketStream) -> None:
            await serve(trio.SSLStream(stream, ours, server_side=True))

        sockets = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve_tls, sockets)
        url = f"wss://127.0.0.1:{sockets[0].socket.getsockname()[1]}"
        with trio.fail_after(30):
            async with connect(url, ssl_context=trusting) as client:
                assert await client.put_batch([(b"k", b"v")]) == 1
            with pytest.raises(UnavailableError, match="certificate"):
                async with connect(url):
                    raise AssertionError
        nursery.cancel_scope.cancel()


async def test_options_that_are_none_are_refused(clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            options: Any
            for options in ({"slow": "drop"}, {"heartbeat_seconds": -1}):
                with pytest.raises(InvalidRequestError):
                    client.subscribe(**options)
            with pytest.raises(InvalidRequestError):
                await client.range_scan(limit=-1)


async def test_a_range_that_never_comes_to_its_end_is_given_up(clock: MockClock) -> None:
    limits = Limits(page_rows_max=10, snapshots_max=0)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        await platform.put_batch([(b"%03d" % n, b"v") for n in range(50)])
        async with connected_over(network, attempts_max=3) as client:
            with pytest.raises(SnapshotExpiredError):
                await client.range_scan()


async def test_ranges_of_one_page_take_no_snapshot_however_many_are_read(clock: MockClock) -> None:
    async with in_memory()(limits=Limits(snapshots_max=0)) as platform:
        async with networked(platform) as network, connected_over(network) as client:
            pairs = [(b"%03d" % n, b"v") for n in range(50)]
            await client.put_batch(pairs)
            found: list[list[tuple[bytes, bytes]]] = []

            async def read(limit: int) -> None:
                found.append(await client.range_scan(b"000", b"040", limit))

            async with trio.open_nursery() as nursery:
                for limit in range(100):
                    nursery.start_soon(read, limit)

    assert sorted(found) == sorted(pairs[: min(limit, 41)] for limit in range(100))


@pytest.mark.parametrize(("asked", "every"), [(1, 1), (7, 7), (60, 60), (None, 15), (0, 15)])
async def test_a_heartbeat_comes_after_as_many_quiet_seconds_as_were_asked_for(
    clock: MockClock, asked: int | None, every: int
) -> None:
    beats: list[int] = []
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            begun = trio.current_time()
            async with client.subscribe(heartbeat_seconds=asked) as feed:
                async for message in feed.messages():
                    if isinstance(message, Heartbeat):
                        beats.append(round(trio.current_time() - begun))
                    if len(beats) == 3:
                        break
    assert beats == [every, 2 * every, 3 * every]
