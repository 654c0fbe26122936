"""The birth of a backup's directory: made whole under another name, then given its own."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from exo_stream.backup import manifest
from exo_stream.backup.manifest import BackupFile, Manifest
from exo_stream.backup_errors import BackupError
from exo_stream.storage import directory, failures
from exo_stream.storage.lock_file import LockFile


class Birth:
    """A new directory on its way. Everything blocks.

    A process killed half-way leaves a hidden directory, which the next backup of the same name
    removes; and never one that looks like a backup.
    """

    def __init__(self, path: Path) -> None:
        """Raises BackupError if there is something at ``path``, FileInUseError if another backup
        to it is under way, StoreFullError, StoreError.
        """
        self.path = Path(os.path.realpath(path))
        self.folder = self.path.with_name(f".{self.path.name}.unborn")
        self._refuse_existing()
        self._lock = LockFile(self.path, passing=True)
        try:
            self._refuse_existing()
            _remove(self.folder)
            self.folder.mkdir(mode=0o700)
        except OSError as error:
            self._lock.close()
            raise failures.of_creation(self.path, error) from error
        except BaseException:
            self._lock.close()
            raise

    def finish(self, found: Manifest, authentication: str | None) -> None:
        """Write the manifest and give the directory its name, when all of it is durable."""
        try:
            at = self.folder / manifest.NAME
            with at.open("xb") as file:
                file.write(manifest.encode(found, authentication))
                file.flush()
                os.fsync(file.fileno())
            directory.sync(at)
            self._refuse_existing()
            self.folder.rename(self.path)
            directory.sync(self.path)
        except OSError as error:
            raise failures.of_creation(self.path, error) from error

    def close(self) -> None:
        """Remove what was not finished, and let the next one in."""
        try:
            _remove(self.folder)
        finally:
            self._lock.close()

    def _refuse_existing(self) -> None:
        if self.path.exists() or self.path.is_symlink():
            raise BackupError(str(self.path), "it exists already, and was left untouched")
        if not self.path.parent.is_dir():
            raise BackupError(str(self.path.parent), "there is no such directory")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=False) if folder.is_dir() else None


def hash_file(path: Path, pieces: Iterator[bytes]) -> Iterator[BackupFile | None]:
    """Make a file durable and hash it, some of it at each step; the last step answers."""
    directory.sync_file(path)
    yield None
    hashed, size = hashlib.sha256(), 0
    for number, piece in enumerate(pieces, 1):
        hashed.update(piece)
        size += len(piece)
        if number % 32 == 0:
            yield None
    yield BackupFile(path.name, size, hashed.hexdigest())
