"""The lock file: one process at a time, and in it one opening at a time.

DuckDB's own lock is a POSIX record lock, which any open and close of the file in the same
process drops. A flock on a file of our own is not so easily lost.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from exo_stream.errors import FileInUseError, StoreError
from exo_stream.storage.directory import beside

SUFFIX: Final = ".lock"


class LockFile:
    """A held lock on ``path``, until ``close``.

    The file beside it stays when the lock goes: unlinking would let two processes lock two
    files of the same name.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises FileInUseError, which names the holder, if it is taken."""
        try:
            self._fd = os.open(beside(path, SUFFIX), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{path}{SUFFIX} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._fd, 32, 0).strip()
            os.close(self._fd)
            raise FileInUseError(str(path), int(pid) if pid.isdigit() else 0) from None
        except OSError as error:
            os.close(self._fd)
            raise StoreError(f"{path}{SUFFIX} cannot be locked: {error.strerror}") from error
        self._write(f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Let the next one in; closing twice is allowed."""
        if self._fd >= 0:
            self._write(b"")
            os.close(self._fd)
            self._fd = -1

    def _write(self, content: bytes) -> None:
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, content, 0)
        except OSError:
            # A full disk: the lock holds all the same, only the pid is not told.
            return
