"""What the file needs next: folds, merges, deletions and CHECKPOINTs, the most urgent first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from exo_stream.storage import batch_log, manifest
from exo_stream.storage.block_writer import BlockWriter
from exo_stream.storage.blocks import SUB_BLOCK_BITS, Block
from exo_stream.storage.database import Database, Rows
from exo_stream.storage.engine import Job
from exo_stream.storage.fold import Fold
from exo_stream.storage.merge import Merge, MergeSlice
from exo_stream.storage.merge_plan import choose
from exo_stream.storage.run import Run
from exo_stream.storage.table import Table
from exo_stream.storage.tiers import compute_tier

_SUB_BLOCKS_MAX: Final = 512
"""Sub-blocks deleted in one transaction: 260,000 rows of 120 bytes take 6 ms."""


class Upkeep:
    """Plans one job at a time, on the event loop; remembers the merges that are under way.

    A merge of old, large runs takes minutes of slices. Meanwhile the newer ones are merged among
    themselves, by merges that are younger and go first: else runs would pile up behind it.
    """

    def __init__(self, table: Table, database: Database, log_oldest: int) -> None:
        self.log_oldest = log_oldest
        """The oldest batch whose row is still in the file."""
        self._table = table
        self._database = database
        self._fold: BlockWriter | None = None
        self._merges: list[Merge] = []
        """The oldest runs' first."""
        self._settled: tuple[Run, ...] = ()
        """Runs that need no merge, so that the question is not asked again after every group."""
        self._reloaded: tuple[Sequence[Block], int] | None = None

    def reload(self, rows: Rows) -> None:
        """[writer] Read again what is in the file, after it was opened again."""
        self._reloaded = manifest.load(rows), batch_log.ends(rows).folded_through

    def next_job(self, now: int, *, idle: bool) -> Job | None:
        """[loop] The most urgent job, None if all is well."""
        self._clear_failed()
        return next(self._wanted(now, idle=idle), None)

    def _wanted(self, now: int, *, idle: bool) -> Iterator[Job]:
        """Jobs in the order of their urgency; only the first is ever asked for."""
        limits, table, database = self._table.limits, self._table, self._database
        wal_bytes = database.wal_bytes
        if database.is_suspect:
            yield Probe(database)
        if table.backlogged and table.version.frozen is not None:
            yield self._new_fold(now)
        if wal_bytes >= limits.checkpoint_wal_bytes:
            yield Checkpoint(database)
        if table.version.frozen is not None:
            yield self._new_fold(now)
        if removable := table.removable():
            yield Removal(table, database, removable)
        bound = self._log_bound()
        if self.log_oldest < bound:
            yield LogRemoval(self, database, bound, limits.slice_rows_max)
        self._begin_merge(now)
        if self._merges:
            yield MergeSlice(table, self._merges[-1])
        if idle and wal_bytes >= limits.checkpoint_idle_wal_bytes:
            yield Checkpoint(database)

    def _clear_failed(self) -> None:
        """Give up what did not come to its end; the blocks it began are garbage."""
        reloaded = self._reloaded  # once: the writer may set it while this runs
        if reloaded is not None:
            self._table.adopt(*reloaded)
            self._reloaded = None
        if self._fold is not None:
            self._table.bury(self._fold.ids)
            self._fold = None
        for merge in list(self._merges):
            if merge.failed or merge.done or reloaded is not None:
                self._table.bury(merge.writer.ids)
                self._merges.remove(merge)

    def _new_fold(self, now: int) -> Job:
        frozen = self._table.version.frozen
        assert frozen is not None
        self._fold = self._writer(0, frozen.last_sequence, now)
        return Fold(self._table, self._database, frozen, self._fold)

    def _begin_merge(self, now: int) -> None:
        """Begin to merge the newest runs, if they are too many beside those being merged."""
        runs = self._table.version.runs
        if self._merges:
            runs = runs[: runs.index(self._merges[-1].runs[0])]
        if runs == self._settled:
            return
        chosen = choose(runs, self._table.limits.runs_max)
        if not chosen:
            self._settled = runs
            return
        created_at = max(block.created_at for run in chosen for block in run.blocks)
        tier = compute_tier(created_at, now)
        writer = self._writer(tier, chosen[0].folded_through, created_at)
        self._merges.append(Merge(self._table, self._database, chosen, writer))

    def _writer(self, tier: int, folded_through: int, created_at: int) -> BlockWriter:
        ids = self._table.new_block_ids
        return BlockWriter(
            ids, run=next(ids), tier=tier, folded_through=folded_through, created_at=created_at
        )

    def _log_bound(self) -> int:
        """The log's rows below this may go: evicted, folded, and held by nobody."""
        version = self._table.version
        memtable = version.live if version.frozen is None else version.frozen
        unfolded = memtable.first_sequence or version.frontier + 1
        return min(self._table.pins.log_floor(version.floor), unfolded)


class Probe:
    """The job that finds out whether the file can still be used, after a reader could not."""

    name = "probe"

    def __init__(self, database: Database) -> None:
        self._database = database

    def step(self) -> bool:
        """[writer] One query; it raises if the answer is no."""
        self._database.probe()
        return True

    def install(self) -> None:
        """[loop] Nothing: all is well."""


class Checkpoint:
    """The job that moves the WAL into the file."""

    name = "checkpoint"

    def __init__(self, database: Database) -> None:
        self._database = database

    def step(self) -> bool:
        """[writer] All of it."""
        self._database.checkpoint()
        return True

    def install(self) -> None:
        """[loop] Nothing: readers see no difference."""


class Removal:
    """The job that deletes the rows of dead blocks, whole ranges of sub-blocks at a time."""

    name = "removal"

    def __init__(self, table: Table, database: Database, blocks: Sequence[int]) -> None:
        self._table = table
        self._database = database
        self._blocks = list(blocks)
        self._removed: list[int] = []

    def step(self) -> bool:
        """[writer] One slice, committed; True if it was the last one."""
        left = _SUB_BLOCKS_MAX
        with self._database.transaction() as con:
            while self._blocks and left > 0:
                block = self._blocks[-1]
                first, last = block << SUB_BLOCK_BITS, ((block + 1) << SUB_BLOCK_BITS) - 1
                ((oldest, newest),) = con.execute(
                    "SELECT min(sub_block), max(sub_block) FROM kv WHERE sub_block BETWEEN ? AND ?",
                    (first, last),
                ).fetchall()
                if oldest is not None:
                    end = min(newest, oldest + left - 1)
                    con.execute("DELETE FROM kv WHERE sub_block BETWEEN ? AND ?", (oldest, end))
                    left -= end - oldest + 1
                    if end < newest:
                        break
                self._removed.append(self._blocks.pop())
        return not self._blocks

    def install(self) -> None:
        """[loop] Forget the blocks."""
        for block in self._removed:
            self._table.dead.pop(block, None)


class LogRemoval:
    """The job that deletes the log's rows below a bound, the oldest first."""

    name = "log removal"

    def __init__(self, upkeep: Upkeep, database: Database, bound: int, rows_max: int) -> None:
        self._upkeep = upkeep
        self._database = database
        self._bound = bound
        self._rows_max = rows_max

    def step(self) -> bool:
        """[writer] One slice, committed; True if it was the last one."""
        with self._database.transaction() as con:
            return not batch_log.delete_below(con, self._bound, rows_max=self._rows_max)

    def install(self) -> None:
        """[loop] Remember how far it went."""
        self._upkeep.log_oldest = self._bound
