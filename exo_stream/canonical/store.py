"""The canonical store of a platform: what an application holds of this face."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from typing import TYPE_CHECKING, Self, TypeVar

import trio

from exo_stream.actors.orders import Decide
from exo_stream.backups import BackupInfo, Backups, OnBytes, OnProgress, RestoreInfo, ignore_bytes
from exo_stream.canonical.batch import WriteBatch
from exo_stream.canonical.changes import Changes, CommitInfo
from exo_stream.canonical.events import EventIter, check_ids
from exo_stream.canonical.numbered import recalled
from exo_stream.canonical.pauses import NamedPauses
from exo_stream.canonical.ranges import StateIter, after_prefix
from exo_stream.canonical.record import seal, touch, unseal
from exo_stream.canonical.state import StateReads
from exo_stream.canonical.stripes import LockManager
from exo_stream.canonical.transaction import Transaction
from exo_stream.canonical.transactions import ReadTxn, WriteTxn
from exo_stream.canonical.writers import Writers
from exo_stream.decision import Decision
from exo_stream.errors import InvalidRequestError, InvalidStateError, UnsupportedError
from exo_stream.ground import Ground
from exo_stream.model import SEQUENCE_MAX
from exo_stream.pause import Pause
from exo_stream.producers import Producer
from exo_stream.snapshots import Snapshot
from exo_stream.storage.engine import Version

if TYPE_CHECKING:
    from exo_stream.backup_key import BackupKey
    from exo_stream.canonical.projection import Projector
    from exo_stream.canonical.projection_rules import ProjectorStatus
    from exo_stream.canonical.projections import Projections

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CanonicalMeta:
    """What is known of the store as a whole, at ``sequence``; times are RFC 3339, in UTC.

    ``created_at`` and ``updated_at`` are None before the first ``open`` or commit.
    """

    next_event_id: int
    sealed_event_id: int | None
    schema_version: int
    created_at: str | None
    updated_at: str | None
    sequence: int


class CanonicalStore:
    """State and events that change together: ``platform.canonical``.

    State is a table of bytes by key, events are bytes by id, 0, 1, 2 and so on. Every way to
    write gives one atomic batch of the platform's log. It needs no ``open``; whoever wants to
    know that the store has been set up, or to note that it was taken into use, calls it.
    """

    def __init__(self, ground: Ground, backups: Backups) -> None:
        limits = ground.sources.limits
        self._ground = ground
        self._backups = backups
        self._state = StateReads(ground.sources.reads)
        self._locks = LockManager(limits.stripes, limits.lock_timeout_ms)
        self._writers = Writers(ground, self._state, limits.write_slot_timeout_ms)
        self._pause = Pause(ground.pause)
        self.named_pauses = NamedPauses(self._pause, ground.settle)
        self.named_pauses_of_all_faces = NamedPauses(ground.pause, ground.settle)
        self._projections: list[Projections] = []
        """Those that are open."""
        self._closed = False

    async def open(self) -> Self:
        """Note that the store is taken into use; set up what is not there yet; undo ``close``."""
        self._check_backend()
        with self._pause.writer():
            await self._decide(touch)
        self._closed = False
        return self

    async def close(self) -> None:
        """Take no more transactions, and return once those under way are over.

        The platform stays open, and so do feeds and iterators of events. A second time it does
        nothing; cancelled, it is closed all the same.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        await self._pause.pause(self._ground.settle)
        self._pause.resume()

    async def meta(self) -> CanonicalMeta:
        """The next event id, the seal, and the times, as of now."""
        self._check_open()
        with self._lease() as snapshot:
            record, _ = await self._state.record(snapshot.version)
        return CanonicalMeta(
            record.next_event_id,
            record.sealed_event_id,
            record.schema_version,
            _written(record.created_at),
            _written(record.updated_at),
            snapshot.sequence,
        )

    def read_txn(self) -> ReadTxn:
        """A snapshot of state and events; ``async with canonical.read_txn() as txn:``."""
        self._check_open()
        return ReadTxn(self._ground, self._state)

    def write_txn(self) -> WriteTxn:
        """The write transaction, exclusive; ``async with canonical.write_txn() as txn:``.

        Entering it waits for its turn, in order of asking, no longer than
        ``write_slot_timeout_ms`` and the caller's own deadline: TimedOutError names the holder.
        While writes are paused or the store is sealed it raises PausedError or SealedError.
        """
        self._check_open()
        return WriteTxn(self._writers, self._pause)

    def transaction(self) -> Transaction:
        """A preflighted transaction to be built and executed."""
        self._check_open()
        return Transaction(self._writers, self._locks, self._pause)

    def batch(self) -> WriteBatch:
        """An empty write batch."""
        self._check_open()
        return WriteBatch(self._writers, self._pause)

    async def submit_write(self, write: Callable[[WriteTxn], Awaitable[None]]) -> CommitInfo:
        """Run ``write`` in a write transaction, and commit it."""
        async with self.write_txn() as txn:
            await write(txn)
            return await txn.commit()

    async def submit(self, changes: Changes, producer: Producer | None = None) -> CommitInfo:
        """Have a transaction decided that was read and put together elsewhere.

        With a ``producer`` it takes effect once, however often it is submitted.
        """
        self._check_open()
        if producer is not None and self.is_paused():
            return await self._decide(recalled(producer))
        with self._pause.writer():
            if producer is None:  # else it may have taken effect before the seal
                await self._writers.check_open()
            return await self._writers.decide(changes, producer)

    def lock_manager(self) -> LockManager:
        """The stripe locks that ``transaction`` takes."""
        return self._locks

    async def iter_events(
        self, first: int = 0, end: int | None = None, *, follow: bool = False
    ) -> EventIter:
        """The events with ``first <= id < end``; without an ``end`` up to the newest one now.

        With ``follow`` it goes on with every event that comes, up to ``end`` if there is one.
        """
        self._check_open()
        check_ids(first, end)
        if follow:
            await trio.lowlevel.checkpoint()
            until = SEQUENCE_MAX + 1 if end is None else end
        else:
            newest = (await self.meta()).next_event_id
            until = newest if end is None else min(end, newest)
        sources = self._ground.sources
        return EventIter(sources, lambda: sources.reads.engine.version, first, until, follow=follow)

    def range(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> StateIter:
        """The pairs with ``start <= key < end`` in key order, on one snapshot.

        To the last if ``end`` is None. The snapshot is that of its first step.
        """
        self._check_open()
        leases: list[Snapshot] = []

        def version() -> Version:
            if not leases:
                leases.append(self._lease())
            return leases[0].check()

        def close() -> None:
            while leases:
                leases.pop().close()

        reads = self._state.reads
        return StateIter(reads, version, start, end, reverse=reverse, limit=limit, close=close)

    def scan_prefix(
        self, prefix: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> StateIter:
        """The pairs whose key starts with ``prefix``, in key order, on one snapshot."""
        if type(prefix) is not bytes:
            raise InvalidRequestError("a prefix is bytes")
        return self.range(prefix, after_prefix(prefix), reverse=reverse, limit=limit)

    def projections(self, folder: str | PathLike[str]) -> AbstractAsyncContextManager[Projections]:
        """Run projections of the events, with their files in ``folder``, while the body runs."""
        self._check_open()
        # Here, for clients import this module too, and projections bring DuckDB.
        from exo_stream.canonical.projections import open_projections  # noqa: PLC0415  see above

        return open_projections(self._ground, folder, among=self._projections)

    async def projection_statuses(self) -> list[ProjectorStatus]:
        """How every projection of this process is, in the order they were added."""
        await trio.lowlevel.checkpoint()
        return [status for several in self._projections for status in await several.statuses()]

    def projector(self, name: str) -> Projector:
        """The projection of this name. Raises InvalidRequestError if none runs here."""
        for projections in self._projections:
            if name in projections:
                return projections[name]
        raise InvalidRequestError(f"no projection {name!r} runs here")

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
        """Back up the whole platform to ``directory``, as ``Platform.backup_to`` does.

        Neither sealed nor paused it need be, and neither it becomes.
        """
        self._check_open()
        return await self._backups.backup_to(
            directory,
            parent=parent,
            compress=compress,
            key=key,
            projections=projections,
            on_progress=on_progress,
        )

    async def restore_from(
        self,
        directory: str | PathLike[str],
        target: str | PathLike[str],
        *,
        at_sequence: int | None = None,
        at_time: datetime | None = None,
        at_event: int | None = None,
        key: BackupKey | None = None,
        projections: str | PathLike[str] | None = None,
        on_bytes: OnBytes = ignore_bytes,
    ) -> RestoreInfo:
        """Make the file ``target``, which must not exist, from the backup in ``directory``.

        As ``exo_stream.backup.restore_from`` says, which needs no open platform; this one is not
        touched. ``open_platform`` opens what was made.
        """
        return await self._backups.restore_from(
            directory,
            target,
            at_sequence=at_sequence,
            at_time=at_time,
            at_event=at_event,
            key=key,
            projections=projections,
            on_bytes=on_bytes,
        )

    async def seal(self) -> int:
        """Refuse every write from now on, also after a restart; the id of the last event.

        Nothing commits after it has returned. A store without events is not sealed, and 0 is the
        answer. While writes are paused it may be sealed.
        """
        self._check_open()
        return await self._decide(seal)

    async def unseal(self) -> None:
        """Take writes again."""
        self._check_open()
        await self._decide(unseal)

    async def pause_ingestion(self) -> None:
        """Refuse new transactions, and return once those under way are over.

        Pauses nest: as many ``resume_ingestion`` undo them. One that is cancelled before it
        returns, by a deadline of the caller's, has not happened. The other faces go on; the
        platform has a ``pause_ingestion`` for all of them.
        """
        await self._pause.pause(self._ground.settle)

    def resume_ingestion(self) -> None:
        """Undo one pause; without any it does nothing."""
        self._pause.resume()

    def is_paused(self) -> bool:
        """Whether writes are refused, by a pause of this store or of the whole platform."""
        return self._pause.is_paused

    async def _decide(self, decide: Decision[T]) -> T:
        return await self._ground.writes.ask(Decide(decide=decide))

    def _lease(self) -> Snapshot:
        sources = self._ground.sources
        return sources.snapshots.lease(sources.reads.engine.version)

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidStateError("the canonical store was closed")
        self._check_backend()

    def _check_backend(self) -> None:
        if self._ground.sources.reads.engine.own_sequences:
            raise UnsupportedError("this backend has only the nine methods, and no transactions")


def _written(microseconds: int) -> str | None:
    if not microseconds:
        return None
    time = datetime.fromtimestamp(microseconds / 1_000_000, UTC)
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
