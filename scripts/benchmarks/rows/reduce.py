"""Reducing stored rows: count, sum, least and greatest by group, in SQL where the rows are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Final

import trio

import exo_stream
from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from exo_stream.reduce.expressions import KeyField, Lower, ValueField
from exo_stream.reduce.request import ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import Kind
from exo_stream.reduce.stored_row import Cell, CellTag, encode_row

GROUPS: Final = 10
ENTRIES: Final = 1_000
STRIDE: Final = 7_919
"""Keys come in an order of their own, so that the runs overlap."""

_NUMBER: Final = ValueField(0, Kind.INT64)
_SUMMED_UP: Final = tuple(
    Reducer(op, _NUMBER)
    for op in (ReduceOp.COUNT_FIELD, ReduceOp.SUM_FIELD, ReduceOp.MIN_FIELD, ReduceOp.MAX_FIELD)
)
_BY_SQL: Final = ReduceRequest(_SUMMED_UP, (KeyField(64, Kind.UINT64),))
_ROW_BY_ROW: Final = ReduceRequest(_SUMMED_UP, (Lower(ValueField(2, Kind.UTF8)),))
"""SQL does not know how Rust writes letters small, so each row is looked at."""


def measure(setting: Setting) -> Iterator[Result]:
    """Write as many rows as a replay has entries, then reduce them."""
    scale = setting.scale
    rows = scale.replay_batches * 100
    by_sql, row_by_row = trio.run(_reduce, setting.folder / "reduce.duckdb", rows, scale.rounds)
    what = f"COUNT, SUM, MIN and MAX of {rows:,} stored rows in {GROUPS} groups"
    yield Result(
        "reduce",
        what,
        "s",
        by_sql,
        budget=Budget("at most", 2),
        note="embedded, over the runs and the memtable that the writes left",
    )
    yield Result(
        "reduce", f"{what}, row by row", "s", row_by_row, note="grouped by lower(), not in SQL"
    )


async def _reduce(path: Path, rows: int, rounds: int) -> tuple[list[float], list[float]]:
    async with exo_stream.open_platform(path) as platform:
        for first in range(0, rows, ENTRIES):
            await platform.put_batch(
                [_pair(number, rows) for number in range(first, first + ENTRIES)]
            )
        by_sql = [await _seconds(platform, _BY_SQL, rows) for _ in range(rounds)]
        return by_sql, [await _seconds(platform, _ROW_BY_ROW, rows)]


async def _seconds(platform: exo_stream.Platform, request: ReduceRequest, rows: int) -> float:
    begun = perf_counter()
    result = await platform.reduce(request)
    seconds = perf_counter() - begun
    counts = [group.results[0] for group in result.groups]
    assert sum([int(count.value) for count in counts if count is not None]) == rows, counts
    return seconds


def _pair(number: int, rows: int) -> tuple[bytes, bytes]:
    key = struct.pack(">QQ", number * STRIDE % rows, number % GROUPS)
    cells = [Cell(CellTag.I64, number), Cell(CellTag.F64, number / 3), Cell(CellTag.UTF8, "Abcde")]
    return key, encode_row(cells)
