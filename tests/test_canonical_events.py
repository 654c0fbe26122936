"""Iterating events: half-open, from any id, following, and whole after any trouble."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Platform
from exo_stream.canonical.changes import Changes
from exo_stream.canonical.store import CanonicalStore
from exo_stream.decision import Write
from exo_stream.errors import EventGapError, InvalidRequestError, PlatformClosedError
from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace
from exo_stream.storage.duckdb_engine import DuckDBEngine
from tests.network import connected_over, networked
from tests.worlds import in_memory, on_file


async def append(canonical: CanonicalStore, *events: bytes) -> None:
    await canonical.submit(Changes(events=list(events)))


async def numbered(canonical: CanonicalStore, count: int) -> None:
    await append(canonical, *[b"%d" % n for n in range(count)])


@pytest.mark.slow
@settings(max_examples=80)
@given(
    count=st.integers(0, 12),
    first=st.integers(0, 14),
    end=st.none() | st.integers(0, 14),
    page=st.integers(1, 4),
    batch=st.integers(1, 5),
)
def test_events_are_those_of_a_half_open_range(
    count: int, first: int, end: int | None, page: int, batch: int
) -> None:
    async def main() -> None:
        async with in_memory()(limits=Limits(page_rows_max=page)) as platform:
            canonical = platform.canonical
            if count:
                await numbered(canonical, count)
            wanted = [(n, b"%d" % n) for n in range(count)][first:end]
            assert [e async for e in await canonical.iter_events(first, end)] == wanted
            events = await canonical.iter_events(first, end)
            found = []
            while taken := await events.next_batch(batch):
                assert len(taken) <= batch
                found += taken
            assert found == wanted
            assert await events.next() is None
            assert events.next_event_id == first + len(wanted)
            async with canonical.read_txn() as txn:
                assert [e async for e in await txn.iter_events(first, end)] == wanted

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_the_end_is_that_of_the_moment_it_was_made() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await append(canonical, b"a", b"b")
        events = await canonical.iter_events()
        await append(canonical, b"c")
        assert [event async for event in events] == [(0, b"a"), (1, b"b")]


async def test_events_and_batches_of_them_may_be_taken_in_turn() -> None:
    async with in_memory()(limits=Limits(page_rows_max=4)) as platform:
        await numbered(platform.canonical, 10)
        events = await platform.canonical.iter_events()
        assert await events.next() == (0, b"0")
        assert await events.next_batch(2) == [(1, b"1"), (2, b"2")]
        assert [n for n, _ in await events.next_batch(100)] == [3]
        assert [n for n, _ in await events.next_batch(100)] == [4, 5, 6, 7]
        assert await events.next() == (8, b"8")
        with pytest.raises(InvalidRequestError):
            await events.next_batch(0)


async def test_following_goes_on_with_every_event_that_comes() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical
        await append(canonical, b"0")
        seen: list[tuple[int, bytes]] = []

        async def follow() -> None:
            async for event in await canonical.iter_events(follow=True):
                seen.append(event)

        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        assert len(seen) == 1
        for number in range(1, 50):
            await append(canonical, b"%d" % number)
            if number % 3 == 0:
                await canonical.submit(Changes([(b"k", b"%d" % number)]))  # no event: no wake-up
        await wait_all_tasks_blocked()
        assert seen == [(n, b"%d" % n) for n in range(50)]
        nursery.cancel_scope.cancel()
    assert len(platform.sources.interest) == 0


async def test_following_from_an_id_that_is_to_come_waits_for_it_and_ends_at_its_end() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical
        seen: list[int] = []

        async def follow() -> None:
            async for number, _ in await canonical.iter_events(3, 6, follow=True):
                seen.append(number)

        nursery.start_soon(follow)
        for _ in range(8):
            await append(canonical, b"e")
            await wait_all_tasks_blocked()
        assert seen == [3, 4, 5]
        assert not nursery.child_tasks


async def test_a_following_reader_that_is_cancelled_anywhere_goes_on_where_it_was() -> None:
    async with in_memory()(limits=Limits(page_rows_max=3)) as platform:
        canonical = platform.canonical
        seen: list[int] = []
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                for _ in range(40):
                    await append(canonical, b"e", b"f")
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(write)
            events = await canonical.iter_events(follow=True)
            turn = 0
            while len(seen) < 80:
                turn += 1
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as reader:

                        async def read(scope: trio.CancelScope = scope, turn: int = turn) -> None:
                            for _ in range(min(turn % 7, 80 - len(seen))):
                                number, _ = await anext(events)
                                seen.append(number)
                            scope.cancel()
                            await anext(events)

                        reader.start_soon(read)
        assert seen == list(range(80))


async def test_a_follower_is_told_that_the_platform_stopped() -> None:
    async with trio.open_nursery() as nursery:
        async with in_memory()() as platform:
            told: list[Exception] = []
            events = await platform.canonical.iter_events(follow=True)

            async def follow() -> None:
                try:
                    await events.next()
                except PlatformClosedError as error:
                    told.append(error)

            nursery.start_soon(follow)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert len(told) == 1
        with pytest.raises(PlatformClosedError):
            await events.next()


@pytest.mark.parametrize("bound", [-1, 1 << 64, True, "0", 1.0], ids=repr)
async def test_an_event_id_is_an_unsigned_64_bit_integer(bound: int) -> None:
    async with in_memory()() as platform:
        with pytest.raises(InvalidRequestError, match="unsigned 64-bit"):
            await platform.canonical.iter_events(bound)
        with pytest.raises(InvalidRequestError, match="unsigned 64-bit"):
            await platform.canonical.iter_events(0, bound)
        last = await platform.canonical.iter_events((1 << 64) - 1)
        assert await last.next() is None


HOLES: dict[str, tuple[list[int], int, EventGapError]] = {
    "the first": ([0], 0, EventGapError(0, 1)),
    "in the middle": ([1], 1, EventGapError(1, 1)),
    "several": ([2, 3], 2, EventGapError(2, 2)),
    "more than a page": ([1, 2, 3, 4], 1, EventGapError(1, 4)),
    "the newest": ([5], 5, EventGapError(5, 1)),
    "every one": ([0, 1, 2, 3, 4, 5], 0, EventGapError(0, 6)),
}


@pytest.mark.parametrize(("holes", "before", "gap"), HOLES.values(), ids=HOLES)
@pytest.mark.parametrize("follow", [False, True], ids=["to the end", "following"])
async def test_a_hole_in_the_ids_is_told_and_nothing_is_skipped(
    holes: list[int], before: int, gap: EventGapError, follow: bool
) -> None:
    """The original's reader drops what lies below an id that it has passed."""
    limits = Limits(page_rows_max=3)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        await append(platform.canonical, *[b"%d" % number for number in range(6)])
        entries = [Entry(Keyspace.EVENT, id_.to_bytes(8, "big"), None) for id_ in holes]
        await platform.decide(lambda _view, _now: Write(entries, None))
        async with connected_over(network) as client:
            for canonical in (platform.canonical, client.canonical):
                found: list[tuple[int, bytes]] = []
                events = await canonical.iter_events(follow=follow)
                for _ in range(2):  # it tells it again
                    with pytest.raises(EventGapError) as raised:
                        async for event in events:
                            found.append(event)
                    assert (raised.value.event_id, raised.value.missing) == (
                        gap.event_id,
                        gap.missing,
                    )
                assert found == [(number, b"%d" % number) for number in range(before)]


