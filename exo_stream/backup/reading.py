"""A backup as it lies on the disk: found, checked against its manifest, and read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exo_stream.backup import frames, manifest
from exo_stream.backup.artifact import COMPRESSION, ZstdError, decompressed, read_pieces
from exo_stream.backup.frames import Batches, ForgetBatches, Frame
from exo_stream.backup.manifest import BackupFile, Manifest
from exo_stream.backup_errors import (
    BackupDamagedError,
    BackupError,
    BackupFormatError,
    BackupKeyError,
    BackupKeyMissingError,
    BackupNotEncryptedError,
    RestorePointError,
)
from exo_stream.backup_key import ENCRYPTION, BackupKey, SealError
from exo_stream.backups import OnBytes, ignore_bytes
from exo_stream.limits import MIB
from exo_stream.model import Keyspace, row_key
from exo_stream.payload import EncodedBatch
from exo_stream.storage.schema import FORMAT as STORE_FORMAT
from exo_stream.storage.store_writer import read_log

STORE: Final = "store.duckdb"
"""The file of a full backup that is neither compressed nor encrypted: a store like any other."""

_MANIFEST_BYTES_MAX: Final = MIB


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup, whose manifest is as it was written; its files may not be."""

    path: Path
    manifest: Manifest
    key: BackupKey | None = None

    @property
    def file(self) -> BackupFile:
        """The file that holds it."""
        return self.manifest.files[0]

    @property
    def is_store(self) -> bool:
        """Whether that is a DuckDB file, and no stream of frames."""
        return self.file.name == STORE

    def check_files(self, on_bytes: OnBytes = ignore_bytes) -> None:
        """Raise BackupDamagedError unless every file is there, and is what was written."""
        allowed = {manifest.NAME, *[file.name for file in self.manifest.files]}
        if extra := sorted({path.name for path in self.path.iterdir()} - allowed):
            raise BackupDamagedError(str(self.path / extra[0]), "this is no part of the backup")
        for file in self.manifest.files:
            _check_file(self.path / file.name, file, on_bytes)

    def content(self, name: str) -> Iterator[bytes]:
        """What was put into the file of this name. Raises BackupDamagedError, BackupKeyError."""
        path = self.path / name
        pieces = read_pieces(path)
        if self.manifest.encryption is not None:
            pieces = _key_of(self).unseal(_salt(self.manifest), name, pieces)
        if self.manifest.compression is not None:
            pieces = decompressed(pieces)
        with _told(path):
            yield from pieces

    def frames(self) -> Iterator[Frame]:
        """What is in its stream. Raises BackupDamagedError, BackupKeyError."""
        with _told(self.path / self.file.name):
            yield from frames.decode(self.content(self.file.name))

    def batches(self) -> Iterator[Sequence[EncodedBatch]]:
        """Its part of the log, page by page."""
        if self.is_store:
            yield from read_log(self.path / self.file.name)
            return
        first = self.manifest.first_sequence
        for frame in self.frames():
            match frame:
                case Batches(batches=batches):
                    # What was forgotten later is below what the manifest says is there.
                    if left := [batch for batch in batches if batch.sequence >= first]:
                        yield left
                case ForgetBatches() | frames.Rows():
                    continue


def _check_file(path: Path, written: BackupFile, on_bytes: OnBytes) -> None:
    hashed, size = hashlib.sha256(), 0
    try:
        for piece in read_pieces(path):
            hashed.update(piece)
            size += len(piece)
            on_bytes(len(piece))
    except FileNotFoundError as error:
        raise BackupDamagedError(str(path), "the file is missing") from error
    except OSError as error:
        raise BackupError(str(path), f"it cannot be read: {error.strerror}") from error
    if size != written.size:
        raise BackupDamagedError(str(path), f"it has {size} bytes instead of {written.size}")
    if hashed.hexdigest() != written.sha256:
        raise BackupDamagedError(str(path), "it does not match its checksum")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (SealError, frames.FrameError, ZstdError, EOFError) as error:
        raise BackupDamagedError(str(path), str(error)) from error
    except OSError as error:
        raise BackupError(str(path), f"it cannot be read: {error.strerror}") from error


