"""Streams over openings, crashes, full disks, pauses and cancellations, and what they cost idle."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from exo_stream import open_platform
from exo_stream.errors import PausedError, PlatformClosedError, StoreFullError, UnsupportedError
from exo_stream.limits import Limits
from exo_stream.model import Keyspace
from exo_stream.storage.memory_engine import MemoryEngine
from exo_stream.stream_errors import OffsetConflictError, StreamGoneError, StreamNotFoundError
from exo_stream.streams.removal import REMAINDER
from exo_stream.streams.values import StreamConfig, StreamProducer
from exo_stream.testing import FakeClock, in_place
from tests.nine_methods import NineMethods
from tests.stream_worlds import World, at, check_streams, embedded, rows
from tests.test_cancellation import CancelAt, sweep
from tests.worlds import FaultyEngine, in_memory, on_file

TEXT = StreamConfig("text/plain")
LIVING = StreamConfig("text/plain", ttl_seconds=80)
"""Its slack is ten seconds."""


# --- openings and crashes ----------------------------------------------------------------------


async def test_reads_renew_a_time_to_live_without_a_write_each(autojump_clock: MockClock) -> None:
    async with embedded() as world:
        await world.streams.create_stream("s", LIVING)
        before = await world.platform.current_sequence()
        for _ in range(100):
            world.clock.advance(1)
            await world.streams.read("s")
        written = await world.platform.current_sequence() - before
        assert written == 9  # one for each slack that passed


async def test_after_a_crash_a_stream_lives_as_long_as_was_promised_and_a_slack_more(
    autojump_clock: MockClock,
) -> None:
    engine, clock = MemoryEngine(), FakeClock()
    async with embedded(engine, clock=clock) as world:
        await world.streams.create_stream("s", LIVING)
        clock.advance(9)
        await world.streams.read("s")  # which is not written down
    async with embedded(engine, clock=clock) as world:
        clock.advance(79.9)
        assert await world.streams.exists("s")
    async with embedded(engine, clock=clock) as world:
        clock.advance(1.1)  # 80 seconds and the slack after what was written down
        assert not await world.streams.exists("s")


async def test_an_expiry_that_was_told_is_durable(autojump_clock: MockClock) -> None:
    engine, clock = MemoryEngine(), FakeClock()
    async with embedded(engine, clock=clock) as world:
        await world.streams.create_stream("s", LIVING)
        clock.advance(80)
        with pytest.raises(StreamNotFoundError):
            await world.streams.read("s")
    async with embedded(engine, clock=clock) as world:
        assert not await world.streams.exists("s")  # for its slack is not over yet


async def test_what_was_to_be_done_is_done_after_the_next_opening(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path, clock = tmp_path / "feed.duckdb", FakeClock()
    async with on_file(path)(clock=clock) as platform:
        streams = platform.streams
        streams.upkeep.stop()
        await streams.create_stream_with_data("gone", TEXT, [b"x"] * 3_000)
        for _ in range(3):
            await streams.append_with_producer(
                "gone", [b"y"], None, StreamProducer("p", 0, _), close=_ == 2
            )
        await streams.delete("gone")
        await streams.create_stream_with_data("late", LIVING, [b"z"])
        assert len(await rows(platform, Keyspace.STREAM_DATA)) == 5
    clock.advance(1_000)
    async with on_file(path)(clock=clock) as platform:
        await trio.sleep(3)
        for keyspace in (
            Keyspace.STREAM,
            Keyspace.STREAM_DATA,
            Keyspace.STREAM_PRODUCER,
            Keyspace.STREAM_UPKEEP,
        ):
            assert await rows(platform, keyspace) == []


async def test_a_big_stream_is_freed_in_slices(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exo_stream.streams.upkeep.SLICE_ROWS", 10)
    async with embedded() as world:
        await world.streams.create_stream("s", TEXT)
        for _ in range(35):
            await world.streams.append("s", b"x")
        before = await world.platform.current_sequence()
        await world.streams.delete("s")
        await trio.sleep(2)
        assert await rows(world.platform, Keyspace.STREAM_DATA) == []
        assert await world.platform.current_sequence() == before + 1 + 4 + 1


@pytest.mark.slow  # forty commits to a file
async def test_of_a_big_stream_that_is_freed_no_more_is_read_at_once_than_a_page(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    limits = Limits(page_bytes_max=4_096, memtable_entries_max=8)
    async with on_file(tmp_path / "feed.duckdb")(limits=limits) as platform:
        await platform.streams.create_stream("s", TEXT)
        for _ in range(40):
            await platform.streams.append("s", b"x" * 1_000)
        before = await platform.current_sequence()
        await platform.streams.delete("s")
        await trio.sleep(5)
        assert await rows(platform, Keyspace.STREAM_DATA) == []
        # The deletion, at most four of a kilobyte a time, and that nothing is left.
        assert await platform.current_sequence() >= before + 1 + 10 + 1


async def test_streams_that_expire_together_are_removed_together(
    autojump_clock: MockClock,
) -> None:
    engine = FaultyEngine()
    async with embedded(engine) as world:
        for number in range(100):
            await world.streams.create_stream(f"s{number}", LIVING)
        world.clock.advance(80)
        engine.commits.clear()
        assert await world.streams.cleanup_expired_streams() == 100
        assert max(engine.commits) > 20
        await check_streams(world.platform)


# --- a disk that is full, and pauses -------------------------------------------------------------


async def test_what_only_frees_goes_on_below_the_low_disk_mark(autojump_clock: MockClock) -> None:
    engine = FaultyEngine()
    async with embedded(engine) as world:
        await world.streams.create_stream_with_data("s", LIVING, [b"x"])
        await world.streams.create_stream_with_data("t", TEXT, [b"x"])
        engine.low = True
        world.clock.advance(11)
        with pytest.raises(StoreFullError):
            await world.streams.append("s", b"y")
        assert await world.text("s") == b"x"  # and its renewal passes
        await world.streams.delete("t")
        world.clock.advance(80)
        assert not await world.streams.exists("s")
        await world.upkeep()
        assert await rows(world.platform, Keyspace.STREAM_DATA) == []


async def test_streams_in_memory_are_bounded_together(autojump_clock: MockClock) -> None:
    """However many they are, and what the log retains counts; letting go makes room again."""
    limits = Limits(memory_bytes_max=100_000)
    async with embedded(MemoryEngine(limits=limits), limits=limits) as world:
        for number in range(4):
            await world.streams.create_stream_with_data(f"s{number}", TEXT, [b"x" * 10_000])
        await world.streams.append("s3", b"x" * 10_000)
        with pytest.raises(
            StoreFullError, match=r"in memory holds 10\d,\d+ bytes of at most 100,000"
        ):
            await world.streams.append("s0", b"y")
        assert await world.text("s0") == b"x" * 10_000
        await world.streams.delete("s1")
        await world.upkeep()
        await world.platform.prune_batch_log(await world.platform.current_sequence())
        await trio.sleep(2)
        await world.streams.append("s0", b"y")
        assert await world.text("s0") == b"x" * 10_000 + b"y"


async def test_reads_go_on_while_writes_are_paused(autojump_clock: MockClock) -> None:
    async with embedded() as world:
        await world.streams.create_stream_with_data("s", LIVING, [b"x"])
        world.clock.advance(11)
        ground = world.platform.streams._ground
        await ground.pause.pause(ground.settle)
        assert await world.text("s") == b"x"
        with pytest.raises(PausedError):
            await world.streams.append("s", b"y")
        world.clock.advance(90)
        with pytest.raises(StreamNotFoundError):
            await world.streams.read("s")
        await trio.sleep(5)  # upkeep meets the pause too, and comes back
        ground.pause.resume()
        await trio.sleep(5)
        assert await rows(world.platform, Keyspace.STREAM) == []


async def test_a_backend_with_nine_methods_has_no_streams(autojump_clock: MockClock) -> None:
    async with open_platform(engine=NineMethods(), hop=in_place) as platform:
        for ask in (
            platform.streams.create_stream("s"),
            platform.streams.read("s"),
            platform.streams.list_streams(),
            platform.streams.cleanup_expired_streams(),
        ):
            with pytest.raises(UnsupportedError):
                await ask


async def test_whoever_waits_is_told_when_the_platform_stops(autojump_clock: MockClock) -> None:
    told: list[type[BaseException]] = []

    async def follow(streams: Any, listening: trio.Event) -> None:
        try:
            async with streams.subscribe("s", "now") as feed:
                listening.set()
                await feed.__anext__()
        except PlatformClosedError as error:
            told.append(type(error))

    async with trio.open_nursery() as nursery:
        async with embedded() as world:
            await world.streams.create_stream("s", TEXT)
            listening = trio.Event()
            nursery.start_soon(follow, world.streams, listening)  # noqa: ASYNC111 - the point
            await listening.wait()
            await trio.testing.wait_all_tasks_blocked()
    assert told == [PlatformClosedError]


async def test_a_stream_that_is_followed_does_not_expire(autojump_clock: MockClock) -> None:
    """The two clocks pass together here, which a fake one does not do by itself."""
    async with embedded() as world:
        await world.streams.create_stream("s", LIVING)
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                async with world.streams.subscribe("s", "now") as feed:
                    async for _ in feed:
                        pass

            nursery.start_soon(follow)
            for _ in range(30):
                await trio.sleep(10)
                world.clock.advance(10)
            assert await world.streams.exists("s")
            nursery.cancel_scope.cancel()
        world.clock.advance(90)
        await trio.sleep(2)
        assert not await world.streams.exists("s")


# --- races ---------------------------------------------------------------------------------------


async def test_ten_appends_at_once_all_land(autojump_clock: MockClock) -> None:
    async with embedded() as world:
        await world.streams.create_stream("s", TEXT)
        results: list[Any] = []

        async def append(number: int) -> None:
            results.append(await world.streams.append("s", b"%d" % number))

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(append, number)
        assert sorted(await world.text("s")) == sorted(b"0123456789")
        assert sorted(r.next_offset.position for r in results) == list(range(1, 11))


async def test_of_appends_that_expect_the_same_tail_one_lands(autojump_clock: MockClock) -> None:
    async with embedded() as world:
        await world.streams.create_stream("s", TEXT)
        refused: list[str] = []

        async def append(number: int) -> None:
            try:
                await world.streams.append("s", b"%d" % number, expected_offset=at(0))
            except OffsetConflictError as error:
                refused.append(error.next_offset)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(append, number)
        assert refused == [str(at(1))] * 4


async def test_forks_and_deletions_of_a_source_at_once_count_right(
    autojump_clock: MockClock,
) -> None:
    async with embedded() as world:
        await world.streams.create_stream_with_data("s", TEXT, [b"x"])

        async def come_and_go(number: int) -> None:
            await world.streams.create_fork(f"f{number}", "s")
            if number % 2:
                await world.streams.delete(f"f{number}")

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(come_and_go, number)
        await world.streams.delete("s")
        await world.upkeep()
        await check_streams(world.platform)
        with pytest.raises(StreamGoneError):
            await world.streams.head("s")


# --- cancellations -------------------------------------------------------------------------------


async def everything(world: World) -> None:
    """Every method once; of some of them the result depends on whether it was tried before."""
    streams = world.streams
    await streams.create_stream_with_data("s", LIVING, [b"one"])
    await streams.append("s", b"two")
    await streams.append_with_producer("s", [b"three"], None, StreamProducer("p", 0, 0))
    await streams.read("s")
    await streams.create_fork("f", "s", offset=at(3), sub_offset=2, messages=[b"!"])
    async with streams.subscribe("f") as feed:
        await feed.__anext__()
    await streams.list_streams()
    await streams.close_stream("f")
    await streams.delete("s")
    await streams.delete("f")
    await world.upkeep()


@pytest.mark.slow
def test_cancelled_at_any_step_every_method_is_whole() -> None:
    """And what it held is let go of, and a producer's retry takes effect once."""

    async def live(cancel: CancelAt) -> None:
        engine = MemoryEngine()
        async with in_memory(engine)() as platform:
            world = World(platform.streams, platform, FakeClock())
            cancel.armed = True
            with cancel.scope:
                await everything(world)
            cancel.armed = False
            await trio.testing.wait_all_tasks_blocked()
            await check_streams(platform)
            assert len(platform.sources.interest) == 0
            await trio.sleep(2)
            left = await rows(platform, Keyspace.STREAM_UPKEEP)
            assert [key for key in left if key.startswith(REMAINDER)] == []
            for name in ("s", "f"):
                if await platform.streams.exists(name):
                    page = await platform.streams.read(name)
                    assert page.body in {b"one", b"onetwo", b"onetwothree", b"onetw!"}
                    if name == "s":
                        producer = StreamProducer("p", 0, 0)
                        await platform.streams.append_with_producer("s", [b"three"], None, producer)
                        assert (await platform.streams.read("s")).body.count(b"three") == 1
        async with in_memory(engine)() as platform:
            await trio.sleep(2)
            await check_streams(platform)

    assert sweep(live) > 60


# --- what they cost -------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_stream_that_is_idle_is_not_in_memory(tmp_path: Path) -> None:
    """Its record is in a block of the file, and a block's filter is all that is held of it."""
    path, count = tmp_path / "feed.duckdb", 4_000
    async with on_file(path)(limits=Limits(memtable_entries_max=1_000)) as platform:

        async def make(first: int) -> None:
            for number in range(first, count, 50):
                name = f"some/longer/name/of/a/stream/{number}"
                await platform.streams.create_stream_with_data(name, TEXT, [b"x" * 100])

        async with trio.open_nursery() as nursery:
            for first in range(50):
                nursery.start_soon(make, first)
    gc.collect()
    tracemalloc.start()
    try:
        async with on_file(path)(limits=Limits(memtable_entries_max=1_000)) as platform:
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
            assert held < count * 1_024
            assert len(platform.streams.accesses) == 0
            page = await platform.streams.read("some/longer/name/of/a/stream/77")
            assert page.body == b"x" * 100
    finally:
        tracemalloc.stop()
