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

MEMORY_ROWS_MAX: Final = 2_048
MEMORY_BYTES_MAX: Final = 4 * 1024 * 1024
"""What of the memtables is one slice: planning it copies them on the event loop."""

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
        self._until = start
        self._reduction = reduction
        self._memory: list[Row] = []
        self._sample: list[bytes] = []
        self._query: ReduceQuery | None = None

    def plan(self) -> None:
        """[loop] Prepare the next slice."""
        assert self._start < self._end, "it is read"
        version = self._version
        until = _cut(version.runs, self._start, self._end)
        bounds = Bounds(self._start, until, MEMORY_ROWS_MAX, MEMORY_BYTES_MAX, forward=True)
        memory = capture(version, bounds)
        self._memory = list(memory.rows.values())
        self._until = memory.end

    def run(self, reader: Reader) -> ReduceResult | None:
        """[reader] Reduce it; the result, if it was the last one."""
        assert isinstance(reader, TableReader), reader
        source, parameters = self._source()
        add_rows(self._reduction, self._memory)
        if source:
            with reader.reading() as rows:
                self._reduce(source, parameters, rows)
        self._start = self._until
        if self._start < self._end:
            return None
        return self._reduction.result(self._version.frontier)

    def _reduce(self, source: str, parameters: dict[str, object], rows: Rows) -> None:
        if self._query is None:
            if self._reduction.needs_value and not self._sample:
                sample = f"SELECT value FROM ({source}) LIMIT {SAMPLE_ROWS}"  # noqa: S608
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

    def _source(self) -> tuple[str, dict[str, object]]:
        """The live rows of the slice in the file, the newest of each key, as SQL; "" if none."""
        start, until = self._start, self._until
        parameters: dict[str, object] = {"start": start[1:]}
        before = ""
        if until[0] == start[0]:  # else it goes to the end of the keyspace
            before = "AND key < $until"
            parameters["until"] = until[1:]
        newer: list[str] = []
        if self._memory:
            parameters["hidden"] = [row.key[1:] for row in self._memory]
            newer.append("SELECT unnest($hidden::BLOB[]) AS key")
        selects: list[str] = []
        for run in self._version.runs:
            places = _ranges(run.blocks_between(start, until), start, until)
            if not places:
                continue
            rows = f"FROM kv WHERE ({places}) AND key >= $start {before}"
            hidden = _NEWER.format(" UNION ALL ".join(newer)) if newer else ""
            # S608: numbers, and parameters.
            selects.append(
                f"SELECT key, value FROM (SELECT key, value {rows}){hidden} WHERE value IS NOT NULL"  # noqa: S608
            )
            newer.append(f"SELECT key {rows}")
        return " UNION ALL ".join(selects), parameters


def _ranges(blocks: Sequence[Block], start: bytes, until: bytes) -> str:
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
