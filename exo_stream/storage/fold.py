"""The fold: a frozen memtable becomes the newest run, slice by slice."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from exo_stream.limits import Limits
from exo_stream.model import Row
from exo_stream.storage import manifest, meta
from exo_stream.storage.block_writer import BlockWriter
from exo_stream.storage.database import Database
from exo_stream.storage.memtable import Memtable
from exo_stream.storage.run import Run
from exo_stream.storage.table import Table
from exo_stream.storage.tiers import SUB_BLOCK_SIZE

KvRow = tuple[int, int, bytes, int, bytes | None]
"""A row of ``kv``: sub-block, keyspace, key, sequence, value."""


class Fold:
    """The job. Nothing of it counts before its last slice, which also writes the manifest."""

    name = "fold"

    def __init__(
        self, table: Table, database: Database, memtable: Memtable, writer: BlockWriter
    ) -> None:
        self._table = table
        self._database = database
        self._memtable = memtable
        self._writer = writer
        self._runs = table.version.runs
        self._keys: Sequence[bytes] = ()
        self._slices: Iterator[list[Row]] | None = None
        self._next: list[Row] | None = None

    def step(self) -> bool:
        """[writer] One slice, committed; True if it was the last one."""
        if self._slices is None:
            self._keys = sorted(self._memtable.nodes)
            self._slices = cut(self._rows(), self._table.limits)
            self._next = next(self._slices, None)
        part, self._next = self._next, next(self._slices, None)
        with self._database.transaction() as con:
            if part is not None:
                keyspace = part[0].key[0]
                first = self._writer.next_sub_block(keyspace, self._rows_of(keyspace))
                with con.appender("kv") as appender:
                    appender.append_rows(pack(part, first))
                written = self._writer.take(con)
                assert written == len(part), (written, len(part))
            if self._next is None:
                self._writer.close_block()
                manifest.insert(con, self._writer.blocks)
                meta.write_number(con, meta.FOLDED_THROUGH, self._memtable.last_sequence)
        return self._next is None

    def install(self) -> None:
        """[loop] Put the new run in the memtable's place."""
        self._table.install_fold(self._writer)

    def _rows(self) -> Iterator[Row]:
        nodes, runs = self._memtable.nodes, self._runs
        for key in self._keys:
            sequence, value, _ = nodes[key]
            # A tombstone has a purpose only while something older may hold the key.
            if value is not None or _may_hold(runs, key):
                yield Row(key, sequence, value)

    def _rows_of(self, keyspace: int) -> int:
        keys = self._keys
        return bisect_left(keys, bytes([keyspace + 1])) - bisect_left(keys, bytes([keyspace]))


def cut(rows: Iterable[Row], limits: Limits) -> Iterator[list[Row]]:
    """Rows in key order as slices of one keyspace each."""
    part: list[Row] = []
    size = 0
    for row in rows:
        row_bytes = _size(row)
        if part and (
            row[0][0] != part[0][0][0]
            or len(part) >= limits.slice_rows_max
            or size + row_bytes > limits.slice_bytes_max
        ):
            yield part
            part, size = [], 0
        part.append(row)
        size += row_bytes
    if part:
        yield part


def pack(rows: Iterable[Row], first: int) -> list[KvRow]:
    """Rows of one keyspace as rows of ``kv``, in sub-blocks numbered from ``first``.

    A row larger than a sub-block has one to itself.
    """
    packed: list[KvRow] = []
    sub_block, filled = first, 0
    for row in rows:
        row_bytes = _size(row)
        if filled and filled + row_bytes > SUB_BLOCK_SIZE:
            sub_block, filled = sub_block + 1, 0
        filled += row_bytes
        key = row[0]
        packed.append((sub_block, key[0], key[1:], row[1], row[2]))
    return packed


def _size(row: Row) -> int:
    value = row[2]
    return len(row[0]) - 1 + (0 if value is None else len(value))


def _may_hold(runs: Iterable[Run], key: bytes) -> bool:
    for run in runs:
        block = run.block_of(key)
        if block is not None and block.sub_block_of(key) is not None:
            return True
    return False
