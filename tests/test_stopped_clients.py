"""Clients that never read: the others get everything, memory is bounded, the stopped are cut."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from exo_stream.limits import KIB, MIB, Limits
from exo_stream.model import Batch, Cursor, VersionedValue
from exo_stream.opening import open_platform
from exo_stream.protocol import messages as m
from exo_stream.protocol.codec import encode
from exo_stream.protocol.session import Role, Session
from exo_stream.starts import After, Oldest
from tests.test_port import V1
from tests.test_websocket import frame
from tests.wire import connected, serving

LIMITS = Limits(
    send_seconds_max=2, close_seconds_max=1, in_flight_bytes_max=64 * MIB, ping_seconds=600
)
"""These readers know no pings, and on a busy machine would be alive for long enough to get one."""
BATCHES = 24
VALUE = b"x" * 64 * KIB


async def _subscribe(port: int, *, receive_buffer: int | None = None) -> trio.SocketStream:
    """A socket on which a subscription from now on has begun; nothing has been read from it."""
    raw = trio.socket.socket()
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await raw.connect(("127.0.0.1", port))
    stream = trio.SocketStream(raw)
    hello, subscribe = m.Hello((1,), "raw"), m.Subscribe(1, Oldest())
    await stream.send_all(V1 + frame(2, encode([hello])) + frame(2, encode([subscribe])))
    return stream


async def _read_batches(stream: trio.SocketStream, wanted: int) -> list[int]:
    """The sequences delivered, until there are as many as wanted."""
    session = Session(Role.CLIENT, Limits())
    session.send(m.Hello((1,), "raw"))
    data = bytearray()
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    del data[: data.index(b"\r\n\r\n") + 4]
    sequences: list[int] = []
    while len(sequences) < wanted:
        while (frame_of := _cut(data)) is not None:
            for message in session.receive(frame_of):
                if isinstance(message, m.Welcome):
                    session.send(m.Subscribe(1, Oldest()))
                if isinstance(message, m.Batches):
                    sequences += [batch.sequence for batch in message.batches]
        if len(sequences) < wanted:
            piece = await stream.receive_some()
            assert piece, "cut"
            data += piece
    return sequences


def _cut(data: bytearray) -> bytes | None:
    """The payload of the first whole frame, taken out of ``data``."""
    if len(data) < 2:
        return None
    width = {126: 2, 127: 8}.get(data[1], 0)
    if len(data) < 2 + width:
        return None
    size = int.from_bytes(data[2 : 2 + width], "big") if width else data[1]
    end = 2 + width + size
    if len(data) < end:
        return None
    payload = bytes(data[2 + width : end])
    del data[:end]
    return payload


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait for what nobody announces."""
    while not is_so():  # noqa: ASYNC110  see above
        await trio.sleep(0.01)


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= count, "the hard limit of open files is too low for this test: see ulimit -Hn"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reading", "stopped", "limits"),
    [
        pytest.param(8, 4, LIMITS, id="8-4"),
        # On a busy machine one who reads may not have its turn for some seconds, as its server.
        pytest.param(800, 200, replace(LIMITS, send_seconds_max=10), id="800-200"),
    ],
)
async def test_stopped_clients_cost_the_others_nothing(
    reading: int, stopped: int, limits: Limits
) -> None:
    _allow_files(2 * (reading + stopped) + 100)
    received: list[list[int]] = []
    held: list[int] = []
    with trio.fail_after(240):  # a guard against hanging, never a measure
        async with open_platform(":memory:", limits=limits) as platform:
            async with serving(platform) as (port, listener, number):
                idle = [await _subscribe(number, receive_buffer=4096) for _ in range(stopped)]

                async def read() -> None:
                    async with await _subscribe(number) as stream:
                        received.append(await _read_batches(stream, BATCHES))
                        await everybody_has_read.wait()

                everybody_has_read = trio.Event()
                async with trio.open_nursery() as nursery:
                    for _ in range(reading):
                        nursery.start_soon(read)
                    await _until(lambda: platform.sources.interest.seats == reading + stopped)
                    for _ in range(BATCHES):
                        await platform.put_batch([(b"k", VALUE)])
                        held.append(sum(t.bytes_held for t in port.transports))
                        assert port.budget.held <= limits.in_flight_bytes_max
                    await _until(lambda: len(received) == reading == listener.connections)
                    assert listener.connections == reading
                    everybody_has_read.set()
                for stream in idle:
                    await stream.aclose()

                # Whoever was cut goes on from its cursor.
                async with connected(number) as wire:
                    await wire.greet()
                    await wire.say(m.Subscribe(1, After(Cursor(platform.log_id, 0))))
                    await wire.expect(m.Subscribed)
                    found: list[int] = []
                    while len(found) < BATCHES:
                        found += [b.sequence for b in (await wire.expect(m.Batches)).batches]
    assert received == [list(range(1, BATCHES + 1))] * reading
    assert found == list(range(1, BATCHES + 1))
    assert max(held) <= (reading + stopped) * limits.frame_bytes_max


