"""The platform as a whole: how it opens, how it ends, and what leaves it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Producer, Retention, open_platform
from exo_stream.errors import (
    ConflictError,
    FileInUseError,
    ForeignFileError,
    InvalidRequestError,
    OutcomeUnknownError,
    OverloadedError,
    PlatformClosedError,
    StoreFullError,
)
from exo_stream.feed import SnapshotPage
from exo_stream.limits import Limits
from exo_stream.model import Batch
from exo_stream.storage.duckdb_engine import open_duckdb_engine
from exo_stream.storage.memory_engine import MemoryEngine
from exo_stream.testing import FaultyHop, in_place
from exo_stream.writes import checked_write
from tests.worlds import (
    Crash,
    Fault,
    FaultyEngine,
    OpenPlatform,
    Outcomes,
    in_memory,
    on_file,
    put,
    put_one_by_one,
    told,
)


@pytest.fixture(params=["memory", "file"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> OpenPlatform:
    """Opens the same store each time, on either engine."""
    return in_memory() if request.param == "memory" else on_file(tmp_path / "feed.duckdb")


# --- opening ------------------------------------------------------------------------------------


async def test_the_ten_lines_of_the_readme_work_on_real_threads(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        sequence = await platform.put_batch([(b"user/1", b"alice"), (b"user/2", b"bob")])
        assert await platform.get(b"user/1", min_sequence=sequence) == b"alice"
        async with platform.subscribe(prefix=b"user/", snapshot=True) as feed:
            page = await anext(feed)
            assert isinstance(page, SnapshotPage)
            assert [entry.value for entry in page.entries] == [b"alice", b"bob"]
            await platform.put_batch([(b"user/3", b"carol")])
            batch = await anext(feed)
            assert isinstance(batch, Batch)
            assert batch.sequence == 2


async def test_a_file_is_open_once(tmp_path: Path) -> None:
    path = str(tmp_path / "feed.duckdb")
    async with open_platform(path, hop=in_place):
        with pytest.raises(FileInUseError):
            async with open_platform(path, hop=in_place):
                pass
    async with open_platform(path, hop=in_place) as platform:
        assert (await platform.info()).statistics.path == path


async def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Ada,\n" * 1_000)
    with pytest.raises(ForeignFileError):
        async with open_platform(path, hop=in_place):
            pass
    assert path.read_text() == "Dear Ada,\n" * 1_000


class GivenUp:
    """A connection to a file that DuckDB has given up."""

    def execute(self, *_: object) -> Any:
        raise duckdb.FatalException("the database has been invalidated because of a fatal error")

    def interrupt(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("is_real", [True, False])
async def test_a_file_that_a_reader_found_given_up_stops_an_idle_platform(
    tmp_path: Path, autojump_clock: MockClock, is_real: bool
) -> None:
    engine = open_duckdb_engine(tmp_path / "store.duckdb")
    engine.put_batch([(b"k", b"v")])
    opened = open_platform(engine=engine, hop=in_place)
    if not is_real:  # the reader alone was wrong: all goes on
        async with opened as platform:
            engine._database.is_suspect = True
            await trio.sleep(3)
            assert not engine._database.is_suspect
            assert await platform.put_batch([(b"k", b"w")]) == 2
        return
    with pytest.raises(OutcomeUnknownError, match="given up the file"):
        async with opened as platform:
            engine._database._con = cast("Any", GivenUp())
            engine._database.connect = lambda: cast("Any", GivenUp())  # type: ignore[method-assign]  # a connection that is gone
            with pytest.raises(OverloadedError, match="cannot be read"):
                await platform.sources.reads.log_page(0, 1)
            await trio.sleep(3)


async def test_a_platform_opens_one_thing() -> None:
    for path, engine in ((None, None), (":memory:", MemoryEngine())):
        with pytest.raises(InvalidRequestError, match="either a path or an engine"):
            async with open_platform(path, engine=engine):
                pass


async def test_a_store_in_memory_ends_with_its_block() -> None:
    async with open_platform(":memory:", hop=in_place) as platform:
        first = platform.log_id
        await put_one_by_one(platform, [b"k"])
    async with open_platform(":memory:", hop=in_place) as platform:
        assert platform.log_id != first
        assert await platform.get(b"k") is None


async def test_a_store_in_memory_is_full_until_something_is_let_go(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(memory_bytes_max=1_000)
    async with open_platform(":memory:", hop=in_place, limits=limits) as platform:
        await platform.put_batch([(b"k", b"v" * 600)])
        for write in (platform.put_batch([(b"l", b"")]), platform.delete_batch([b"k"])):
            with pytest.raises(StoreFullError, match="of at most 1,000"):
                await write
        assert await platform.prune_batch_log(2) == 1
        await trio.sleep(2)  # compaction lets go of what is evicted
        assert await platform.delete_batch([b"k"]) == 2


async def test_what_it_is_and_holds_can_be_asked(opened: OpenPlatform) -> None:
    async with opened() as platform:
        information = await platform.info()
        assert (information.frontier, information.oldest, information.subscribers) == (0, None, 0)
        await put_one_by_one(platform, [b"a", b"b"])
        await platform.prune_batch_log(2)
        information = await platform.info()
        assert information.log_id == platform.log_id == platform.cursor.log_id
        assert (information.frontier, information.oldest) == (2, 2)
        assert platform.cursor.sequence == 2
        assert information.statistics.memtable_entries == 2


# --- ending -------------------------------------------------------------------------------------


async def test_writes_that_wait_when_the_block_ends_are_still_answered(
    opened: OpenPlatform,
) -> None:
    outcomes: Outcomes = {}
    async with trio.open_nursery() as outside:
        async with opened(hop=FaultyHop(latency=0.001)) as platform:
            await put_one_by_one(platform, [b"k"])
            for number in range(10):
                outside.start_soon(told, outcomes, str(number), put(platform, b"k"))  # noqa: ASYNC111  it outlives the platform
            while len(platform._ground.writes) < 10 and not outcomes:  # noqa: ASYNC110  nobody announces it
                await trio.lowlevel.checkpoint()
    assert sorted(outcomes.values()) == list(range(2, 12))
    async with opened() as platform:
        assert await platform.current_sequence() == 11


async def test_after_its_block_every_verb_says_that_it_is_closed(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await put_one_by_one(platform, [b"k"])
    verbs: dict[str, Callable[[], Awaitable[object]]] = {
        "put": put(platform, b"k"),
        "get": lambda: platform.get(b"k"),
        "range": platform.range_scan,
        "wait": lambda: platform.get(b"k", min_sequence=9),
        "prune": lambda: platform.prune_batch_log(1),
        "batch": lambda: platform.get_batch(1),
        "feed": platform.subscribe().__aenter__,
        "snapshot": platform.subscribe(snapshot=True).__aenter__,
        "now": platform.subscribe(start="now").__aenter__,
    }
    for name, ask in verbs.items():
        with pytest.raises(PlatformClosedError):
            await ask()
            pytest.fail(name)


async def test_whoever_waits_outside_the_block_is_told_when_it_ends() -> None:
    outcomes: Outcomes = {}
    async with trio.open_nursery() as outside:
        async with in_memory()() as platform:

            async def follow() -> int:
                async with platform.subscribe(prefix=b"never") as feed:
                    return (await anext(feed)).sequence

            outside.start_soon(told, outcomes, "follow", follow)
            ask = partial(platform.get, b"k", min_sequence=9)
            outside.start_soon(told, outcomes, "read", ask)
            await wait_all_tasks_blocked()
    assert {type(outcome) for outcome in outcomes.values()} == {PlatformClosedError}


async def test_an_error_of_the_body_leaves_as_itself_with_its_own_context() -> None:
    cause = KeyError("why")
    error = ValueError("what")
    error.__context__ = cause
    with pytest.raises(ValueError, match="what") as raised:
        async with in_memory()():
            raise error
    assert raised.value is error
    assert error.__context__ is cause


async def test_a_group_that_the_body_raised_is_not_taken_apart() -> None:
    group = ExceptionGroup("mine", [ValueError("only one")])
    with pytest.RaisesGroup(ValueError) as raised:
        async with in_memory()():
            raise group
    assert raised.value is group


@pytest.mark.parametrize(
    ("fault", "error"), [("crash", Crash), ("unknown, lost", OutcomeUnknownError)]
)
async def test_a_crash_leaves_as_itself_also_when_the_bodys_tasks_were_told(
    fault: Fault, error: type[Exception]
) -> None:
    engine = FaultyEngine()
    engine.faults.append(fault)
    with pytest.raises(error):
        async with in_memory(engine)() as platform, trio.open_nursery() as nursery:
            for key in (b"a", b"b", b"c"):
                nursery.start_soon(platform.put_batch, [(key, b"")])


async def test_a_crash_and_another_error_of_the_body_are_both_told() -> None:
    engine = FaultyEngine()
    engine.faults.append("crash")
    with pytest.RaisesGroup(Crash, ValueError, flatten_subgroups=True):
        async with in_memory(engine)() as platform:
            try:
                await platform.put_batch([(b"k", b"")])
            finally:
                raise ValueError("mine")


@pytest.mark.slow
async def test_a_cancelled_block_ends_at_once_and_the_store_is_whole(
    opened: OpenPlatform, autojump_clock: MockClock
) -> None:
    acknowledged: list[int] = []
    with trio.move_on_after(1) as scope:
        async with opened(hop=FaultyHop(latency=0.01)) as platform:
            while True:
                acknowledged.append(await platform.put_batch([(b"k", b"")]))
    assert scope.cancelled_caught
    async with opened() as platform:
        newest = await platform.current_sequence()
        assert newest - 1 <= acknowledged[-1] <= newest
        assert await platform.put_batch([(b"k", b"")]) == newest + 1


# --- both engines -------------------------------------------------------------------------------


async def test_several_writes_are_handed_over_at_once_and_fail_one_by_one(
    opened: OpenPlatform,
) -> None:
    async with opened() as platform:
        writes = [
            checked_write(platform.limits, puts=[(key, b"")], require={key: "absent"})
            for key in (b"a", b"b", b"a", b"c")
        ]
        outcomes = await platform.write_many(writes)
        assert [outcomes[number].unwrap() for number in (0, 1, 3)] == [1, 2, 3]
        with pytest.raises(ConflictError):
            outcomes[2].unwrap()
        assert await platform.write_many([]) == []


@pytest.mark.slow
async def test_reads_and_feeds_are_right_whatever_was_folded_and_merged(
    opened: OpenPlatform, autojump_clock: MockClock
) -> None:
    """So small memtables, tails and caches that everything happens several times."""
    limits = Limits(
        memtable_entries_max=8,
        tail_batches_max=3,
        page_rows_max=5,
        runs_max=2,
        cache_bytes_max=1_000,
        slice_rows_max=7,
    )
    model: dict[bytes, bytes] = {}
    async with opened(limits=limits) as platform:
        for number in range(120):
            key, gone = b"%03d" % (number * 7 % 50), b"%03d" % (number * 11 % 50)
            await platform.write(puts=[(key, b"%d" % number)], deletes=[gone])
            model[key] = b"%d" % number
            model.pop(gone, None)
            if number % 40 == 39:
                await trio.sleep(2)
                assert dict(await platform.range_scan()) == model
        keys = [b"%03d" % number for number in range(50)]
        assert await platform.get_many(keys) == [(key, model.get(key)) for key in keys]
        async with platform.scan(forward=False) as scan:
            assert [pair async for pair in scan] == sorted(model.items(), reverse=True)
        async with platform.subscribe(prefix=b"00") as feed:
            table: dict[bytes, bytes | None] = {}
            with trio.move_on_after(60):
                async for batch in feed:
                    table.update((entry.key, entry.value) for entry in batch.entries)
            found = {key: value for key, value in table.items() if value is not None}
            assert found == {key: value for key, value in model.items() if key < b"01"}
    async with opened(limits=limits) as platform:
        assert dict(await platform.range_scan()) == model


@pytest.mark.slow
async def test_retention_and_pruning_hold_over_a_restart(
    opened: OpenPlatform, autojump_clock: MockClock
) -> None:
    async with opened(retention=Retention(batches_max=3)) as platform:
        await put_one_by_one(platform, [b"%d" % number for number in range(9)])
        await trio.sleep(3)
        assert await platform.oldest_retained_batch() == 7
        async with platform.subscribe() as feed:
            assert [(await anext(feed)).sequence for _ in range(3)] == [7, 8, 9]
    async with opened() as platform:
        assert await platform.oldest_retained_batch() == 7
        assert await platform.prune_batch_log(100) == 3
    async with opened() as platform:
        assert await platform.oldest_retained_batch() is None
        assert await put_one_by_one(platform, [b"new"]) == [10], "an emptied log reuses no number"


async def test_a_producer_is_remembered_from_blocks_too(opened: OpenPlatform) -> None:
    limits = Limits(memtable_entries_max=4)
    async with opened(limits=limits) as platform:
        producer = [Producer(b"p", 0, seq) for seq in range(20)]
        numbers = [await platform.write(deletes=[b"k"], producer=one) for one in producer]
        await wait_all_tasks_blocked()
        again = [await platform.write(deletes=[b"k"], producer=one) for one in producer]
        assert again == numbers
