"""What an application holds: the engine and its actors in one nursery, behind one handle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Literal, TypeVar

import outcome
import trio

from exo_stream.backups import BackupInfo, Backups, OnProgress
from exo_stream.canonical.store import CanonicalStore
from exo_stream.decision import Decision, Refuse
from exo_stream.errors import InvalidRequestError, UnsupportedError
from exo_stream.ground import Ground
from exo_stream.information import Information, Sizes
from exo_stream.keys import KeyCodec, MatchKey
from exo_stream.local_feed import LocalFeed
from exo_stream.model import SEQUENCE_MAX, Batch, Cursor, VersionedValue
from exo_stream.namespaced import NamespacedStore
from exo_stream.namespaces import Namespace
from exo_stream.policies.policy import Policy
from exo_stream.policies.result import PruneResult
from exo_stream.policies.retention import LogRetention, RetentionState, checked_retention
from exo_stream.policies.rules import store_retention
from exo_stream.producers import Producer
from exo_stream.prune import prune
from exo_stream.read_session import ReadSession
from exo_stream.reduce.checks import check_request
from exo_stream.reduce.request import ReduceRequest, ReduceResult
from exo_stream.regex.pattern import compile_regex
from exo_stream.scan import Scan, bounds
from exo_stream.selectors import ValueFilter
from exo_stream.starts import chosen_start
from exo_stream.storage.hop import TimedHop
from exo_stream.store_reads import StoreReads
from exo_stream.streams.checks import chosen_selector
from exo_stream.streams.streams import Streams
from exo_stream.writes import (
    LargeWrite,
    Requirement,
    StoreWrite,
    begin_write,
    decision,
    unsupported_write,
)

if TYPE_CHECKING:
    from exo_stream.backup_key import BackupKey

T = TypeVar("T")


class Platform:
    """An open store: the verbs of an application, and the values they answer with.

    Every verb may be called from any task of the trio program that opened the platform. A call
    that is cancelled before ingest took it up never happens; a write that was taken up takes its
    course, and a retry as the same producer tells what became of it.
    """

    def __init__(self, ground: Ground, writing: TimedHop, backups: Backups) -> None:
        self._ground = ground
        self._backups = backups
        self._writing = writing
        self._pruning = trio.StrictFIFOLock()
        self.sources = sources = ground.sources
        self.limits = sources.limits
        self._reads = sources.reads
        self._engine = sources.reads.engine
        self._frontier = sources.frontier
        self._store = StoreReads(ground)
        self.streams = Streams(ground)
        self.canonical = CanonicalStore(ground, backups)

    @property
    def log_id(self) -> str:
        """The identity of the log, part of every cursor."""
        return self._engine.log_id

    @property
    def writer_busy_seconds(self) -> float:
        """For how long the writer thread has been in its present call: a stuck disk shows here."""
        return self._writing.busy_seconds

    @property
    def cursor(self) -> Cursor:
        """The log's end: a subscription after it gets what is written from now on."""
        return Cursor(self.log_id, self._frontier.visible)

    async def pause_ingestion(self) -> None:
        """Refuse the writes of every face with PausedError; return once those under way are done.

        Reads, feeds and upkeep go on. Pauses nest; one cancelled before it returns never happened.
        """
        await self._ground.pause.pause(self._ground.settle)

    def resume_ingestion(self) -> None:
        """Undo one pause; without any it does nothing."""
        self._ground.pause.resume()

    def is_paused(self) -> bool:
        """Whether the writes of every face are refused."""
        return self._ground.pause.is_paused

    async def put_batch(self, kvs: Iterable[tuple[bytes, bytes]]) -> int:
        """Write all pairs or none, as one batch; return its sequence number, once it is durable.

        A key may stand there twice: the last value wins, the log keeps both. Raises
        InvalidRequestError, LimitExceededError, StoreError (nothing kept) or OutcomeUnknownError.
        """
        return await self.write(puts=kvs)

    async def delete_batch(self, keys: Iterable[bytes]) -> int:
        """Delete all keys as one batch, present or not; return its sequence number."""
        return await self.write(deletes=keys)

    async def write(
        self,
        *,
        puts: Iterable[tuple[bytes, bytes]] = (),
        deletes: Iterable[bytes] = (),
        require: Mapping[bytes, Requirement] | None = None,
        producer: Producer | None = None,
    ) -> int:
        """Write puts, then deletes, as one atomic batch; return its sequence number.

        ``require`` maps keys to what must hold of them: ``"absent"``, ``"present"`` or a version
        as ``get_entry`` tells it; otherwise ConflictError names the first that does not hold. With
        a ``producer`` the write takes effect once, however often it is retried.
        """
        write = begin_write(
            self.limits, puts=puts, deletes=deletes, require=require, producer=producer
        )
        while isinstance(write, LargeWrite):
            await trio.lowlevel.checkpoint()
            write = write.step()
        return await self._ground.decide(self._decision(write), size=write.size)

    async def write_many(self, writes: Sequence[StoreWrite]) -> list[outcome.Outcome[int]]:
        """Hand over several checked writes at once; return what became of each of them."""
        return await self._ground.decide_all(
            [(self._decision(write), write.size) for write in writes]
        )

    def _decision(self, write: StoreWrite) -> Decision[int]:
        lacking = unsupported_write(write) if self._engine.own_sequences else None
        return decision(write) if lacking is None else lambda _view, _now: Refuse(lacking)

    async def decide(self, decide: Decision[T], *, size: int = 0) -> T:
        """Have the one writer decide, and return the decision's answer once it is durable."""
        return await self._ground.decide(decide, size=size)

    async def get(self, key: bytes, *, min_sequence: int = 0, wait: bool = True) -> bytes | None:
        """The key's latest value, None if it is absent. ``min_sequence`` as in ``get_entry``."""
        [entry] = await self._store.entries([key], min_sequence=min_sequence, wait=wait)
        return entry.value

    async def get_entry(
        self, key: bytes, *, min_sequence: int = 0, wait: bool = True
    ) -> VersionedValue:
        """The key's value, its version, and the sequence number this was read at.

        The read waits until ``min_sequence`` is visible; without ``wait`` it raises
        NotVisibleYetError at once.
        """
        [entry] = await self._store.entries([key], min_sequence=min_sequence, wait=wait)
        if self._engine.own_sequences:
            raise UnsupportedError("this backend has only the nine methods, and tells no versions")
        return entry

    async def get_many(
        self, keys: Sequence[bytes], *, min_sequence: int = 0, wait: bool = True
    ) -> list[tuple[bytes, bytes | None]]:
        """Each asked key with its value, in the order asked, duplicates kept, at one sequence."""
        entries = await self._store.entries(keys, min_sequence=min_sequence, wait=wait)
        return [(key, entry.value) for key, entry in zip(keys, entries, strict=True)]

    async def read_values(
        self, keys: Sequence[bytes], *, min_sequence: int = 0, wait: bool = True
    ) -> tuple[int, list[bytes | None]]:
        """The value of each asked key, and the sequence number they were served at."""
        if not keys:
            version = await self._ground.version(min_sequence, wait=wait)
            await trio.lowlevel.checkpoint()
            return version.frontier, []
        entries = await self._store.entries(keys, min_sequence=min_sequence, wait=wait)
        return entries[0].sequence, [entry.value for entry in entries]

    async def get_entries(
        self,
        keys: Sequence[bytes],
        *,
        min_sequence: int = 0,
        wait: bool = True,
        bytes_max: int | None = None,
    ) -> list[VersionedValue]:
        """``get_entry`` for several keys at one sequence, in the order asked.

        Raises LimitExceededError if their values have more than ``bytes_max`` together, which is
        ``get_many_bytes_max`` unless told.
        """
        return await self._store.entries(
            keys, min_sequence=min_sequence, wait=wait, bytes_max=bytes_max
        )

    async def range_scan(
        self,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 1000,
        forward: bool = True,
        *,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` pairs in key order, or against it, all at one sequence.

        Both ends are inclusive; an empty ``end`` is unbounded; a limit of 0 gives nothing. For
        more than fits in memory, ``scan``.
        """
        _, pairs = await self.read_range(
            start, end, limit, forward, min_sequence=min_sequence, wait=wait
        )
        return pairs

    async def read_range(
        self,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 1000,
        forward: bool = True,
        *,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> tuple[int, list[tuple[bytes, bytes]]]:
        """``range_scan``, and the sequence number it was served at."""
        return await self._store.range(
            start, end, limit, forward=forward, min_sequence=min_sequence, wait=wait
        )

    def scan(
        self,
        start: bytes = b"",
        end: bytes = b"",
        *,
        forward: bool = True,
        limit: int | None = None,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> Scan:
        """All pairs of a range, or ``limit`` of them, lazily, page by page, on one snapshot.

        Use it as ``async with platform.scan() as rows: async for key, value in rows: …``. What it
        has read is in ``rows.read_stats``. ``min_sequence`` as in ``get_entry``.
        """
        low, high = bounds(start, end)
        if limit is not None and (type(limit) is not int or limit < 0):
            raise InvalidRequestError("a limit is a number from 0 on")
        visible = partial(self._ground.version, min_sequence, wait=wait)
        return Scan(
            self._reads,
            self.sources.snapshots,
            low,
            high,
            forward=forward,
            limit=limit,
            visible=visible,
        )

    def session(self, sequence: int | None = None, *, wait: bool = True) -> ReadSession:
        """Reads none of which shows an older state than the first; or than ``sequence``."""
        return ReadSession(self, sequence, wait=wait)

    def namespace(self, part: bytes | KeyCodec) -> NamespacedStore:
        """The keys that begin with ``part``, or that it packs, seen without it."""
        return NamespacedStore(self, Namespace().within(part))

    async def reduce(
        self,
        request: ReduceRequest,
        start: bytes = b"",
        end: bytes = b"",
        *,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> ReduceResult:
        """What ``request`` makes of a range, all at one sequence.

        Both ends are inclusive; an empty ``end`` is unbounded. Raises InvalidReduceError for a
        request that breaks a rule, or whose sum does not fit into its kind, LimitExceededError if
        there are too many groups, OverloadedError if it takes too long.
        """
        check_request(request)
        low, high = bounds(start, end)
        version = await self._ground.version(min_sequence, wait=wait)
        return await self._reads.reduce(version, low, high, request)

    async def get_batch(self, sequence: int) -> Batch | None:
        """The batch with this number, deletions as the value None; None if it is not there yet.

        Raises BatchEvictedError if retention has let go of it.
        """
        return await self._store.batch(sequence)

    async def oldest_retained_batch(self) -> int | None:
        """The number of the oldest batch in the log, None if the log is empty."""
        await trio.lowlevel.checkpoint()
        return self._oldest()

    def _oldest(self) -> int | None:
        version = self._engine.version
        return version.floor if version.floor <= version.frontier else None

    async def current_sequence(self) -> int:
        """The number of the newest visible batch, 0 before the first."""
        await trio.lowlevel.checkpoint()
        return self._frontier.visible

    async def prune_batch_log(self, cutoff_exclusive: int) -> int:
        """Evict every batch below the cutoff, at once for everybody; return how many there were.

        The table keeps its values. What a held snapshot still needs is evicted when it is let go.
        """
        if type(cutoff_exclusive) is not int or not 0 <= cutoff_exclusive <= SEQUENCE_MAX:
            raise InvalidRequestError("a sequence number is an unsigned 64-bit integer")
        return await self._ground.move_floor(cutoff_exclusive)

    async def prune(self, policies: Sequence[Policy], *, dry_run: bool = False) -> PruneResult:
        """Delete the keys and evict the batches that ``policies`` do not keep, one after the other.

        Up to 100,000 keys of one policy are one batch, more are several; nothing to delete writes
        nothing. No value is deleted that is newer than the one that was judged. With ``dry_run``
        it only counts. One prune runs at a time. Raises InvalidPolicyError before anything is
        done, or LimitExceededError for a policy with a group that is too large.
        """
        async with self._pruning:
            return await prune(self._ground, policies, compile_regex, dry_run=dry_run)

    async def set_retention(self, retention: LogRetention | None) -> RetentionState:
        """Store what the log keeps in the file, and apply it at once; None keeps everything.

        What has been evicted stays evicted. While the platform was opened with rules of its own,
        those go first. Raises InvalidPolicyError.
        """
        if self._engine.own_sequences:
            raise UnsupportedError("this backend has only the nine methods, and stores no rules")
        rules = checked_retention(retention)
        await self._ground.decide(store_retention(rules), frees=True)
        await self._ground.apply_retention()
        return self._ground.keeping.state(self._oldest())

    async def retention(self) -> RetentionState:
        """What the log keeps, and why."""
        await trio.lowlevel.checkpoint()
        return self._ground.keeping.state(self._oldest())

    def subscribe(
        self,
        *,
        prefix: bytes = b"",
        match: Sequence[MatchKey] | None = None,
        values: Sequence[ValueFilter] | None = None,
        stream: str | None = None,
        streams_prefix: str | None = None,
        events: bool = False,
        after: Cursor | str | None = None,
        from_sequence: int | None = None,
        from_event: int | None = None,
        start: Literal["oldest", "now"] | None = None,
        last: int | None = None,
        since_time: datetime | None = None,
        snapshot: bool = False,
    ) -> LocalFeed:
        """Every batch with keys under ``prefix``, from one start on; the oldest if none is given.

        With ``match`` only entries of which the rest of the key matches one of these, with
        ``values`` only those whose value passes one of these filters, which no deletion does.
        Instead of keys a ``stream``, those begun by ``streams_prefix``, or canonical ``events``.
        ``after`` a cursor (exclusive), ``from_sequence`` or ``from_event`` (inclusive), ``start``
        ``"oldest"`` or ``"now"``, the ``last`` so many sequence numbers, ``since_time``, or with
        ``snapshot`` the matching rows of the table first. In an ``async with``, ``async for``.
        """
        chosen = chosen_start(
            after=after,
            from_sequence=from_sequence,
            from_event=from_event,
            start=start,
            last=last,
            since_time=since_time,
            snapshot=snapshot,
        )
        follows = events or from_event is not None
        selector = chosen_selector(prefix, match, values, stream, streams_prefix, events=follows)
        return LocalFeed(self.sources, selector, chosen)

    async def backup_to(
        self,
        directory: str | PathLike[str],
        *,
        parent: str | PathLike[str] | None = None,
        compress: bool = False,
        key: BackupKey | None = None,
        projections: str | PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> BackupInfo:
        """Back up all that is visible now to ``directory``, which must not exist; writes go on.

        With ``parent``, an earlier backup that stays beside it, only the log since then:
        FullBackupNeededError if that is no longer there. ``compress`` is zstd; with a ``key`` no
        byte of it reaches a disk in the clear. Projections that run are in a full one, and those
        that nobody runs with files in the folder ``projections``. ``on_progress`` is told how many
        bytes are done, and of how many, about. Cancelled, it leaves nothing. Raises BackupError
        and those below it, SnapshotExpiredError, StoreFullError, StoreError, UnsupportedError.
        """
        return await self._backups.backup_to(
            directory,
            parent=parent,
            compress=compress,
            key=key,
            projections=projections,
            on_progress=on_progress,
        )

    async def info(self) -> Information:
        """Identity, extent and sizes."""
        log_bytes = await self._reads.log_bytes(self._engine.version.floor)
        found = self._engine.statistics()
        table_bytes = found.block_bytes + found.memtable_bytes
        total_bytes = found.file_bytes + found.wal_bytes
        return Information(
            self.log_id,
            self._frontier.visible,
            self._oldest(),
            len(self.sources.interest),
            self._ground.keeping.problem,
            Sizes(log_bytes + table_bytes, table_bytes, log_bytes, total_bytes),
            found,
        )
