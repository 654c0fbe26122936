"""Taking a backup while the platform is written to: read slice by slice, written beside its name.

The table is read at one Version, on the far reader's thread; the log up to there after it. What is
written has a thread of its own. The directory gets its name when all of it is durable.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import trio

from exo_stream.backup import frames
from exo_stream.backup.artifact import COMPRESSION, read_pieces
from exo_stream.backup.birth import Birth, hash_file
from exo_stream.backup.manifest import FORMAT, VERSION, BackupFile, Manifest
from exo_stream.backup.plan import Meter, Plan
from exo_stream.backup.projections import Copy, copy_projections
from exo_stream.backup.reading import STORE, Backup, open_backup
from exo_stream.backup_errors import BackupKeyMissingError, FullBackupNeededError
from exo_stream.backup_key import ENCRYPTION, BackupKey
from exo_stream.backups import BackupInfo, OnProgress
from exo_stream.canonical.record import RECORD_KEY, Record, read_record
from exo_stream.errors import BatchEvictedError, UnsupportedError
from exo_stream.ground import Ground
from exo_stream.logger import log
from exo_stream.model import Keyspace, Row, row_key
from exo_stream.payload import EncodedBatch
from exo_stream.snapshots import Snapshot, Snapshots
from exo_stream.storage import failures
from exo_stream.storage.engine import Version
from exo_stream.storage.hop import Hop, open_thread_hop
from exo_stream.storage.schema import FORMAT as STORE_FORMAT
from exo_stream.storage.store_writer import StoreWriter

_TABLE_END: Final = b"\xff" * 8
"""Above every row key: there are fewer keyspaces than that."""

_EVENTS: Final = row_key(Keyspace.EVENT, b"")


async def take(
    ground: Ground,
    directory: Path,
    *,
    parent: Path | None,
    compress: bool,
    key: BackupKey | None,
    projections: Path | None,
    on_progress: OnProgress | None,
) -> BackupInfo:
    """Back up what is visible now to the new ``directory``; with ``parent`` only what follows it.

    Raises BackupError and those below it, SnapshotExpiredError, StoreFullError, StoreError,
    UnsupportedError.
    """
    if ground.sources.reads.engine.own_sequences:
        await trio.lowlevel.checkpoint()
        raise UnsupportedError("this backend has only the nine methods, and no backups")
    async with open_thread_hop("backup") as hop:
        before = None if parent is None else await hop(partial(_parent, parent, key))
        plan = Plan(before, compress, key, projections, Meter(on_progress))
        async with _born(directory, hop) as birth:
            copies: list[Copy] = []
            if before is None:
                copies = await copy_projections(ground, plan, birth.folder, hop)
            manifest = await _Taking(ground, plan, birth, hop, copies).run()
            authentication = (
                None
                if key is None or manifest.salt is None
                else key.authentication(manifest.salt.encode(), manifest.canonical())
            )
            await trio.lowlevel.checkpoint_if_cancelled()
            await hop(partial(birth.finish, manifest, authentication))
    log.info("backup taken", path=str(birth.path), sequence=manifest.sequence)
    return _info(manifest, birth.path)


def _parent(path: Path, key: BackupKey | None) -> Backup:
    """Raises BackupKeyError unless all of a chain is in the clear, or under one key."""
    parent = open_backup(path, key)
    if parent.manifest.encryption is not None and key is None:
        why = "it is encrypted, so what follows it must be as well"
        raise BackupKeyMissingError(str(path), why)
    return parent


@asynccontextmanager
async def _born(directory: Path, hop: Hop) -> AsyncIterator[Birth]:
    birth = await hop(partial(Birth, directory))
    try:
        yield birth
    finally:
        with trio.CancelScope(shield=True):  # bounded by the removal of one file
            await hop(birth.close)


def _info(manifest: Manifest, path: Path) -> BackupInfo:
    is_full = manifest.parent_id is None
    return BackupInfo(
        path=str(path),
        backup_id=manifest.backup_id,
        kind=manifest.kind,
        log_id=manifest.log_id,
        sequence=manifest.sequence,
        parent_sequence=None if is_full else manifest.first_sequence - 1,
        sealed_event_id=manifest.sealed_event_id,
        timestamp=manifest.timestamp,
        rows=manifest.rows,
        batches=manifest.batches,
        size_bytes=manifest.size_bytes,
        projections=tuple([projection.name for projection in manifest.projections]),
    )


class _Sink(Protocol):
    """What a backup is written to; every method blocks."""

    def add_rows(self, rows: Sequence[Row]) -> None: ...

    def add_batches(self, batches: Sequence[EncodedBatch]) -> None: ...

    def forget_batches(self) -> None: ...

    def finish(self, floor: int) -> None: ...

    def close(self) -> None: ...


class _FrameSink:
    """A stream of frames, compressed or encrypted."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._file = plan.artifact(path)
        self._write(frames.MAGIC)

    def add_rows(self, rows: Sequence[Row]) -> None:
        self._write(frames.encode_rows(rows))

    def add_batches(self, batches: Sequence[EncodedBatch]) -> None:
        self._write(frames.encode_batches(batches))

    def forget_batches(self) -> None:
        self._write(frames.encode_forget())

    def finish(self, floor: int) -> None:  # noqa: ARG002  the manifest has it
        self._write(frames.encode_end())
        try:
            self._file.finish()
        except OSError as error:
            raise failures.of_creation(self._path, error) from error

    def close(self) -> None:
        self._file.close()

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise failures.of_creation(self._path, error) from error


