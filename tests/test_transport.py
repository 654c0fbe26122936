"""The transport: what try_send refuses, what it keeps, and what a send that fails leaves behind."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MemorySendStream, MockClock, memory_stream_pair, wait_all_tasks_blocked

from exo_stream.server.transport import Transport


@asynccontextmanager
async def pair(seconds: float = 10) -> AsyncIterator[tuple[Transport, trio.SocketStream]]:
    """A transport over a real socket with a small buffer, and its peer."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for end in (ours, theirs):
        end.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    transport = Transport(stream, send_seconds_max=seconds)
    async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as peer:
        try:
            yield transport, peer
        finally:
            await transport.aclose_forcefully()  # noqa: ASYNC102 - it never waits


async def read(peer: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await peer.receive_some(size - len(data))
        assert piece
        data += bytes(piece)
    return data


def fill(transport: Transport) -> int:
    """Send frames until the kernel takes one in part; the bytes sent or kept."""
    total = 0
    while not transport.bytes_held:
        assert transport.try_send(b"head", b"x" * 99_996)
        total += 100_000
    return total


async def test_a_frame_in_parts_goes_out_as_one() -> None:
    async with pair() as (transport, peer):
        assert transport.has_socket
        assert transport.try_send(b"head ", b"body")
        assert await read(peer, 9) == b"head body"


async def test_what_the_kernel_did_not_take_goes_out_before_anything_else() -> None:
    async with pair() as (transport, peer):
        told: list[int] = []
        transport.on_partial = lambda: told.append(transport.bytes_held)
        total = fill(transport)
        assert told == [transport.bytes_held]
        assert not transport.try_send(b"refused")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.send_all, b"pong")
            nursery.start_soon(transport.send_all, b"")
            await wait_all_tasks_blocked()
            assert not transport.try_send(b"refused")
            data = await read(peer, total + 4)
        assert data == (b"head" + b"x" * 99_996) * (total // 100_000) + b"pong"
        assert transport.bytes_held == 0
        assert transport.blocked_since is None
        assert transport.try_send(b"again")


async def test_flush_sends_the_remainder() -> None:
    async with pair() as (transport, peer):
        total = fill(transport)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.flush)
            await read(peer, total)
        assert transport.bytes_held == 0


async def test_try_send_is_refused_while_a_send_is_under_way_though_there_is_room() -> None:
    """The sender has not run yet since the peer took something: a frame would tear the other."""
    data = bytes(range(250)) * 4_000
    async with pair() as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(transport.send_all, data)
        await wait_all_tasks_blocked()
        with socket.socket(fileno=os.dup(peer.socket.fileno())) as at_once:
            taken = b""
            with suppress(BlockingIOError):
                while True:
                    taken += at_once.recv(100_000)
        assert taken
        assert not transport.try_send(b"in between")
        assert taken + await read(peer, len(data) - len(taken)) == data


async def test_try_send_is_refused_behind_a_close_and_send_all_is_not() -> None:
    async with pair() as (transport, peer):
        transport.refuse_try_send()
        assert not transport.try_send(b"a")
        await transport.send_all(b"b")
        assert await read(peer, 1) == b"b"


async def test_sends_queue_in_the_order_of_their_coming() -> None:
    async with pair() as (transport, peer):
        total = fill(transport)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(transport.send_all, bytes([number]) * 3)
                await wait_all_tasks_blocked()
            assert transport.bytes_held > 15
            data = await read(peer, total + 15)
        assert data[total:] == b"".join(bytes([number]) * 3 for number in range(5))


async def test_a_large_send_is_whole() -> None:
    async with pair() as (transport, peer):
        data = bytes(range(256)) * 1000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.send_all, data)
            assert await read(peer, len(data)) == data


async def test_a_cancelled_send_closes_by_force() -> None:
    async with pair() as (transport, _):
        with trio.move_on_after(0.01) as scope:
            await transport.send_all(b"x" * 10_000_000)
        assert scope.cancelled_caught
        assert transport.closed
        assert transport.bytes_held == 0
        assert not transport.try_send(b"a")
        with pytest.raises(trio.ClosedResourceError):
            await transport.send_all(b"a")
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive_some()


async def test_a_peer_that_takes_nothing_is_cut_at_the_deadline() -> None:
    async with pair(seconds=0.01) as (transport, _):
        with pytest.raises(trio.BrokenResourceError, match="in time"):
            await transport.send_all(b"x" * 10_000_000)
        assert transport.closed


async def test_kill_ends_a_send_that_is_under_way() -> None:
    async with pair() as (transport, _):

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await transport.send_all(b"x" * 10_000_000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            assert transport.blocked_since is not None
            transport.kill()


async def test_a_peer_that_is_gone_is_reported_by_send_all_only() -> None:
    async with pair() as (transport, peer):
        reset_on_close = struct.pack("ii", 1, 0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close)
        await peer.aclose()
        assert not transport.try_send(b"a")
        with pytest.raises(trio.BrokenResourceError):
            await transport.send_all(b"a")


async def test_received_bytes_can_be_played_again() -> None:
    async with pair() as (transport, peer):
        await peer.send_all(b"def")
        transport.replay(b"bc")
        transport.replay(b"a")
        assert await transport.receive_some(2) == b"ab"
        assert await transport.receive_some() == b"c"
        assert await transport.receive_some() == b"def"


async def test_lingering_waits_for_the_peer_but_not_for_ever(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    transport = Transport(ours, send_seconds_max=10)
    await theirs.send_all(b"unread")
    await transport.linger(3)
    assert trio.current_time() == pytest.approx(3, abs=0.5)
    assert await theirs.receive_some() == b""


async def test_without_a_socket_everything_is_sent_by_send_all(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    transport = Transport(ours, send_seconds_max=10)
    assert not transport.has_socket
    assert not transport.try_send(b"a")
    await transport.send_all(b"abc")
    await transport.wait_send_all_might_not_block()
    assert await theirs.receive_some() == b"abc"

    async def never() -> None:
        await trio.sleep_forever()

    assert isinstance(ours.send_stream, MemorySendStream)
    ours.send_stream.send_all_hook = never
    with pytest.raises(trio.BrokenResourceError):
        await transport.send_all(b"d")
    assert trio.current_time() == pytest.approx(10, abs=0.5)
    with pytest.raises(trio.ClosedResourceError):
        await transport.wait_send_all_might_not_block()


async def test_an_end_of_file_is_sent_where_the_stream_knows_one() -> None:
    one_way, _ = trio.testing.memory_stream_one_way_pair()
    _, other_way = trio.testing.memory_stream_one_way_pair()

    class NoHalves:
        def __init__(self) -> None:
            self.send_all = one_way.send_all
            self.receive_some = other_way.receive_some
            self.aclose = one_way.aclose

    transport = Transport(NoHalves(), send_seconds_max=1)  # type: ignore[arg-type]  # as much of a stream as is asked
    await transport.send_eof()
    assert not transport.try_send(b"a")
    await transport.aclose()
