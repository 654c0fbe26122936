"""A reduce over the file: SQL where the rows are, a slice of the key range at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from operator import itemgetter
from typing import Final

from exo_stream.model import Row
from exo_stream.reduce.reduction import Reduction
from exo_stream.reduce.request import ReduceResult
from exo_stream.storage.blocks import Block
from exo_stream.storage.database import Rows
from exo_stream.storage.engine import Reader
from exo_stream.storage.page import Bounds, capture
from exo_stream.storage.paged_reduce import add_rows
from exo_stream.storage.reduce_sql import ReduceQuery
from exo_stream.storage.row_layout import guessed
from exo_stream.storage.run import Run
from exo_stream.storage.table_reader import TableReader
from exo_stream.storage.version import TableVersion

ROWS_MAX: Final = 131_072
BYTES_MAX: Final = 16 * 1024 * 1024
"""What of all runs together is one slice: a tenth of a second, and what DuckDB may hold of it."""

MEMORY_ROWS_MAX: Final = 32_768
"""What of the memtables is one slice."""

STEP_ROWS_MAX: Final = 1_024
STEP_BYTES_MAX: Final = 4 * 1024 * 1024
"""What of the memtables is one step of planning, which copies them on the event loop."""

SAMPLE_ROWS: Final = 64
"""Rows from which the layout of a slice's rows is guessed."""

_NEWER: Final = " ANTI JOIN ({}) USING (key)"


class TableReduce:
    """Reduces the rows with ``start <= row key < end`` at ``version``, all of one keyspace."""

    def __init__(
        self, version: TableVersion, start: bytes, end: bytes, reduction: Reduction
    ) -> None:
        self._version = version
        self._start, self._end = start, end
        self._until: bytes | None = None
        self._captured = start
        self._reduction = reduction
        self._memory: list[Row] = []
        self._memory_bytes = 0
        self._sample: list[bytes] = []
        self._query: ReduceQuery | None = None

    def plan(self) -> bool:
        """[loop] Prepare some of the next slice; True if it is prepared."""
        version = self._version
        if self._until is None:
            self._until = _cut(version.runs, self._start, self._end)
            self._memory, self._memory_bytes = [], 0
        step = Bounds(self._captured, self._until, STEP_ROWS_MAX, STEP_BYTES_MAX, forward=True)
        memory = capture(version, step)
        self._memory += memory.rows.values()
        self._memory_bytes += sum([len(row.value or b"") for row in memory.rows.values()])
        self._captured = memory.end
        if len(self._memory) > MEMORY_ROWS_MAX or self._memory_bytes > BYTES_MAX:
            self._until = self._captured
        return self._captured == self._until

    def run(self, reader: Reader) -> ReduceResult | None:
        """[reader] Reduce it; the result, if it was the last one."""
        assert isinstance(reader, TableReader), reader
        assert self._until is not None, "a slice is planned before it is run"
        source, parameters = self._source(self._until)
        if source:
            with reader.reading() as rows:
                self._reduce(source, parameters, rows)
        self._start, self._until = self._until, None
        if self._start < self._end:
            return None
        return self._reduction.result(self._version.frontier)

    def _reduce(self, source: str, parameters: dict[str, object], rows: Rows) -> None:
        if self._query is None:
            if self._reduction.needs_value and not self._sample:
                sample = f"SELECT value FROM ({source}) LIMIT {SAMPLE_ROWS}"  # noqa: S608  our own SQL, and numbers
                self._sample = [value for (value,) in rows.fetch(sample, parameters)]
            self._query = self._guessed_query()
        if self._query is None:
            self._add_raw(rows.fetch(source, parameters))
        elif self._query.run(source, parameters, rows, self._reduction):
            self._add_raw(rows.fetch(self._query.misfits(source), parameters))

    def _guessed_query(self) -> ReduceQuery | None:
        """The query for rows like those of the sample; None if SQL cannot read them."""
        if not self._reduction.needs_value:
            return ReduceQuery(self._reduction.request, None)
        layout = guessed(self._sample)
        return None if layout is None else ReduceQuery(self._reduction.request, layout)

    def _add_raw(self, found: Sequence[tuple[bytes, bytes]]) -> None:
        """Take in rows one by one; the next slice's are guessed from them too."""
        add_rows(self._reduction, [Row(b"\x00" + key, 0, value) for key, value in found])
        fresh = [value for _, value in found[:SAMPLE_ROWS]]
        if fresh and self._reduction.needs_value:
            self._sample = [*fresh, *self._sample][: 2 * SAMPLE_ROWS]
            self._query = None

    def _source(self, until: bytes) -> tuple[str, dict[str, object]]:
        """The live rows of the slice, the newest of each key, as SQL; "" if there are none."""
        start = self._start
        parameters: dict[str, object] = {}
        selects: list[str] = []
        newer: list[str] = []
        if self._memory:
            parameters["keys"] = [row.key[1:] for row in self._memory]
            parameters["values"] = [row.value for row in self._memory]
            newer.append("SELECT unnest($keys::BLOB[]) AS key")
            rows = f"{newer[0]}, unnest($values::BLOB[]) AS value"
            selects.append(f"SELECT key, value FROM ({rows}) WHERE value IS NOT NULL")  # noqa: S608  our own SQL, and numbers
        # A range to the end of the keyspace ends where the next one begins.
        ends_inside = until[0] == start[0]
        within = "key >= $start" + (" AND key < $until" if ends_inside else "")
        for run in self._version.runs:
            places = _places(run.blocks_between(start, until), start, until)
            if not places:
                continue
            rows = f"FROM kv WHERE ({places}) AND {within}"
            hidden = _NEWER.format(" UNION ALL ".join(newer)) if newer else ""
            selects.append(
                f"SELECT key, value FROM (SELECT key, value {rows}){hidden} WHERE value IS NOT NULL"  # noqa: S608  our own SQL, and numbers
            )
            newer.append(f"SELECT key {rows}")
            parameters["start"] = start[1:]
            if ends_inside:
                parameters["until"] = until[1:]
        return " UNION ALL ".join(selects), parameters


def _places(blocks: Sequence[Block], start: bytes, until: bytes) -> str:
    """The sub-blocks of these blocks that may have rows of a range, as a condition."""
    ranges: list[str] = []
    for block in blocks:
        places = block.sub_blocks_between(start, until)
        if places:
            ids = block.fences.ids
            ranges.append(f"sub_block BETWEEN {ids[places[0]]} AND {ids[places[-1]]}")
    return " OR ".join(ranges)


def _cut(runs: Sequence[Run], start: bytes, end: bytes) -> bytes:
    """Where a slice ends that begins at ``start``: it has one sub-block of a run at least."""
    rows = size = 0
    for first_key, more_rows, more_bytes in merge(
        *(_sub_blocks(run, start, end) for run in runs), key=itemgetter(0)
    ):
        if first_key > start and (rows + more_rows > ROWS_MAX or size + more_bytes > BYTES_MAX):
            return first_key
        rows += more_rows
        size += more_bytes
    return end


def _sub_blocks(run: Run, start: bytes, end: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The first key, the rows and the bytes of each sub-block, in key order."""
    for block in run.blocks_between(start, end):
        fences = block.fences
        for at in block.sub_blocks_between(start, end):
            yield fences.first_keys[at], fences.rows[at], fences.sizes[at]
