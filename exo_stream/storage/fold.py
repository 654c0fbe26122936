"""The fold: a frozen memtable becomes the newest run, slice by slice."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import duckdb

from exo_stream.limits import Limits
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
        self._sorted: SortedRows | None = None
        self._at = 0

    def step(self) -> bool:
        """[writer] One slice, committed; True if it was the last one."""
        rows = self._sorted
        if rows is None:
            rows = self._sorted = SortedRows.of(self._memtable, self._table.version.runs)
        with self._database.transaction() as con:
            if rows.keys:  # batches may be many and all of them empty
                self._write(con, rows)
            done = self._at == len(rows.keys)
            if done:
                self._writer.close_block()
                manifest.insert(con, self._writer.blocks)
                meta.write_number(con, meta.FOLDED_THROUGH, self._memtable.last_sequence)
        return done

    def _write(self, con: duckdb.DuckDBPyConnection, rows: SortedRows) -> None:
        keyspace, end = rows.keyspace(self._at)
        first = self._writer.next_sub_block(keyspace, end - self._at)
        start = self._at
        packed, self._at = rows.pack(start, end, first, self._table.limits)
        if packed:
            with con.appender("kv") as appender:
                appender.append_rows(packed)
            written = self._writer.take(con, rows.keys[start : self._at])
            assert written == len(packed), (written, len(packed))

    def install(self) -> None:
        """[loop] Put the new run in the memtable's place."""
        self._table.install_fold(self._writer)


@dataclass(frozen=True, slots=True)
class SortedRows:
    """A frozen memtable in key order, and the runs that are older than it."""

    memtable: Memtable
    keys: Sequence[bytes]
    older: Sequence[Run]

    @classmethod
    def of(cls, memtable: Memtable, older: Sequence[Run]) -> SortedRows:
        """Sort its keys: 16 ms for 65,536 of them."""
        return cls(memtable, sorted(memtable.nodes), older)

    def keyspace(self, at: int) -> tuple[int, int]:
        """The keyspace at an index, and the index where it ends."""
        keyspace = self.keys[at][0]
        return keyspace, bisect_left(self.keys, bytes([keyspace + 1]), at)

    def pack(self, at: int, end: int, first: int, limits: Limits) -> tuple[list[KvRow], int]:
        """A slice of the rows from index ``at``, and the index where the next one begins.

        They are in sub-blocks numbered from ``first``. A row larger than a sub-block has one to
        itself; a tombstone that nothing older needs is left out.
        """
        nodes, keys, older = self.memtable.nodes, self.keys, self.older
        keyspace = keys[at][0]
        packed: list[KvRow] = []
        sub_block, filled, left = first, 0, limits.slice_bytes_max
        end = min(end, at + limits.slice_rows_max)
        for row_key in islice(keys, at, end):
            sequence, value, _ = nodes[row_key]
            if value is not None:
                size = len(row_key) - 1 + len(value)
            elif _may_hold(older, row_key):
                size = len(row_key) - 1
            else:
                at += 1
                continue
            if filled and filled + size > SUB_BLOCK_SIZE:
                left -= filled
                if left <= 0:
                    break
                sub_block, filled = sub_block + 1, 0
            filled += size
            packed.append((sub_block, keyspace, row_key[1:], sequence, value))
            at += 1
        return packed, at


def _may_hold(runs: Iterable[Run], key: bytes) -> bool:
    for run in runs:
        block = run.block_of(key)
        if block is not None and block.sub_block_of(key) is not None:
            return True
    return False
