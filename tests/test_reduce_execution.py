"""Reduces while the world goes on: one state, slices, deadlines, cancellation, and gets beside."""

from __future__ import annotations

import struct
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import exo_stream
from exo_stream import Platform
from exo_stream.errors import OverloadedError
from exo_stream.limits import KIB, Limits
from exo_stream.model import Entry, Keyspace
from exo_stream.read_stats import ReadStats
from exo_stream.reduce.expressions import KeyField, Lower, ValueField
from exo_stream.reduce.reduction import Reduction
from exo_stream.reduce.request import ReduceOp, Reducer, ReduceRequest, ReduceResult
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.reduce.stored_row import Cell, CellTag, StoredRow, encode_row
from exo_stream.storage import paged_reduce, table_reduce
from exo_stream.storage.duckdb_engine import DuckDBEngine, open_duckdb_engine
from exo_stream.storage.engine import Reader, Reducing, Version
from exo_stream.storage.memory_engine import MemoryEngine
from exo_stream.storage.table_reduce import TableReduce
from tests.tables import work, write
from tests.test_table_reduce import HIGH, LOW, by_hand, outcome
from tests.worlds import in_memory, on_file

NUMBER = ValueField(0, Kind.INT64)
COUNT_AND_SUM = (Reducer(ReduceOp.COUNT_ALL), Reducer(ReduceOp.SUM_FIELD, NUMBER))
BY_SQL = ReduceRequest(COUNT_AND_SUM)
ROW_BY_ROW = ReduceRequest(COUNT_AND_SUM, (Lower(ValueField(1, Kind.UTF8)),))
SMALL = Limits(memtable_entries_max=64, slice_rows_max=16, runs_max=2)


def row(number: int) -> bytes:
    return encode_row([Cell(CellTag.I64, number), Cell(CellTag.UTF8, "X")])


def count_and_sum(result: ReduceResult) -> tuple[Any, ...]:
    results = result.results or result.groups[0].results
    return tuple(None if scalar is None else scalar.value for scalar in results)


@pytest.fixture
def in_small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_reduce, "ROWS_MAX", 16)
    monkeypatch.setattr(table_reduce, "MEMORY_ROWS_MAX", 8)
    monkeypatch.setattr(table_reduce, "STEP_ROWS_MAX", 4)
    monkeypatch.setattr(table_reduce, "SAMPLE_ROWS", 2)
    monkeypatch.setattr(paged_reduce, "ROWS_MAX", 8)


@pytest.mark.slow
@pytest.mark.parametrize("request_", [BY_SQL, ROW_BY_ROW], ids=["by SQL", "row by row"])
async def test_a_reduce_shows_one_state_while_the_table_is_overwritten(
    in_small_slices: None, tmp_path: Path, autojump_clock: MockClock, request_: ReduceRequest
) -> None:
    """Every batch sets all keys to its own number, so a mixture of two states would be seen."""
    keys = [b"%03d" % number for number in range(50)]
    async with on_file(tmp_path / "x.duckdb")(limits=SMALL) as platform:
        await platform.put_batch([(key, row(1)) for key in keys])

        async def overwrite() -> None:
            for number in range(2, 12):
                await platform.put_batch([(key, row(number)) for key in keys])
                await platform.delete_batch([keys[number]])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(overwrite)
            states = [await platform.reduce(request_) for _ in range(12)]

        for result in states:
            number = (result.sequence + 2) // 2
            count = 50 - (result.sequence > 1 and result.sequence % 2)
            assert count_and_sum(result) == (count, count * number), result
        assert len({result.sequence for result in states}) > 2


class Endless:
    """A reduce whose slices never end; each takes a second, or waits to be told to go on."""

    def __init__(self, clock: MockClock | None = None) -> None:
        self.clock = clock
        self.slices = 0
        self.go_on: SimpleQueue[None] = SimpleQueue()

    def plan(self) -> bool:
        return True

    def run(self, reader: Reader) -> ReduceResult | None:  # noqa: ARG002  the seam has it
        self.slices += 1
        if self.clock is not None:
            self.clock.jump(1)
        else:
            self.go_on.get(timeout=30)
        return None