def open_backup(path: Path, key: BackupKey | None = None) -> Backup:
    """The backup in the directory ``path``, its manifest verified and, with a key, authenticated.

    Raises BackupError and those below it.
    """
    at = path / manifest.NAME
    try:
        with at.open("rb") as file:
            data = file.read(_MANIFEST_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BackupDamagedError(str(at), "there is no manifest: this is no backup") from error
    except OSError as error:
        raise BackupError(str(at), f"it cannot be read: {error.strerror}") from error
    found, authentication = manifest.decode(data, path=str(at))
    if found.store_format > STORE_FORMAT:
        raise BackupFormatError(
            str(path), f"the store in it is of format {found.store_format}, newer than ours"
        )
    _check_transformations(path, found)
    if found.encryption is None:
        if key is not None:
            raise BackupNotEncryptedError(str(path), "it is not encrypted, so no key belongs to it")
        return Backup(path, found)
    if key is not None:
        _check_key(path, found, authentication, key)
    return Backup(path, found, key)


def open_chain(path: Path, key: BackupKey | None = None) -> list[Backup]:
    """The backup at ``path`` and all it follows, a full one first. Parents lie beside it.

    Raises BackupError and those below it.
    """
    chain = [open_backup(path, key)]
    beside: dict[str, Path] | None = None
    while (parent_id := chain[0].manifest.parent_id) is not None:
        if beside is None:
            beside = {backup.manifest.backup_id: backup.path for backup in found_in(path.parent)}
        child = chain[0]
        at = beside.pop(parent_id, None)  # each only once, so that a circle has an end
        if at is None:
            raise BackupDamagedError(
                str(child.path), f"the backup {parent_id} that it follows is not beside it"
            )
        parent = open_backup(at, key)
        _check_follows(child, parent)
        chain.insert(0, parent)
    return chain


def found_in(folder: Path) -> list[Backup]:
    """Every backup in a directory; what is none, or is damaged, is left out."""
    found = []
    for path in sorted(folder.resolve().iterdir()):
        if path.name.startswith(".") or not (path / manifest.NAME).is_file():
            continue
        try:
            found.append(open_backup(path))
        except BackupError:
            continue
    return found


def check_point(chain: Sequence[Backup], sequence: int) -> None:
    """Raise RestorePointError unless the chain can be restored to ``sequence``."""
    full, last = chain[0].manifest, chain[-1].manifest
    least = 0 if full.first_sequence == 1 else full.sequence
    if not least <= sequence <= last.sequence:
        raise RestorePointError(
            str(chain[-1].path),
            f"sequence {sequence} is not in it; it has {least} to {last.sequence}",
        )


def sequence_at(chain: Sequence[Backup], committed_at: int) -> int:
    """The newest sequence of a chain that was committed at or before a time, in microseconds.

    Raises RestorePointError if that is before all it has.
    """
    newest = None
    full = chain[0].manifest
    if full.first_sequence > 1 and full.committed_at <= committed_at:
        newest = full.sequence
    for backup in chain:
        if backup.manifest.committed_at <= committed_at:
            newest = max(newest or 0, backup.manifest.sequence)
            continue
        for batches in backup.batches():
            for batch in batches:
                if batch.committed_at > committed_at:
                    break
                newest = max(newest or 0, batch.sequence)
        break
    if newest is None:
        raise RestorePointError(str(chain[-1].path), "all it has was committed after that time")
    return newest


def sequence_of_event(chain: Sequence[Backup], event_id: int) -> int:
    """The sequence of the batch that event ``event_id`` was committed with.

    Raises RestorePointError if the chain does not have it, or only its event any more.
    """
    at = str(chain[-1].path)
    if event_id >= (count := chain[-1].manifest.next_event_id):
        raise RestorePointError(at, f"event {event_id} is not in it; it has {count} from 0 on")
    backup = next(found for found in chain if found.manifest.next_event_id > event_id)
    key = row_key(Keyspace.EVENT, event_id.to_bytes(8, "big"))
    for batches in backup.batches():
        for batch in batches:
            if any(row_key(entry.keyspace, entry.key) == key for entry in batch.entries):
                return batch.sequence
    raise RestorePointError(at, f"its log does not go back to event {event_id}")


def _check_transformations(path: Path, found: Manifest) -> None:
    known = found.compression in {None, COMPRESSION} and found.encryption in {None, ENCRYPTION}
    if not known:
        raise BackupFormatError(str(path), "it was compressed or encrypted in a way not known here")
    if found.encryption is not None and (found.key_id is None or found.salt is None):
        raise BackupDamagedError(str(path), "the manifest names no key")


def _check_key(path: Path, found: Manifest, authentication: str | None, key: BackupKey) -> None:
    if key.id != found.key_id:
        raise BackupKeyError(str(path), f"it was encrypted with the key {found.key_id}, no other")
    if key.authentication(_salt(found), found.canonical()) != authentication:
        raise BackupDamagedError(str(path / manifest.NAME), "it was not written with the key")


def _check_follows(child: Backup, parent: Backup) -> None:
    before, after = parent.manifest, child.manifest
    if after.log_id != before.log_id or after.first_sequence != before.sequence + 1:
        raise BackupDamagedError(str(child.path), f"it does not go on where {parent.path} ends")


def check_keys(chain: Sequence[Backup]) -> None:
    """Raise BackupKeyMissingError unless all of a chain can be read."""
    for backup in chain:
        if backup.manifest.encryption is not None:
            _key_of(backup)


def _key_of(backup: Backup) -> BackupKey:
    if backup.key is None:
        raise BackupKeyMissingError(
            str(backup.path), f"it is encrypted, with the key {backup.manifest.key_id}"
        )
    return backup.key


def _salt(found: Manifest) -> bytes:
    assert found.salt is not None, found
    return found.salt.encode()
