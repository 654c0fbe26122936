"""MemoryEngine: an Engine and a StoreEngine in memory, for as long as the process lives.

The same memtable and the same Versions as the file's engine, but nothing is ever folded.
"""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from exo_stream.errors import BatchEvictedError
from exo_stream.limits import Limits
from exo_stream.model import Row, row_key
from exo_stream.payload import ENTRY_BYTES, EncodedBatch
from exo_stream.reduce.reduction import Reduction
from exo_stream.storage.engine import (
    WITHOUT_FILE,
    Cold,
    EngineStatistics,
    Group,
    Job,
    Reader,
    Reducing,
    Retention,
    ScanPlan,
    Version,
)
from exo_stream.storage.memtable import Memtable
from exo_stream.storage.page import Bounds, MemoryPlan
from exo_stream.storage.paged_reduce import PagedReduce
from exo_stream.storage.trait import InlineStore
from exo_stream.storage.version import Pins, TableVersion


def wall_clock() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000


class MemoryEngine(InlineStore):
    """A store in memory. ``log_id`` may be given; otherwise a new one is minted.

    Deleted keys keep a tombstone for good, so this is for tests and for small, short lives.
    """

    def __init__(
        self,
        *,
        log_id: str | None = None,
        limits: Limits | None = None,
        now: Callable[[], int] = wall_clock,
    ) -> None:
        super().__init__(self, limits or Limits(), now)
        self._log_id = log_id or secrets.token_hex(16)
        self._log = MemoryLog()
        self._version = TableVersion(frontier=0, floor=1, live=Memtable())
        self._last_committed_at = 0
        self._table_bytes = 0
        self._pins = Pins()

    @property
    def log_id(self) -> str:
        """Names this log for as long as the engine lives."""
        return self._log_id

    @property
    def version(self) -> TableVersion:
        """[loop] The current Version; a new object after each change."""
        return self._version

    @property
    def last_committed_at(self) -> int:
        """[loop] The time of the newest batch in microseconds, 0 before the first."""
        return self._last_committed_at

    @property
    def own_sequences(self) -> bool:
        """No: batches come numbered."""
        return False

    def commit(self, group: Group) -> Group:
        """[writer] Keep the batches; they become visible with ``install``."""
        self._log.append(group.batches)
        return group

    def reopen(self) -> int:
        """[writer] Nothing to open; answer the last sequence kept."""
        return self._log.newest

    def install(self, group: Group) -> None:
        """[loop] Make a committed group visible."""
        version = self._version
        frontier = version.frontier
        if group.batches:
            assert group.batches[0].sequence == frontier + 1, (group.batches[0], frontier)
            for batch in group.batches:
                self._table_bytes += _growth(version.live, batch)
                version.live.apply([batch], self._pins.frontiers)
            frontier = group.batches[-1].sequence
            self._last_committed_at = group.batches[-1].committed_at
        floor = version.floor if group.floor is None else max(version.floor, group.floor)
        assert floor <= frontier + 1, (floor, frontier)
        self._version = TableVersion(frontier, floor, version.live)

    @property
    def backlogged(self) -> bool:
        """[loop] Never: there is nothing to wait for."""
        return False

    @property
    def space_low(self) -> bool:
        """[loop] It holds more than ``memory_bytes_max``."""
        return self._bytes_held > self._limits.memory_bytes_max

    @property
    def _bytes_held(self) -> int:
        return self._table_bytes + self._log.payload_bytes

    def lookup(self, version: Version, key: bytes) -> Row | Cold | None:
        """[loop] The row of a row key (a tombstone counts), None if absent."""
        assert isinstance(version, TableVersion), version
        assert version.frontier == self._version.frontier or version in self._pins, version.frontier
        node = version.live.node(key, version.frontier)
        return None if node is None else Row(key, node[0], node[1])

    def changed(self, version: Version, key: bytes, since: int) -> bool | Cold:
        """[loop] Whether a batch after ``since`` wrote this row key."""
        row = self.lookup(version, key)
        return isinstance(row, Row) and row.sequence > since

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
        """[loop] One page of the rows with ``start <= row key < end``, at once."""
        assert isinstance(version, TableVersion), version
        assert version.frontier == self._version.frontier or version in self._pins, version.frontier
        return MemoryPlan(version, Bounds(start, end, rows_max, bytes_max, forward))

    def open_reduce(
        self, version: Version, start: bytes, end: bytes, reduction: Reduction
    ) -> Reducing:
        """[loop] Begin to reduce the rows with ``start <= row key < end``."""
        return PagedReduce(self, version, start, end, reduction)

    def pin(self, version: Version) -> None:
        """[loop] Keep what ``version`` shows readable until as many ``unpin`` calls came."""
        assert version.frontier == self._version.frontier or version in self._pins, version.frontier
        self._pins.pin(version)

    def unpin(self, version: Version) -> None:
        """[loop] Let go of one ``pin``."""
        self._pins.unpin(version)

    def held_bytes(self, versions: Iterable[Version]) -> int:
        """[loop] None: there is one memtable for all."""
        return self._version.bytes_beside(versions)

    def open_reader(self) -> Reader:
        """A reader for one thread."""
        return MemoryReader(self._log)

    def next_job(self, now: int, *, idle: bool) -> Job | None:  # noqa: ARG002  the seam has it
        """[loop] The removal of evicted batches, if there are any that nobody holds."""
        floor = self._pins.log_floor(self._version.floor)
        return _Removal(self._log, floor, self._limits) if self._log.oldest < floor else None

    def statistics(self) -> EngineStatistics:
        """[loop] Counts; there is no file."""
        live = self._version.live
        return replace(
            WITHOUT_FILE,
            path=":memory:",
            memtable_entries=len(live.nodes),
            memtable_bytes=self._bytes_held,
        )

    def close(self) -> None:
        """[writer] Nothing to do."""