def reducing_with(engine: Any, reducing: Reducing) -> Any:
    engine.open_reduce = lambda *_: reducing
    return engine


async def test_a_reduce_that_takes_too_long_is_given_up_and_holds_nothing(
    autojump_clock: MockClock,
) -> None:
    endless = Endless(autojump_clock)
    engine = reducing_with(MemoryEngine(), endless)
    async with in_memory(engine)(limits=Limits(query_seconds_max=5)) as platform:
        with pytest.raises(OverloadedError, match="longer than 5 seconds"):
            await platform.reduce(BY_SQL)
        await wait_all_tasks_blocked()

        assert 5 <= endless.slices <= 6
        assert list(engine._pins) == []
        del engine.open_reduce
        assert count_and_sum(await platform.reduce(BY_SQL)) == (0, None)


async def test_a_reduce_that_is_cancelled_holds_nothing_once_its_slice_is_done(
    autojump_clock: MockClock,
) -> None:
    engine = MemoryEngine()
    async with in_memory(engine)() as platform:
        for ticks in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(platform.reduce, BY_SQL)
                    for _ in range(ticks):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            await wait_all_tasks_blocked()
            assert list(engine._pins) == []
        assert count_and_sum(await platform.reduce(BY_SQL)) == (0, None)


@pytest.mark.slow
async def test_a_long_reduce_delays_no_get_nor_range(tmp_path: Path) -> None:
    """On real threads: the far one stands in a slice, the near one serves what is not in memory."""
    path = tmp_path / "x.duckdb"
    engine = open_duckdb_engine(path, limits=SMALL)
    write(engine, [Entry(Keyspace.STORE, b"%03d" % number, row(1)) for number in range(100)])
    work(engine)
    endless = Endless()
    async with exo_stream.open_platform(engine=reducing_with(engine, endless)) as platform:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(platform.reduce, BY_SQL)
                while not endless.slices:  # noqa: ASYNC110  a thread counts
                    await trio.lowlevel.checkpoint()

                assert engine.statistics().cache_bytes == 0
                assert await platform.get(b"007") == row(1)
                assert len(await platform.range_scan(limit=3)) == 3
                assert await platform.put_batch([(b"k", b"v")]) == 2
                nursery.cancel_scope.cancel()
                endless.go_on.put(None)


async def written(path: Path, rows: int) -> None:
    limits = Limits(memtable_entries_max=rows, slice_rows_max=rows)
    async with on_file(path)(limits=limits) as platform:
        await platform.put_batch([(struct.pack(">I", n), bytes(1_000)) for n in range(rows)])
        await wait_all_tasks_blocked()


async def read_one(platform: Platform, *, forward: bool) -> tuple[list[Any], ReadStats]:
    async with platform.scan(forward=forward, limit=1) as rows:
        return [pair async for pair in rows], rows.read_stats


@pytest.mark.parametrize("forward", [True, False], ids=["forward", "reverse"])
async def test_a_limit_bounds_the_work_in_both_directions(
    tmp_path: Path, autojump_clock: MockClock, *, forward: bool
) -> None:
    """Trap 5: one row of two thousand costs one row, and a sub-block or two of the file."""
    await written(tmp_path / "x.duckdb", 2_000)
    engine = open_duckdb_engine(tmp_path / "x.duckdb")
    async with in_memory(engine)() as platform:
        assert engine.statistics().block_entries == 2_000
        pairs, stats = await read_one(platform, forward=forward)

        expected = (struct.pack(">I", 0 if forward else 1_999), bytes(1_000))
        assert pairs == [expected]
        assert stats == ReadStats(4 + 1_000)
        assert 0 < engine.statistics().cache_bytes < 3 * 64 * KIB
        assert await platform.range_scan(limit=1, forward=forward) == [expected]
        assert engine.statistics().cache_bytes < 3 * 64 * KIB