class Counting:
    """Counts what the reader threads of a platform fetch from its file."""

    def __init__(self, platform: Platform) -> None:
        self.sub_blocks = 0
        engine = platform._engine
        assert isinstance(engine, DuckDBEngine)
        original = engine._table.cache.put

        def put(sub_block: int, decoded: object) -> None:
            self.sub_blocks += 1
            original(sub_block, decoded)  # type: ignore[arg-type]  # handed on as it came

        engine._table.cache.put = put  # type: ignore[method-assign]  # counts what is read


@pytest.mark.slow
async def test_x16_the_newest_event_costs_the_same_as_the_first(tmp_path: Path) -> None:
    """In the original, each iterator reads every event before its first."""
    limits = Limits(memtable_entries_max=1_000, cache_bytes_max=1)
    async with on_file(tmp_path / "file")(limits=limits) as platform:
        canonical = platform.canonical
        for _ in range(40):
            await append(canonical, *[bytes(200)] * 100)
        fetched: dict[int, int] = {}
        with trio.fail_after(60):
            while platform._engine.statistics().folded_through < 36:
                await platform._ground.settle()
        for first in (0, 1_500, 3_000):
            counting = Counting(platform)
            events = await canonical.iter_events(first, first + 1)
            assert await events.next() == (first, bytes(200))
            fetched[first] = counting.sub_blocks
        # One for the record and one of each run for the event; all of them are a dozen and more.
        assert all(1 <= count <= 7 for count in fetched.values()), fetched


@pytest.mark.slow
async def test_events_survive_folds_merges_pruning_of_the_log_and_a_restart(
    tmp_path: Path,
) -> None:
    limits = Limits(memtable_entries_max=200, page_rows_max=50)
    open_platform = on_file(tmp_path / "file")
    async with open_platform(limits=limits) as platform:
        for number in range(60):
            await append(platform.canonical, *[b"%d/%d" % (number, n) for n in range(20)])
        await platform.prune_batch_log(50)
    async with open_platform(limits=limits) as platform:
        events = [event async for event in await platform.canonical.iter_events()]
        assert events == [(20 * b + n, b"%d/%d" % (b, n)) for b in range(60) for n in range(20)]
        await append(platform.canonical, b"next")
        assert (await platform.canonical.meta()).next_event_id == 1_201
