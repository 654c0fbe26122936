"""The merge: the newest runs become one, a slice at a time, while folds may come between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import duckdb

from exo_stream.errors import CorruptionError
from exo_stream.storage import manifest
from exo_stream.storage.block_writer import BlockWriter
from exo_stream.storage.blocks import CHECKSUM, ROW_BYTES, SUB_BLOCK_BITS, Block
from exo_stream.storage.database import Database
from exo_stream.storage.merge_plan import Slice, components, slices
from exo_stream.storage.run import Run
from exo_stream.storage.table import Table
from exo_stream.storage.tiers import SUB_BLOCK_SIZE, target_block_size

_INPUT: Final = """
    SELECT sub_block, keyspace, key, sequence, value FROM kv
    WHERE sub_block BETWEEN {first} AND {last} AND key >= $start {before}"""

# The newest row of a key is the one whose neighbour has another key: a window over sorted rows
# takes 0.4 µs a row where GROUP BY with arg_max takes 0.9. A row larger than a sub-block has one
# to itself, so each such row adds one to the number, and so does what follows it.
_MERGE: Final = f"""
    INSERT INTO kv
    SELECT ($first
            + sum(if(size > {SUB_BLOCK_SIZE}, 0, size)) OVER w // {SUB_BLOCK_SIZE}
            + 2 * sum((size > {SUB_BLOCK_SIZE})::INTEGER) OVER w
            - (size > {SUB_BLOCK_SIZE})::INTEGER)::UBIGINT,
        keyspace, key, sequence, value
    FROM (
        SELECT *, {ROW_BYTES} AS size
        FROM (SELECT *, lead(key) OVER (ORDER BY key, sequence) AS next_key FROM ({{inputs}}))
        WHERE (next_key IS NULL OR next_key <> key) {{live}})
    WINDOW w AS (ORDER BY key ROWS UNBOUNDED PRECEDING)"""  # noqa: S608  constants

_SUM_UP: Final = f"""
    SELECT sub_block >> {SUB_BLOCK_BITS}, count(*), {CHECKSUM} FROM ({{inputs}}) GROUP BY 1"""  # noqa: S608  constants


class Merge:
    """A merge under way. Nothing of it counts before its last slice.

    The inputs are hashed again while they are read: what is about to be deleted must first be
    what was once written. Raises CorruptionError if it is not.
    """

    def __init__(
        self, table: Table, database: Database, runs: Sequence[Run], writer: BlockWriter
    ) -> None:
        self.runs = runs
        self.writer = writer
        self.done = False
        self.failed = False
        self.rows_read = 0
        """By the last slice."""
        self._table = table
        self._database = database
        self._older = [run for run in table.version.runs if run.folded_through < _oldest(runs)]
        self._tier = writer.tier
        groups = components(runs)
        self.moved = [blocks[0] for blocks in groups if len(blocks) == 1]
        self.rewritten = [block for blocks in groups if len(blocks) > 1 for block in blocks]
        self._slices = self._cut([blocks for blocks in groups if len(blocks) > 1])
        self._next: tuple[Sequence[Block], Slice] | None = next(self._slices, None)
        self._left = sum(block.entries for block in self.rewritten)
        self._seen: Counter[int] = Counter()
        self._checksums: dict[int, int] = {block.id: 0 for block in self.rewritten}

    def _cut(self, groups: Sequence[Sequence[Block]]) -> Iterator[tuple[Sequence[Block], Slice]]:
        limits = self._table.limits
        for blocks in groups:
            for part in slices(
                blocks, rows_max=limits.slice_rows_max, bytes_max=limits.slice_bytes_max
            ):
                yield blocks, part

    def step(self) -> None:
        """[writer] One slice, committed; after the last one the merge is ``done``."""
        self.failed = True
        part, self._next = self._next, next(self._slices, None)
        with self._database.transaction() as con:
            if part is not None:
                self._write(con, *part)
            if self._next is None:
                self.writer.close_block()
                self._check_inputs()
                manifest.delete(con, self.rewritten)
                manifest.move(con, self.moved, self.writer.run)
                manifest.insert(con, self.writer.blocks)
        self.failed = False
        self.done = self._next is None

    def output(self) -> Run | None:
        """The merged run; None if nothing was left of it."""
        moved = [replace(block, run=self.writer.run) for block in self.moved]
        blocks = [*moved, *self.writer.blocks]
        return Run(blocks) if blocks else None

    def _write(self, con: duckdb.DuckDBPyConnection, blocks: Sequence[Block], part: Slice) -> None:
        inputs, parameters = _inputs(blocks, part)
        first = self.writer.next_sub_block(part.start[0], self._rows_expected(blocks))
        self.rows_read = 0
        droppable = not any(run.blocks_between(part.start, part.end) for run in self._older)
        live = "AND value IS NOT NULL" if droppable else ""
        con.execute(_MERGE.format(inputs=inputs, live=live), parameters | {"first": first})
        for block, rows, checksum in con.execute(
            _SUM_UP.format(inputs=inputs), parameters
        ).fetchall():
            self._seen[block] += rows
            self._checksums[block] ^= checksum
            self.rows_read += rows
        self._left -= self.rows_read
        self.writer.take(con)

    def _rows_expected(self, blocks: Sequence[Block]) -> int:
        """About how many rows a block begun now will get, for the size of its filter."""
        entries = sum(block.entries for block in blocks)
        size = sum(block.size for block in blocks)
        fitting = target_block_size(self._tier) * entries // max(size, 1)
        return min(self._left, fitting + self._table.limits.slice_rows_max)

    def _check_inputs(self) -> None:
        for block in self.rewritten:
            if (self._seen[block.id], self._checksums[block.id]) != (block.entries, block.checksum):
                raise CorruptionError(
                    f"block {block.id} has {self._seen[block.id]} rows, the manifest says "
                    f"{block.entries}, or they do not match its checksum"
                )


class MergeSlice:
    """The job: one slice of the merge under way, so that a fold need not wait for all of it."""

    name = "merge"

    def __init__(self, table: Table, merge: Merge) -> None:
        self._table = table
        self._merge = merge

    def step(self) -> bool:
        """[writer] One slice, committed."""
        self._merge.step()
        return True

    def install(self) -> None:
        """[loop] Put the merged run in place of its inputs, if this was the last slice."""
        self._table.pay(self._merge.rows_read)
        if self._merge.done:
            merge = self._merge
            self._table.install_merge(merge.runs, merge.output(), merge.rewritten)


def _oldest(runs: Sequence[Run]) -> int:
    return min(run.folded_through for run in runs)


def _inputs(blocks: Sequence[Block], part: Slice) -> tuple[str, dict[str, object]]:
    """The rows of a slice in all inputs, as SQL and its parameters."""
    to_the_end = part.end == bytes([part.start[0] + 1])
    before = "" if to_the_end else "AND key < $end"
    selects = []
    for block in blocks:
        places = block.sub_blocks_between(part.start, part.end)
        if places:
            ids = block.fences.ids
            selects.append(_INPUT.format(first=ids[places[0]], last=ids[places[-1]], before=before))
    parameters: dict[str, object] = {"start": part.start[1:]}
    if not to_the_end:
        parameters["end"] = part.end[1:]
    return " UNION ALL ".join(selects), parameters