async def test_a_reduce_leaves_the_cache_of_gets_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    await written(tmp_path / "x.duckdb", 2_000)
    engine = open_duckdb_engine(tmp_path / "x.duckdb")
    async with in_memory(engine)() as platform:
        result = await platform.reduce(ReduceRequest((Reducer(ReduceOp.COUNT_ALL),)))

        assert result.results == (Scalar(Kind.UINT64, 2_000),)
        assert result.read_stats == ReadStats(2_000 * (4 + 1_000))
        assert engine.statistics().cache_bytes == 0


def cells_of(*values: int | str | None) -> StoredRow:
    return [
        None
        if value is None
        else Cell(CellTag.I64 if isinstance(value, int) else CellTag.UTF8, value)
        for value in values
    ]


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        pytest.param([cells_of(n, "ä" * n) for n in range(1, 9)], 0, id="texts of other lengths"),
        pytest.param([cells_of("x" * 200, n) for n in range(8)], 1, id="after a long text"),
        pytest.param([cells_of("x" * (20 * n), n) for n in range(16)], 1, id="long and short"),
        pytest.param([cells_of("y" * 20_000, n) for n in range(4)], 1, id="three bytes of length"),
        pytest.param([cells_of(None if n % 2 else "x", n) for n in range(8)], 1, id="after nulls"),
        pytest.param([cells_of(None, n, None) for n in range(8)], 1, id="between nulls"),
        pytest.param([cells_of(*range(40)) for _ in range(8)], 39, id="more cells than SQL reads"),
        pytest.param([cells_of(n, *["z"] * (n % 3)) for n in range(8)], 0, id="of many widths"),
        pytest.param([cells_of() for _ in range(8)], 0, id="without cells"),
        pytest.param(
            [[Cell(CellTag.LIST, ()), *cells_of(n)] for n in range(8)], 1, id="after lists"
        ),
    ],
)
def test_every_layout_of_rows_is_reduced(
    in_small_slices: None, tmp_path: Path, rows: list[StoredRow], field: int
) -> None:
    """SQL reads what it can of them, and what does not fit is looked at one by one."""
    engine = open_duckdb_engine(tmp_path / "x.duckdb", limits=SMALL)
    table = {b"%03d" % number: encode_row(cells) for number, cells in enumerate(rows * 9)}
    pairs = list(table.items())
    for at in range(0, len(pairs), 32):
        write(engine, [Entry(Keyspace.STORE, key, value) for key, value in pairs[at : at + 32]])
        work(engine)
    value = ValueField(field, Kind.INT64, nullable=True)
    ops = (ReduceOp.COUNT_FIELD, ReduceOp.SUM_FIELD, ReduceOp.MIN_FIELD, ReduceOp.MAX_FIELD)
    request = ReduceRequest(tuple(Reducer(op, value) for op in ops))

    reducing = reduce_by_sql(engine, engine.version, request)

    assert outcome(engine, reducing) == by_hand(table, request)
    engine.close()


def reduce_by_sql(engine: DuckDBEngine, version: Version, request: ReduceRequest) -> Reducing:
    reducing = engine.open_reduce(version, LOW, HIGH, Reduction(request, Limits()))
    assert isinstance(reducing, TableReduce)
    return reducing


@pytest.mark.slow
async def test_a_range_inside_the_table_is_reduced_to_its_ends(
    in_small_slices: None, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with on_file(tmp_path / "x.duckdb")(limits=SMALL) as platform:
        for first in range(0, 200, 20):
            await platform.put_batch([(b"%03d" % n, row(n)) for n in range(first, first + 20)])
        by_tens = ReduceRequest((COUNT_AND_SUM[0],), (KeyField(0, Kind.FIXED_SIZE_BINARY, 2),))

        result = await platform.reduce(by_tens, b"015", b"037")

        assert [group.results[0] for group in result.groups] == [
            Scalar(Kind.UINT64, count) for count in (5, 10, 8)
        ]
        assert count_and_sum(await platform.reduce(BY_SQL, b"199", b"199")) == (1, 199)
