"""The lock file: one process at a time, and in it one opening at a time.

DuckDB's own lock is a POSIX record lock, which any open and close of the file in the same
process drops. A flock on a file of our own is not so easily lost.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from exo_stream.errors import FileInUseError, StoreError
from exo_stream.storage.directory import beside

SUFFIX: Final = ".lock"

_READ_ONLY: Final = {errno.EACCES, errno.EPERM, errno.EROFS}


class LockFile:
    """A held lock on ``path``, until ``close``.

    The file beside it stays when the lock goes, for who has the file mostly has it again. With
    ``passing``, for those who only read, it goes if it was not there before; and where it cannot
    be made, nobody who could write has the file either, and none is needed.
    """

    def __init__(self, path: Path, *, passing: bool = False) -> None:
        """Take the lock. Raises FileInUseError, which names the holder, if it is taken."""
        self._name = beside(path, SUFFIX)
        self._is_made = False
        self._fd = -1
        try:
            while not self._try(path, passing=passing):
                continue
        except OSError as error:
            self._let_go()
            raise StoreError(f"{path}{SUFFIX} cannot be opened: {error.strerror}") from error
        except FileInUseError:
            self._let_go()
            raise
        self._write(f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Let the next one in; closing twice is allowed."""
        if self._fd >= 0:
            self._write(b"")
            if self._is_made:
                self._name.unlink(missing_ok=True)
            self._let_go()

    def _try(self, path: Path, *, passing: bool) -> bool:
        """Whether the file that has the name now is locked, or needs not be."""
        try:
            self._fd = os.open(self._name, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if not self._make(passing=passing):
                return True
        except OSError as error:
            if not (passing and error.errno in _READ_ONLY):
                raise
            self._fd = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC)
        if self._fd < 0:
            return False
        self._lock(path)
        if self._has_name():
            return True
        self._let_go()
        return False

    def _make(self, *, passing: bool) -> bool:
        """Make the file, unless somebody else just has; False if there can be none."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self._name, flags, 0o644)
        except FileExistsError:
            return True
        except OSError as error:
            if passing and error.errno in _READ_ONLY:
                return False
            raise
        self._is_made = passing
        return True

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._fd, 32, 0).strip()
            raise FileInUseError(str(path), int(pid) if pid.isdigit() else 0) from None
        except OSError as error:
            self._let_go()
            raise StoreError(f"{path}{SUFFIX} cannot be locked: {error.strerror}") from error

    def _has_name(self) -> bool:
        """Whether nobody has removed the file, as one who passed by, before we had its lock."""
        try:
            return os.path.samestat(self._name.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._is_made = False

    def _write(self, content: bytes) -> None:
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, content, 0)
        except OSError:
            # A full disk: the lock holds all the same, only the pid is not told.
            return