@pytest.mark.slow
async def test_who_begins_at_the_oldest_and_never_reads_holds_no_page_uncounted(
    tmp_path: Path,
) -> None:
    """Pages of the log are a subscriber's own, so only as many are read as the budget covers."""
    limits = replace(LIMITS, tail_bytes_max=MIB, in_flight_bytes_max=16 * MIB)
    pages = limits.in_flight_bytes_max // (limits.page_bytes_max + limits.frame_bytes_max)
    most = 0
    with trio.fail_after(60):  # a guard against hanging, never a measure
        async with open_platform(tmp_path / "log.duckdb", limits=limits) as platform:
            for _ in range(BATCHES * 10):
                await platform.put_batch([(b"k", VALUE)])
            async with serving(platform) as (port, _, number):
                idle = [await _subscribe(number, receive_buffer=4096) for _ in range(8 * pages)]
                while port.transports or not most:  # until all were cut
                    most = max(most, port.budget.held)
                    await trio.sleep(0.01)
                async with await _subscribe(number) as stream:
                    assert await _read_batches(stream, BATCHES * 10)
                for stream in idle:
                    await stream.aclose()
    assert 0 < most <= limits.in_flight_bytes_max


@pytest.mark.slow
async def test_who_asks_for_much_and_never_reads_holds_one_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large answers are counted before they are read, and one at a time is read for a client."""
    limits = replace(
        LIMITS, get_many_bytes_max=8 * MIB, message_bytes_max=8 * MIB, in_flight_bytes_max=32 * MIB
    )
    values = [(b"%d" % i, bytes(MIB)) for i in range(6)]
    get = m.GetMany(1, tuple(key for key, _ in values))
    looked_up: list[int] = []
    with trio.fail_after(60):  # a guard against hanging, never a measure
        async with open_platform(":memory:", limits=limits) as platform:
            await platform.put_batch(values)
            get_entries = platform.get_entries

            async def counted(
                keys: Sequence[bytes], *, bytes_max: int | None = None
            ) -> list[VersionedValue]:
                looked_up.append(len(keys))
                return await get_entries(keys, bytes_max=bytes_max)

            monkeypatch.setattr(platform, "get_entries", counted)
            async with serving(platform) as (port, _, number):
                async with await _subscribe(number, receive_buffer=4096) as stopped:
                    for id_ in range(2, 42):
                        await stopped.send_all(frame(2, encode([replace(get, id=id_)])))
                    await _until(lambda: port.budget.held > 0)
                    await trio.testing.wait_all_tasks_blocked(0.2)
                    # Once to see that it is more than a frame, and once for its answer.
                    assert looked_up == [6, 6]
                async with connected(number) as wire:  # and another is answered meanwhile
                    await wire.greet()
                    await wire.say(replace(get, id=1))
                    answer = await wire.expect(m.Values)
    assert [len(value or b"") for value in answer.values] == [MIB] * 6


@pytest.mark.slow
async def test_a_drain_does_not_wait_for_the_stopped() -> None:
    limits = Limits(send_seconds_max=3600, drain_seconds_max=1, close_seconds_max=1)
    with trio.fail_after(20):  # a guard against hanging, never a measure
        async with open_platform(":memory:", limits=limits) as platform:
            async with serving(platform) as (port, _, number):
                idle = [await _subscribe(number, receive_buffer=4096) for _ in range(3)]
                await _until(lambda: platform.sources.interest.seats == len(idle))
                while platform.sources.interest.seats:
                    await platform.put_batch([(b"k", VALUE)])
                await _until(lambda: all(t.bytes_held for t in port.transports))
            for stream in idle:
                await stream.aclose()


@pytest.mark.slow
async def test_batches_are_not_read_for_a_client_that_takes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    with trio.fail_after(60):
        async with open_platform(":memory:", limits=LIMITS) as platform:
            for _ in range(40):
                await platform.put_batch([(b"key", bytes(MIB - KIB))])
            get_batch = platform.get_batch

            async def counted(sequence: int) -> Batch | None:
                read.append(sequence)
                return await get_batch(sequence)

            monkeypatch.setattr(platform, "get_batch", counted)
            async with serving(platform) as (port, _, number), connected(number) as wire:
                await wire.greet()
                await wire.say(*[m.GetBatch(sequence, sequence) for sequence in range(1, 41)])
                await _until(lambda: any(t.blocked_since for t in port.transports))
                assert len(read) < 30
                found = {(await wire.expect(m.Found)).id for _ in range(40)}
                assert found == {*range(1, 41)} == {*read}