def _growth(live: Memtable, batch: EncodedBatch) -> int:
    """By how many bytes a batch makes the table larger, one entry for each key that ever was."""
    rows = {row_key(keyspace, key): value for keyspace, key, value in batch.entries}
    growth = 0
    for key, value in rows.items():
        older = live.nodes.get(key)
        if older is None:
            growth += ENTRY_BYTES + len(key)
        elif older[1] is not None:
            growth -= len(older[1])
        growth += 0 if value is None else len(value)
    return growth


class MemoryLog:
    """Batches by sequence number. One thread appends; others may read: each step is atomic."""

    def __init__(self) -> None:
        self._batches: dict[int, EncodedBatch] = {}
        self.oldest = 1
        self.newest = 0
        self.payload_bytes = 0

    def append(self, batches: Sequence[EncodedBatch]) -> None:
        """Keep the batches, numbered from ``newest + 1`` without a hole."""
        for batch in batches:
            assert batch.sequence == self.newest + 1, (batch, self.newest)
            self._batches[batch.sequence] = batch
            self.payload_bytes += len(batch.payload)
            self.newest = batch.sequence

    def get(self, sequence: int) -> EncodedBatch | None:
        """The batch of this number, if it is still there."""
        return self._batches.get(sequence)

    def remove_oldest(self) -> None:
        """Forget one batch."""
        self.oldest += 1
        self.payload_bytes -= len(self._batches.pop(self.oldest - 1).payload)


class MemoryReader:
    """Reads the log of a MemoryEngine; the table never needs it."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def fetch(
        self,
        version: Version,
        keys: Sequence[bytes],
        *,
        bytes_max: int | None = None,
        values: bool = True,  # noqa: ARG002  they are here anyway
    ) -> list[Row | None]:
        """[reader] The rows of the first of these row keys at ``version``."""
        assert isinstance(version, TableVersion), version
        rows: list[Row | None] = []
        size = 0
        for key in keys:
            node = version.live.node(key, version.frontier)
            rows.append(None if node is None else Row(key, node[0], node[1]))
            size += 0 if node is None or node[1] is None else len(node[1])
            if bytes_max is not None and size >= bytes_max:
                break
        return rows

    def log_page(
        self, after: int, *, through: int, batches_max: int, bytes_max: int
    ) -> list[EncodedBatch]:
        """[reader] The batches that follow ``after``, none above ``through``."""
        page: list[EncodedBatch] = []
        size = 0
        for sequence in range(after + 1, min(through, self._log.newest, after + batches_max) + 1):
            batch = self._log.get(sequence)
            if batch is None:
                raise BatchEvictedError(self._log.oldest)
            size += len(batch.payload)
            if page and size > bytes_max:
                break
            page.append(batch)
        return page

    def sequence_at(self, committed_at: int) -> int:
        """[reader] The first retained sequence committed at or after this time."""
        numbers = range(self._log.oldest, self._log.newest + 1)
        at = bisect_left(numbers, committed_at, key=self._committed_at)
        return numbers.start + at

    def _committed_at(self, sequence: int) -> int:
        batch = self._log.get(sequence)
        # One that was removed meanwhile is older than every one that is there.
        return 0 if batch is None else batch.committed_at

    def cutoff(self, retention: Retention, now: int) -> int:
        """[reader] The floor that ``retention`` asks for at time ``now``."""
        oldest, newest = self._log.oldest, self._log.newest
        floor = oldest
        if retention.batches_max is not None:
            floor = max(floor, newest + 1 - retention.batches_max)
        if retention.seconds_max is not None:
            floor = max(floor, self.sequence_at(now - retention.seconds_max * 1_000_000))
        if retention.bytes_max is not None:
            size = 0
            for sequence in range(newest, floor - 1, -1):
                batch = self._log.get(sequence)
                size += 0 if batch is None else len(batch.payload)
                if size > retention.bytes_max:
                    return sequence + 1
        return floor

    def log_bytes(self, floor: int) -> int:
        """[reader] The payloads of every batch from ``floor`` on, together."""
        batches = map(self._log.get, range(floor, self._log.newest + 1))
        return sum(len(batch.payload) for batch in batches if batch is not None)

    def interrupt(self) -> None:
        """Nothing here takes long."""


class _Removal:
    """The job that forgets evicted batches, in slices."""

    name = "removal"

    def __init__(self, log: MemoryLog, floor: int, limits: Limits) -> None:
        self._log = log
        self._floor = floor
        self._limits = limits

    def step(self) -> bool:
        """[writer] Forget some; True when none is left."""
        for _ in range(min(self._limits.slice_rows_max, self._floor - self._log.oldest)):
            self._log.remove_oldest()
        return self._log.oldest >= self._floor

    def install(self) -> None:
        """[loop] Nothing: evicted batches were invisible already."""