class _Lease:
    """A Version that is held as long as the backup makes progress, however long it takes."""

    def __init__(self, snapshots: Snapshots, version: Version) -> None:
        self._snapshots = snapshots
        self._held: Snapshot = snapshots.lease(version)

    def renew(self) -> Version:
        """The Version to read at. Raises SnapshotExpiredError if it had to be let go."""
        version, before = self._held.check(), self._held
        self._held = self._snapshots.lease(version)
        before.close()
        return version

    def close(self) -> None:
        self._held.close()


class _Taking:
    """One backup under way."""

    def __init__(
        self, ground: Ground, plan: Plan, birth: Birth, hop: Hop, copies: Sequence[Copy]
    ) -> None:
        self._plan = plan
        self._copies = copies
        self._birth = birth
        self._hop = hop
        self._reads = ground.sources.reads
        self._snapshots = ground.sources.snapshots
        self._now = ground.clock()
        # From here to the lease nothing else runs, so that all of it is of one moment.
        engine = self._reads.engine
        self._log_id = engine.log_id
        self._version = engine.version
        self._committed_at = engine.last_committed_at
        self._first_event_id: int | None = None
        self._rows = self._batches = 0

    async def run(self) -> Manifest:
        """Write the file, and answer what the manifest says of it."""
        parent = self._plan.parent
        lease = _Lease(self._snapshots, self._version)
        try:
            if parent is not None:
                self._check_parent(parent)
            record = await self._record(lease.renew())
            self._plan.meter.expect(await self._estimate())
            sink = await self._hop(self._open_sink)
            try:
                if parent is None:
                    await self._copy_table(lease, sink)
                lease.close()  # the log is there for as long as its retention says
                first = await self._copy_log(sink)
                await trio.lowlevel.checkpoint_if_cancelled()
                await self._hop(partial(sink.finish, first))
            finally:
                with trio.CancelScope(shield=True):  # closing a file waits for no disk
                    await self._hop(sink.close)
        finally:
            lease.close()
        return self._manifest(record, first, await self._hash())

    @property
    def _frontier(self) -> int:
        return self._version.frontier

    @property
    def _name(self) -> str:
        plan = self._plan
        if plan.parent is None and plan.is_plain:
            return STORE
        return plan.named("store.frames" if plan.parent is None else "log.frames")

    def _check_parent(self, parent: Backup) -> None:
        before, version = parent.manifest, self._version
        if before.log_id != self._log_id:
            why = "it is of another log"
        elif before.sequence > version.frontier:
            why = f"it goes further, to {before.sequence}, than the log, to {version.frontier}"
        elif before.sequence + 1 < version.floor:
            why = f"the batches after {before.sequence} were evicted"
        else:
            return
        raise FullBackupNeededError(str(parent.path), f"{why}: take a full backup")

    async def _record(self, version: Version) -> Record:
        key = row_key(Keyspace.CANONICAL, RECORD_KEY)
        (row,) = await self._reads.rows(version, [key])
        return read_record(row)

    async def _estimate(self) -> int:
        parent = self._plan.parent
        after = self._version.floor if parent is None else parent.manifest.sequence + 1
        total = await self._reads.log_bytes(after)
        if parent is None:
            found = self._reads.engine.statistics()
            total += found.block_bytes + found.memtable_bytes
        return total

    def _open_sink(self) -> _Sink:
        path = self._birth.folder / self._name
        if self._name == STORE:
            return StoreWriter(
                path,
                log_id=self._log_id,
                frontier=self._frontier,
                committed_at=self._committed_at,
            )
        return _FrameSink(path, self._plan)

    async def _copy_table(self, lease: _Lease, sink: _Sink) -> None:
        await trio.lowlevel.checkpoint()
        start: bytes | None = b""
        while start is not None:
            page = await self._reads.page(
                lease.renew(),
                start,
                _TABLE_END,
                rows_max=self._reads.limits.page_rows_max,
                forward=True,
                far=True,
            )
            start = page.resume
            if page.rows:
                await self._hop(partial(sink.add_rows, page.rows))
                self._count_rows(page.rows)

    def _count_rows(self, rows: Sequence[Row]) -> None:
        self._rows += len(rows)
        if self._first_event_id is None:
            first = next((row.key for row in rows if row.key.startswith(_EVENTS)), None)
            if first is not None:
                self._first_event_id = int.from_bytes(first[1:], "big")
        self._plan.meter.count(sum([len(row.key) + len(row.value or b"") for row in rows]))

    async def _copy_log(self, sink: _Sink) -> int:
        """Copy the log up to the Version; answer its first batch, the one after if there is none.

        What is evicted while it is being copied is no part of a full backup either.
        """
        parent = self._plan.parent
        first = self._version.floor if parent is None else parent.manifest.sequence + 1
        after = first - 1
        await trio.lowlevel.checkpoint()
        while after < self._frontier:
            try:
                batches = await self._reads.log_page(after, self._frontier, far=True)
            except BatchEvictedError as error:
                if parent is not None:
                    why = f"batch {after + 1} was evicted meanwhile: take a full backup"
                    raise FullBackupNeededError(str(parent.path), why) from error
                first = min(max(error.oldest_retained, after + 2), self._frontier + 1)
                after, self._batches = first - 1, 0
                await self._hop(sink.forget_batches)
                continue
            await self._hop(partial(sink.add_batches, batches))
            after = batches[-1].sequence
            self._batches += len(batches)
            self._plan.meter.count(sum([len(batch.payload) for batch in batches]))
        return first

    async def _hash(self) -> BackupFile:
        await trio.lowlevel.checkpoint()
        path = self._birth.folder / self._name
        pieces = read_pieces(path)
        hashing = hash_file(path, pieces)
        found: BackupFile | None = None
        while found is None:
            found = await self._hop(hashing.__next__)
        return found

    def _manifest(self, record: Record, first: int, file: BackupFile) -> Manifest:
        plan = self._plan
        parent = plan.parent
        time = datetime.fromtimestamp(self._now / 1_000_000, UTC)
        projections = tuple([projection for projection, _ in self._copies])
        return Manifest(
            format=FORMAT,
            store_format=STORE_FORMAT,
            backup_id=secrets.token_hex(16),
            kind="full" if parent is None else "incremental",
            parent_id=None if parent is None else parent.manifest.backup_id,
            log_id=self._log_id,
            sequence=self._frontier,
            first_sequence=first,
            oldest_batch=max(self._version.floor, first) if parent is None else self._version.floor,
            committed_at=self._committed_at,
            created_at=self._now,
            timestamp=time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            first_event_id=self._first_event_id,
            next_event_id=record.next_event_id,
            sealed_event_id=record.sealed_event_id,
            rows=self._rows,
            batches=self._batches,
            canonical_backend="duckdb",
            canonical_version=VERSION,
            canonical_schema_version=record.schema_version,
            projection_backend="duckdb" if projections else None,
            projection_cursor=_least([one.cursor for one in projections]),
            projection_schema_version=_least([one.schema_version for one in projections]),
            compression=COMPRESSION if plan.compress else None,
            encryption=None if plan.key is None else ENCRYPTION,
            key_id=None if plan.key is None else plan.key.id,
            salt=None if plan.key is None else plan.salt,
            files=(file, *[copied for _, copied in self._copies]),
            projections=projections,
        )


def _least(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return min(known) if known and len(known) == len(numbers) else None
