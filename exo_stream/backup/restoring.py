"""Restoring: a new file with a new log id, made whole beside its name and verified, or none.

Everything here blocks. ``on_bytes`` may raise, and then nothing is left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from exo_stream.backup.artifact import read_pieces
from exo_stream.backup.frames import Batches, ForgetBatches, Rows
from exo_stream.backup.projections import (
    FOLDER_SUFFIX,
    born_with_its_file,
    name_projections,
    refuse_folder,
    split,
    write_projections,
)
from exo_stream.backup.reading import (
    Backup,
    check_keys,
    check_point,
    open_chain,
    sequence_at,
    sequence_of_event,
)
from exo_stream.backup_errors import BackupDamagedError, RestoreRefusedError
from exo_stream.backup_key import BackupKey
from exo_stream.backups import OnBytes, RestoreInfo, ignore_bytes
from exo_stream.canonical.record import RECORD_KEY, Record, read_record
from exo_stream.canonical.verify import CanonicalCheck
from exo_stream.errors import CorruptionError, InvalidRequestError
from exo_stream.limits import MIB, Limits
from exo_stream.logger import log
from exo_stream.model import SEQUENCE_MAX, Keyspace, Row, row_key
from exo_stream.payload import EncodedBatch, encode_entries
from exo_stream.storage import directory, failures
from exo_stream.storage.duckdb_engine import DuckDBEngine, open_duckdb_engine
from exo_stream.storage.engine import Cold, Group
from exo_stream.storage.face_check import MakeFaceCheck
from exo_stream.storage.lock_file import SUFFIX, LockFile
from exo_stream.storage.store_writer import StoreWriter, renew_log_id
from exo_stream.storage.verify import verify
from exo_stream.streams.verify import StreamCheck

FACES: Final[tuple[MakeFaceCheck, ...]] = (StreamCheck, CanonicalCheck)
"""The faces whose rows are checked besides."""

_BATCH_BYTES_MAX: Final = 256 * MIB
"""The largest batch that any platform takes, whatever its settings were."""


def verify_backup(
    path: str | os.PathLike[str], *, key: BackupKey | None = None, on_bytes: OnBytes = ignore_bytes
) -> list[Backup]:
    """Check every file of the backup at ``path`` and of all it follows, and say what they are.

    Raises BackupError and those below it at the first thing that is not as it was written.
    """
    chain = open_chain(Path(os.path.realpath(path)), key)
    for backup in chain:
        backup.check_files(on_bytes)
    return chain


def restore(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    at_sequence: int | None = None,
    at_time: int | None = None,
    at_event: int | None = None,
    key: BackupKey | None = None,
    projections: str | os.PathLike[str] | None = None,
    on_bytes: OnBytes = ignore_bytes,
) -> RestoreInfo:
    """Make the file ``target``, which must not exist, from the backup at ``path``.

    ``at_sequence``, ``at_time`` in microseconds since the Unix epoch, or ``at_event``, the id of
    the last event, is an earlier point. Its projections go to the folder ``projections``, which
    is ``target`` with ``.projections`` unless told. The backup is not written. Raises BackupError
    and those below it, FileInUseError, StoreFullError, StoreError, InvalidRequestError.
    """
    point = _Point(at_sequence, at_time, at_event)
    real = Path(os.path.realpath(target))
    _refuse_existing(real)
    folder = Path(os.path.realpath(projections or f"{real}{FOLDER_SUFFIX}"))
    with closing(LockFile(real, passing=True)):
        _refuse_existing(real)
        chain = verify_backup(path, key=key, on_bytes=on_bytes)
        check_keys(chain)
        wanted = point.sequence(chain)
        if chain[0].manifest.projections:
            refuse_folder(folder)
        done = _put(chain, wanted, real, folder, on_bytes)
    log.info("backup restored", backup=str(path), path=str(real), sequence=wanted)
    return done


def _put(
    chain: Sequence[Backup], wanted: int, real: Path, folder: Path, on_bytes: OnBytes
) -> RestoreInfo:
    """Make all of it beside its names, and only then give it those."""
    with born_with_its_file(folder) as beside, _unborn(real) as unborn:
        record = _make(chain, wanted, unborn, on_bytes)
        report = verify(unborn, faces=FACES)
        if not report.sound:
            raise CorruptionError(f"what was restored is not sound: {report.findings[0]}")
        chosen, to_rebuild = split(chain[0], record.next_event_id)
        if chosen:
            write_projections(chain[0], chosen, beside, log_id=report.log_id, on_bytes=on_bytes)
            name_projections(beside, folder)
        unborn.rename(real)
        directory.sync(real)
    return RestoreInfo(
        path=str(real),
        backup_id=chain[-1].manifest.backup_id,
        log_id=report.log_id,
        sequence=wanted,
        sealed_event_id=record.sealed_event_id,
        size_bytes=directory.file_bytes(real),
        report=replace(report, path=str(real)),
        projections=tuple([projection.name for projection in chosen]),
        to_rebuild=tuple(to_rebuild),
    )


@dataclass(frozen=True, slots=True)
class _Point:
    """How far to restore: to a sequence, a time or an event, else to the end."""

    at_sequence: int | None
    at_time: int | None
    at_event: int | None

    def __post_init__(self) -> None:
        told = [self.at_sequence, self.at_time, self.at_event]
        if told.count(None) < 2:
            raise InvalidRequestError(
                "a restore goes to a sequence, a time or an event, not to two"
            )
        for number in (self.at_sequence, self.at_event):
            if number is not None and not 0 <= number <= SEQUENCE_MAX:
                raise InvalidRequestError(
                    "a sequence number, or an id, is an unsigned 64-bit integer"
                )

    def sequence(self, chain: Sequence[Backup]) -> int:
        """The sequence that this is in a chain. Raises RestorePointError if it is not there."""
        if self.at_time is not None:
            wanted = sequence_at(chain, self.at_time)
        elif self.at_event is not None:
            wanted = sequence_of_event(chain, self.at_event)
        else:
            newest = chain[-1].manifest.sequence
            wanted = newest if self.at_sequence is None else self.at_sequence
        check_point(chain, wanted)
        return wanted


def _refuse_existing(target: Path) -> None:
    for path in (target, directory.beside(target, ".wal")):
        if path.exists() or path.is_symlink():
            raise RestoreRefusedError(str(path), "it exists already, and was left untouched")
    if not target.parent.is_dir():
        raise RestoreRefusedError(str(target.parent), "there is no such directory")


@contextmanager
def _unborn(target: Path) -> Iterator[Path]:
    """A name that nobody else knows, and nothing under it before and after."""
    unborn = directory.beside(target, ".new")

    def clear() -> None:
        for suffix in ("", ".wal", SUFFIX):
            with suppress(FileNotFoundError):
                directory.beside(unborn, suffix).unlink()

    clear()  # what a killed process left
    try:
        yield unborn
    except OSError as error:
        raise failures.of_creation(target, error) from error
    finally:
        clear()


def _make(chain: Sequence[Backup], wanted: int, unborn: Path, on_bytes: OnBytes) -> Record:
    """Fill the new file; answer the canonical record as it was."""
    full = chain[0]
    base = full.manifest.sequence
    if wanted < base:
        _write_empty(full, unborn)
        base = 0
    elif full.is_store:
        _copy(full.path / full.file.name, unborn, on_bytes)
        renew_log_id(unborn)
    else:
        _write_store(full, unborn, on_bytes)
    engine = _opened(unborn)
    try:
        for backup in chain if base == 0 else chain[1:]:
            _replay(engine, backup, wanted, on_bytes)
        if engine.version.frontier != wanted:
            raise BackupDamagedError(
                str(chain[-1].path), f"its log ends at {engine.version.frontier}, not at {wanted}"
            )
        _move_floor(engine, chain, wanted)
        return _unseal(engine)
    finally:
        engine.close()


def _write_empty(full: Backup, unborn: Path) -> None:
    writer = StoreWriter(unborn, log_id=_new_log_id(), frontier=0, committed_at=0)
    with closing(writer):
        writer.finish(1)
    assert full.manifest.first_sequence == 1, full.manifest


def _new_log_id() -> str:
    return os.urandom(16).hex()


def _copy(source: Path, unborn: Path, on_bytes: OnBytes) -> None:
    with unborn.open("xb") as out:
        for piece in read_pieces(source):
            out.write(piece)
            on_bytes(len(piece))
        out.flush()
        os.fsync(out.fileno())


def _write_store(full: Backup, unborn: Path, on_bytes: OnBytes) -> None:
    found = full.manifest
    writer = StoreWriter(
        unborn,
        log_id=_new_log_id(),
        frontier=found.sequence,
        committed_at=found.committed_at,
    )
    with closing(writer):
        for frame in full.frames():
            match frame:
                case Rows(rows=rows):
                    writer.add_rows(rows)
                    on_bytes(sum(len(row.key) + len(row.value or b"") for row in rows))
                case Batches(batches=batches):
                    writer.add_batches(batches)
                    on_bytes(sum(len(batch.payload) for batch in batches))
                case ForgetBatches():
                    writer.forget_batches()
        writer.finish(max(found.oldest_batch, found.first_sequence))


def _opened(unborn: Path) -> DuckDBEngine:
    limits = replace(Limits(), batch_bytes_max=_BATCH_BYTES_MAX)
    return open_duckdb_engine(unborn, limits=limits)


def _replay(engine: DuckDBEngine, backup: Backup, wanted: int, on_bytes: OnBytes) -> None:
    """Commit what follows, as ingest did, and fold it as compaction does."""
    for page in backup.batches():
        frontier = engine.version.frontier
        batches = [batch for batch in page if frontier < batch.sequence <= wanted]
        if not batches:
            continue
        if batches[0].sequence != frontier + 1:
            raise BackupDamagedError(str(backup.path), f"batch {frontier + 1} is missing")
        _commit(engine, Group(batches))
        on_bytes(sum(len(batch.payload) for batch in batches))


def _commit(engine: DuckDBEngine, group: Group) -> None:
    engine.commit(group)
    engine.install(group)
    while (job := engine.next_job(engine.last_committed_at, idle=False)) is not None:
        while not job.step():
            pass
        job.install()


def _move_floor(engine: DuckDBEngine, chain: Sequence[Backup], wanted: int) -> None:
    """The log goes back as far as it did when the newest backup was taken."""
    floor = min(chain[-1].manifest.oldest_batch, wanted + 1)
    if floor > engine.version.floor:
        _commit(engine, Group((), floor=floor))


def _unseal(engine: DuckDBEngine) -> Record:
    """A store that was sealed takes writes again: the seal is removed as an entry of the log."""
    key = row_key(Keyspace.CANONICAL, RECORD_KEY)
    row: Row | Cold | None = engine.lookup(engine.version, key)
    if isinstance(row, Cold):
        (row,) = engine.open_reader().fetch(engine.version, [key])
    record = read_record(row)
    if record.sealed:
        entry = record._replace(sealed=0).entry()
        batch = EncodedBatch(
            engine.version.frontier + 1, engine.last_committed_at, encode_entries([entry])
        )
        _commit(engine, Group((batch,)))
    return record
