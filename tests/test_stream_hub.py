"""The hub alone: who is told what, how often the stream is read, and what is left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from exo_stream.opening import open_platform
from exo_stream.server.streams.hub import PORTION_BYTES_MAX, Hub, Seat
from exo_stream.server.streams.portions import Portion
from exo_stream.streams.streams import Streams
from exo_stream.streams.values import ReadResult, StreamConfig

TEXT = StreamConfig("text/plain")


@dataclass(eq=False)
class Reader:
    """Takes what it is told, until it has had ``enough``."""

    enough: int = 1_000
    got: list[Portion] = field(default_factory=list)

    def take(self, portion: Portion) -> bool:
        self.got.append(portion)
        return len(self.got) < self.enough

    def seat(self, result: ReadResult) -> Seat:
        return Seat(result.next_offset.position, self.take, trio.Event())

    @property
    def bytes(self) -> bytes:
        return b"".join(portion.body for portion in self.got)


@asynccontextmanager
async def open_hub() -> AsyncIterator[tuple[Hub, Streams]]:
    with trio.fail_after(60):
        async with open_platform(":memory:") as platform, trio.open_nursery() as nursery:
            frontier = platform.sources.frontier
            hub = Hub(platform.streams, frontier, nursery, lambda: 0)
            yield hub, platform.streams
            assert len(hub) == 0
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks == frozenset()
            assert len(platform.sources.interest) == 0


async def quiet() -> None:
    await trio.testing.wait_all_tasks_blocked(0.005)


async def test_who_sits_down_late_is_told_what_was_appended_meanwhile() -> None:
    async with open_hub() as (hub, streams):
        await streams.create_stream("a", TEXT)
        early, late = Reader(), Reader()
        result = await streams.read("a")
        seats = [early.seat(result), late.seat(result)]
        hub.sit("a", result.sequence, seats[0])
        await streams.append("a", b"x")
        hub.sit("a", result.sequence, seats[1])
        await quiet()
        assert (early.bytes, late.bytes) == (b"x", b"x")
        await streams.append("a", b"y")
        await quiet()
        assert (early.bytes, late.bytes) == (b"xy", b"xy")
        assert early.got[-1] is late.got[-1]
        for seat in seats:
            hub.leave("a", seat)
            hub.leave("a", seat)  # twice is once


async def test_a_large_append_is_told_in_portions() -> None:
    async with open_hub() as (hub, streams):
        await streams.create_stream("a", TEXT)
        reader = Reader()
        seat = reader.seat(result := await streams.read("a"))
        hub.sit("a", result.sequence, seat)
        await streams.append("a", b"z" * (2 * PORTION_BYTES_MAX + 1))
        await quiet()
        assert [len(portion.body) for portion in reader.got] == [PORTION_BYTES_MAX] * 2 + [1]
        assert seat.position == 2 * PORTION_BYTES_MAX + 1
        hub.leave("a", seat)


async def test_a_lost_seat_is_told_nothing_more_and_wakes_its_reader() -> None:
    async with open_hub() as (hub, streams):
        await streams.create_stream("a", TEXT)
        short, long = Reader(enough=1), Reader()
        result = await streams.read("a")
        seats = [short.seat(result), long.seat(result)]
        for seat in seats:
            hub.sit("a", result.sequence, seat)
        for data in (b"1", b"2"):
            await streams.append("a", data)
            await quiet()
        assert (short.bytes, long.bytes) == (b"1", b"12")
        assert (seats[0].is_lost, seats[1].is_lost) == (True, False)
        await seats[0].woken.wait()
        for seat in seats:
            hub.leave("a", seat)


async def test_readers_of_a_stream_that_is_deleted_are_sent_away() -> None:
    async with open_hub() as (hub, streams):
        await streams.create_stream("a", TEXT)
        reader = Reader()
        seat = reader.seat(result := await streams.read("a"))
        hub.sit("a", result.sequence, seat)
        await streams.delete("a")
        await seat.woken.wait()
        assert (seat.is_lost, reader.got) == (True, [])


async def test_a_close_is_news_and_another_stream_is_none() -> None:
    async with open_hub() as (hub, streams):
        for name in ("a", "ab"):
            await streams.create_stream(name, TEXT)
        reader = Reader()
        seat = reader.seat(result := await streams.read("a"))
        hub.sit("a", result.sequence, seat)
        await streams.append("ab", b"x")
        await quiet()
        assert reader.got == []
        await streams.close_stream("a")
        await quiet()
        assert [portion.is_end for portion in reader.got] == [True]
        hub.leave("a", seat)


async def test_a_reader_may_leave_while_others_are_being_told() -> None:
    async with open_hub() as (hub, streams):
        await streams.create_stream("a", TEXT)
        result = await streams.read("a")
        readers = [Reader() for _ in range(300)]
        seats = [reader.seat(result) for reader in readers]
        for seat in seats:
            hub.sit("a", result.sequence, seat)
        last = readers[-1]

        def take(portion: Portion) -> bool:
            hub.leave("a", seats[-1])
            return True

        seats[0].take = take
        await streams.append("a", b"x")
        await quiet()
        assert last.got == []
        assert sum(len(reader.got) for reader in readers) == 298
        for seat in seats:
            hub.leave("a", seat)


async def test_a_channel_that_ends_as_its_server_does_leaves_nothing() -> None:
    async with open_platform(":memory:") as platform:
        async with trio.open_nursery() as nursery:
            hub = Hub(platform.streams, platform.sources.frontier, nursery, lambda: 0)
            await platform.streams.create_stream("a", TEXT)
            result = await platform.streams.read("a")
            seat = Reader().seat(result)
            hub.sit("a", result.sequence, seat)
            nursery.cancel_scope.cancel()
        assert seat.is_lost
        assert (len(hub), len(platform.sources.interest)) == (0, 0)
