"""DuckDBEngine: the Engine over one DuckDB file, and the nine methods of the trait."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import count

from exo_stream.errors import BatchEvictedError, CorruptionError
from exo_stream.limits import Limits
from exo_stream.model import Row
from exo_stream.reduce.reduction import Reduction
from exo_stream.storage import batch_log, manifest
from exo_stream.storage.database import Database, Rows, open_database
from exo_stream.storage.engine import (
    Cold,
    EngineStatistics,
    Group,
    Job,
    Reader,
    Reducing,
    ScanPlan,
    Version,
)
from exo_stream.storage.instance import MEMORY_PER_BATCH_BYTE
from exo_stream.storage.memory_engine import wall_clock
from exo_stream.storage.page import Bounds
from exo_stream.storage.paged_reduce import PagedReduce
from exo_stream.storage.reduce_sql import is_pushable
from exo_stream.storage.table import Table
from exo_stream.storage.table_reader import TableReader
from exo_stream.storage.trait import InlineStore
from exo_stream.storage.upkeep import Upkeep


def open_duckdb_engine(
    path: str | os.PathLike[str],
    *,
    limits: Limits | None = None,
    now: Callable[[], int] = wall_clock,
    unsafe_nosync: bool = False,
) -> DuckDBEngine:
    """Open the file at ``path``, or create it; what it shows is durable.

    Blocking: call it on the thread that will be the writer. ``now`` gives microseconds since the
    Unix epoch, for the nine methods of the trait. With ``unsafe_nosync`` no commit waits for the
    disk, and a crash of the machine may lose or damage everything: for measurements only. Raises
    FileInUseError, ForeignFileError, CorruptionError, StoreFullError, StoreError.
    """
    limits = limits or Limits()
    memory = max(limits.engine_memory_bytes, MEMORY_PER_BATCH_BYTE * limits.batch_bytes_max)
    database = open_database(path, memory_bytes=memory, unsafe_nosync=unsafe_nosync)
    try:
        return DuckDBEngine(database, limits=limits, now=now)
    except BaseException:
        database.abandon()  # as it is: what is wrong with it must stay to be seen
        raise


class DuckDBEngine(InlineStore):
    """The table and the log of one file. Made by ``open_duckdb_engine``."""

    def __init__(self, database: Database, *, limits: Limits, now: Callable[[], int]) -> None:
        super().__init__(self, limits, now)
        self._database = database
        with database.reading() as rows:
            ends = batch_log.ends(rows)
            blocks = manifest.load(rows)
            self._last_committed_at = ends.last_committed_at
            self._table = Table(limits, blocks=blocks, frontier=ends.folded_through, floor=1)
            runs = {block.run for block in blocks}
            self._free_block_ids(rows, {block.id for block in blocks}, runs)
            self._recover(rows, ends)
        self._upkeep = Upkeep(self._table, database, ends.oldest_row)

    def _free_block_ids(self, rows: Rows, live: set[int], runs: set[int]) -> None:
        """Find what a crash left behind, and the first id that nothing ever had."""
        entries = sum(block.entries for run in self._table.version.runs for block in run.blocks)
        used = live
        if manifest.count_rows(rows) != entries:
            used = live | set(manifest.block_ids_in_use(rows))
        self._table.new_block_ids = count(max([0, *used, *runs]) + 1)
        self._table.bury(sorted(used))

    def _recover(self, rows: Rows, ends: batch_log.LogEnds) -> None:
        """Build the memtable again from the batches that are not in blocks."""
        table = self._table
        after = ends.folded_through
        while after < ends.newest:
            try:
                batches = batch_log.page(
                    rows,
                    after,
                    through=ends.newest,
                    batches_max=self._limits.page_rows_max,
                    bytes_max=self._limits.page_bytes_max,
                )
            except BatchEvictedError:
                raise CorruptionError(
                    f"batch {after + 1} is in no block and not in the log"
                ) from None
            table.apply(batches, None)
            after = batches[-1].sequence
        table.apply((), ends.floor)

    @property
    def log_id(self) -> str:
        """Minted when the file was created, or restored."""
        return self._database.log_id

    @property
    def version(self) -> Version:
        """[loop] The current Version; a new object after each change."""
        return self._table.version

    @property
    def last_committed_at(self) -> int:
        """[loop] The time of the newest batch in microseconds, 0 before the first."""
        return self._last_committed_at

    @property
    def own_sequences(self) -> bool:
        """No: batches come numbered."""
        return False

    def commit(self, group: Group) -> Group:
        """[writer] Make ``group`` durable: the log rows, and the floor, in one transaction."""
        with self._database.transaction() as con:
            if group.batches:
                batch_log.append(self._database.log_appender, group.batches)
            if group.floor is not None:
                batch_log.move_floor(con, group.floor)
        return group

    def reopen(self) -> int:
        """[writer] Open the file again after "no space"; answer the last durable sequence."""
        self._database.reopen()
        with self._database.reading() as rows:
            self._upkeep.reload(rows)
            return batch_log.ends(rows).newest

    def install(self, group: Group) -> None:
        """[loop] Make a committed group visible."""
        self._table.apply(group.batches, group.floor)
        if group.batches:
            self._last_committed_at = group.batches[-1].committed_at

    @property
    def backlogged(self) -> bool:
        """[loop] Both memtables are full: only jobs may run until a fold is installed."""
        return self._table.backlogged

    @property
    def space_low(self) -> bool:
        """[loop] Free space is below the watermark: refuse writes."""
        return self._database.space_low(self._limits.free_bytes_min)

    def lookup(self, version: Version, key: bytes) -> Row | Cold | None:
        """[loop] The row of a row key, None if absent, COLD if only the file can tell."""
        return self._table.lookup(version, key)

    def changed(self, version: Version, key: bytes, since: int) -> bool | Cold:
        """[loop] Whether a batch after ``since`` wrote this row key; COLD if the file must tell."""
        return self._table.changed(version, key, since)

    def scan(
        self,
        version: Version,
        start: bytes,
        end: bytes,
        *,
        rows_max: int,
        bytes_max: int,
        forward: bool,
    ) -> ScanPlan:
        """[loop] Plan one page of the rows with ``start <= row key < end`` at ``version``."""
        return self._table.scan(version, Bounds(start, end, rows_max, bytes_max, forward))

    def open_reduce(
        self, version: Version, start: bytes, end: bytes, reduction: Reduction
    ) -> Reducing:
        """[loop] Begin to reduce the rows with ``start <= row key < end``."""
        if is_pushable(reduction.request):
            return self._table.open_reduce(version, start, end, reduction)
        return PagedReduce(self, version, start, end, reduction)

    def pin(self, version: Version) -> None:
        """[loop] Keep what ``version`` shows readable until as many ``unpin`` calls came."""
        self._table.pin(version)

    def unpin(self, version: Version) -> None:
        """[loop] Let go of one ``pin``."""
        self._table.pins.unpin(version)

    def held_bytes(self, versions: Iterable[Version]) -> int:
        """[loop] What these pinned Versions keep in memory that the current one does not need."""
        return self._table.version.bytes_beside(versions)

    def open_reader(self) -> Reader:
        """A reader for one thread; it survives ``reopen``."""
        return TableReader(self._database.open_cursor(), self._table.cache)

    def next_job(self, now: int, *, idle: bool) -> Job | None:
        """[loop] The most urgent job at wall time ``now``, None if all is well."""
        return self._upkeep.next_job(now, idle=idle)

    def statistics(self) -> EngineStatistics:
        """[loop] Sizes and counts, from memory and ``stat``."""
        version, database = self._table.version, self._database
        blocks = [block for run in version.runs for block in run.blocks]
        memtables = list(version.memtables)
        return EngineStatistics(
            path=str(database.path),
            file_bytes=database.file_bytes,
            free_bytes=database.free_bytes,
            wal_bytes=database.wal_bytes,
            disk_free_bytes=database.disk_free_bytes,
            blocks=len(blocks),
            runs=len(version.runs),
            block_entries=sum(block.entries for block in blocks),
            memtable_entries=sum(len(memtable.nodes) for memtable in memtables),
            memtable_bytes=sum(memtable.payload_bytes for memtable in memtables),
            cache_bytes=self._table.cache.bytes_held,
            block_bytes=sum(block.size for block in blocks),
            folded_through=max([0, *(run.folded_through for run in version.runs)]),
        )

    def close(self) -> None:
        """[writer] CHECKPOINT, mark the shutdown as clean, close the file, drop the lock."""
        self._database.close()
