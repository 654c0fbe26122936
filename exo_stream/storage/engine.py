"""The seam between the actors and the storage: two protocols, and the values they exchange.

``StoreEngine`` is the floor, the trait of the Exoware store (2026.4.1) letter for letter.
``Engine`` is what the actors use. Its methods say where they may be called:

* [loop]    on the event loop (the trio thread), never blocking and doing no I/O;
* [writer]  blocking, only on the writer thread, one call at a time;
* [reader]  blocking, on the thread that owns this ``Reader``, beside the writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from exo_stream.model import Row
from exo_stream.payload import EncodedBatch
from exo_stream.reduce.reduction import Reduction
from exo_stream.reduce.request import ReduceResult


class StoreEngine(Protocol):
    """A store with only the nine methods: synchronous and thread-safe.

    Errors are raised as ``ExoStreamError``; anything else counts as ``store_failed``.
    """

    def put_batch(self, kvs: Sequence[tuple[bytes, bytes]]) -> int:
        """Write all pairs or none, as one batch; answer its sequence number."""

    def get(self, key: bytes) -> bytes | None:
        """The key's latest value, ``None`` if it is absent."""

    def range_scan(
        self, start: bytes, end: bytes, limit: int, forward: bool
    ) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` pairs, both ends inclusive; an empty ``end`` is unbounded."""

    def get_many(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes | None]]:
        """Each asked key with its value, in the order asked, duplicates kept."""
        return [(key, self.get(key)) for key in keys]

    def delete_batch(self, keys: Sequence[bytes]) -> int:
        """Delete all keys as one batch; answer its sequence number."""

    def current_sequence(self) -> int:
        """The sequence number of the newest batch, 0 before the first."""

    def get_batch(self, sequence: int) -> list[tuple[bytes, bytes]] | None:
        """The pairs of a retained batch; a deletion's batch is ``[]``; ``None`` if not there."""

    def oldest_retained_batch(self) -> int | None:
        """The sequence number of the oldest batch of the log, ``None`` if the log is empty."""

    def prune_batch_log(self, cutoff_exclusive: int) -> int:
        """Evict every batch below the cutoff; answer how many there were."""


@dataclass(frozen=True, slots=True)
class Group:
    """Batches of one transaction, numbered from ``frontier + 1`` without a hole.

    ``floor`` is the new oldest retained sequence if the log's floor moves with this group; a
    group may consist of that alone. ``evicted`` is how many batches that was, in the answer of a
    backend that numbers its batches itself.
    """

    batches: Sequence[EncodedBatch]
    floor: int | None = None
    evicted: int | None = None


class Version(Protocol):
    """What readers need, as one immutable object: everything up to ``frontier``, and no more.

    ``floor`` is the oldest retained batch; ``frontier + 1`` when the log is empty.
    """

    @property
    def frontier(self) -> int: ...

    @property
    def floor(self) -> int: ...


class Cold:
    """The answer of a lookup that memory cannot give: ask a ``Reader``."""


COLD: Final = Cold()


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a scan in its direction, tombstones left out.

    ``resume`` is where the next page goes on: its ``start`` when scanning forward, its ``end``
    when scanning backward; ``None`` when nothing more can come. A page may be short, even
    empty, and still have more after it: work per page is bounded, not only rows.
    """

    rows: list[Row]
    resume: bytes | None


class ScanPlan(Protocol):
    """One page of a scan, prepared on the loop; ``run`` on a reader thread unless in memory."""

    @property
    def in_memory(self) -> bool:
        """Whether ``run`` needs no I/O, so that it may be called on the loop."""

    def run(self, reader: Reader | None) -> Page:
        """The page. ``reader`` may be ``None`` only if ``in_memory``."""


class Reducing(Protocol):
    """A reduce under way: ``plan`` a slice, ``run`` it, and so on until ``run`` has the result."""

    def plan(self) -> bool:
        """[loop] Prepare some of the next slice, a millisecond or two; True if it is prepared."""

    def run(self, reader: Reader) -> ReduceResult | None:
        """[reader] Reduce what was planned; the result, if it was the last slice.

        Raises InvalidReduceError, LimitExceededError.
        """


@dataclass(frozen=True, slots=True)
class Retention:
    """A rule for the log: keep at most so many batches, seconds and bytes; ``None`` is no bound."""

    batches_max: int | None = None
    seconds_max: int | None = None
    bytes_max: int | None = None


class Reader(Protocol):
    """A thread's own way into the file. Everything it is asked is one read-only transaction."""

    def fetch(
        self,
        version: Version,
        keys: Sequence[bytes],
        *,
        bytes_max: int | None = None,
        values: bool = True,
    ) -> list[Row | None]:
        """[reader] The rows of the first of these row keys at ``version``, tombstones included, in
        few queries.

        It answers all of the keys, or at least one of them and as many as it takes to have
        ``bytes_max`` of values; beyond that it loads about 4 MiB, or one value. Without
        ``values`` it loads none: a row that is no tombstone may have the value ``b""``.
        """

    def log_page(
        self, after: int, *, through: int, batches_max: int, bytes_max: int
    ) -> list[EncodedBatch]:
        """[reader] The batches that follow ``after``, none above ``through``, at least one if
        there is one, checksums verified. ``through`` was committed.

        Raises BatchEvictedError if ``after + 1`` is no longer there, CorruptionError on a
        checksum that does not hold or a batch that is missing.
        """

    def sequence_at(self, committed_at: int) -> int:
        """[reader] The first retained sequence committed at or after this time (microseconds);
        the newest + 1 if there is none.
        """

    def cutoff(self, retention: Retention, now: int) -> int:
        """[reader] The floor that ``retention`` asks for at time ``now`` (microseconds)."""

    def log_bytes(self, floor: int) -> int:
        """[reader] The payloads of every batch from ``floor`` on, together."""

    def interrupt(self) -> None:
        """Stop the query that is running, from any thread; it raises OverloadedError."""


class Job(Protocol):
    """Work on the file in slices: a fold, a merge, a deletion, a CHECKPOINT."""

    @property
    def name(self) -> str: ...

    def step(self) -> bool:
        """[writer] One slice, committed; True if it was the last one."""

    def install(self) -> None:
        """[loop] After the last step: make the result the current Version."""


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """What a person asks of a file: sizes in bytes, and counts."""

    path: str
    file_bytes: int
    free_bytes: int
    wal_bytes: int
    disk_free_bytes: int
    blocks: int
    runs: int
    block_entries: int
    memtable_entries: int
    memtable_bytes: int
    cache_bytes: int
    folded_through: int
    block_bytes: int = 0
    """Keys and values of all blocks; what a newer run hides counts until it is merged."""


WITHOUT_FILE: Final = EngineStatistics(
    path="",
    file_bytes=0,
    free_bytes=0,
    wal_bytes=0,
    disk_free_bytes=0,
    blocks=0,
    runs=0,
    block_entries=0,
    memtable_entries=0,
    memtable_bytes=0,
    cache_bytes=0,
    folded_through=0,
)
"""What an engine that keeps no file starts from."""


class Engine(Protocol):
    """The storage behind the actors: one log, one table, one current Version."""

    @property
    def log_id(self) -> str:
        """Minted when the file was created, or restored."""

    @property
    def version(self) -> Version:
        """[loop] The current Version; a new object after each change."""

    @property
    def last_committed_at(self) -> int:
        """[loop] The time of the newest batch in microseconds, 0 before the first."""

    @property
    def own_sequences(self) -> bool:
        """Whether batches get their numbers from ``commit``, which then takes one at a time.

        True only for a backend with the nine methods: whoever commits goes on with the group
        that ``commit`` answers, and refuses what needs more than the store face.
        """

    def commit(self, group: Group) -> Group:
        """[writer] Make ``group`` durable: the log rows, and the floor, in one transaction.

        Answers the group as it is now: ``group`` itself, or under its own sequences.

        Raises StoreError if nothing was kept and the engine goes on; StoreFullError if COMMIT
        or CHECKPOINT met "no space": call ``reopen``; OutcomeUnknownError for anything else:
        stop.
        """

    def reopen(self) -> int:
        """[writer] Open the file again after "no space", replay, CHECKPOINT; answer the last
        durable sequence. The Version stays as it was: ``install`` what turned out durable. A job
        planned before is void: do not step it again.

        Raises StoreFullError while there is still no space: call it again later.
        """

    def install(self, group: Group) -> None:
        """[loop] Make a committed group visible: memtable, floor, frontier, one assignment."""

    @property
    def backlogged(self) -> bool:
        """[loop] Both memtables are full: only jobs may run until a fold is installed."""

    @property
    def space_low(self) -> bool:
        """[loop] Free space is below the watermark: refuse writes."""

    def lookup(self, version: Version, key: bytes) -> Row | Cold | None:
        """[loop] The row of a row key (a tombstone counts), None if absent, COLD if only the
        file can tell.
        """

    def changed(self, version: Version, key: bytes, since: int) -> bool | Cold:
        """[loop] Whether a batch after ``since`` wrote this row key, as ``version`` has it; COLD
        if only the file can tell. What is newer than ``since`` is mostly in memory.
        """

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

    def open_reduce(
        self, version: Version, start: bytes, end: bytes, reduction: Reduction
    ) -> Reducing:
        """[loop] Begin to reduce the rows with ``start <= row key < end``, of one keyspace, at
        ``version``, which stays pinned until it is done.
        """

    def pin(self, version: Version) -> None:
        """[loop] Keep what ``version`` shows readable until as many ``unpin`` calls came."""

    def unpin(self, version: Version) -> None:
        """[loop] Let go of one ``pin``."""

    def held_bytes(self, versions: Iterable[Version]) -> int:
        """[loop] What these pinned Versions keep in memory that the current one does not need."""

    def open_reader(self) -> Reader:
        """A reader for one thread; it survives ``reopen``."""

    def next_job(self, now: int, *, idle: bool) -> Job | None:
        """[loop] The most urgent job at wall time ``now`` (microseconds), None if all is well.

        At most one job is under way at a time: ask again after ``install``. ``idle`` allows
        what may wait for a quiet moment.
        """

    def statistics(self) -> EngineStatistics:
        """[loop] Sizes and counts, from memory and ``stat``."""

    def close(self) -> None:
        """[writer] CHECKPOINT, mark the shutdown as clean, close the file, drop the lock."""
