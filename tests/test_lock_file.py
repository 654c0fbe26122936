"""The lock file: who may open the file, and who is told about whom."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exo_stream.errors import FileInUseError, StoreError
from exo_stream.storage.lock_file import LockFile

HOLD = """
import pathlib, sys
from exo_stream.storage.lock_file import LockFile
lock = LockFile(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_opening_in_this_process_is_refused(tmp_path: Path) -> None:
    lock = LockFile(tmp_path / "feed.duckdb")

    with pytest.raises(FileInUseError, match=f"in use by process {os.getpid()}") as caught:
        LockFile(tmp_path / "feed.duckdb")

    assert caught.value.pid == os.getpid()
    lock.close()


def test_it_can_be_taken_again_and_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    first = LockFile(path)
    inode = (tmp_path / "feed.duckdb.lock").stat().st_ino
    first.close()
    first.close()
    second = LockFile(path)

    assert (tmp_path / "feed.duckdb.lock").stat().st_ino == inode
    assert (tmp_path / "feed.duckdb.lock").read_text() == f"{os.getpid()}\n"
    second.close()
    assert (tmp_path / "feed.duckdb.lock").read_text() == ""


@pytest.mark.slow
def test_another_process_is_named_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FileInUseError) as caught:
            LockFile(path)
        assert caught.value.pid == holder.pid
        holder.kill()
    LockFile(path).close()


def test_a_holder_that_has_not_yet_written_its_pid_is_unknown(tmp_path: Path) -> None:
    with (tmp_path / "feed.duckdb.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(FileInUseError, match="another process"):
            LockFile(tmp_path / "feed.duckdb")


def test_a_directory_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"lock cannot be opened: No such file or directory$"):
        LockFile(tmp_path / "absent" / "feed.duckdb")


def test_a_filesystem_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(StoreError, match="cannot be locked: No locks available"):
        LockFile(tmp_path / "feed.duckdb")


def test_a_full_disk_does_not_keep_the_lock_from_being_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _content: bytes, _offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    lock = LockFile(tmp_path / "feed.duckdb")
    with pytest.raises(FileInUseError, match="another process"):
        LockFile(tmp_path / "feed.duckdb")
    lock.close()


def test_who_passes_leaves_nothing_that_was_not_there(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    lock = LockFile(path, passing=True)
    with pytest.raises(FileInUseError, match=f"in use by process {os.getpid()}"):
        LockFile(path)
    lock.close()
    assert list(tmp_path.iterdir()) == []
    LockFile(path).close()
    LockFile(path, passing=True).close()
    assert [each.name for each in tmp_path.iterdir()] == ["feed.duckdb.lock"]


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our opening it and our lock, one who passed by has removed it."""
    path = tmp_path / "feed.duckdb"
    passing = [LockFile(path, passing=True)]
    flock = fcntl.flock

    def late(fd: int, operation: int) -> None:
        if passing:
            passing.pop().close()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = LockFile(path)
    with pytest.raises(FileInUseError):
        LockFile(path)
    lock.close()


@pytest.mark.parametrize("exists", [False, True])
def test_in_a_folder_that_cannot_be_written_only_who_passes_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    path = tmp_path / "feed.duckdb"
    holder = LockFile(path) if exists else None
    really_open = os.open

    def read_only(name: Path, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_RDWR | os.O_CREAT) and (exists or flags & os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return really_open(name, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StoreError, match="cannot be opened: Read-only file system"):
        LockFile(path)
    if holder is not None:
        with pytest.raises(FileInUseError, match=str(os.getpid())):
            LockFile(path, passing=True)
        holder.close()
    lock = LockFile(path, passing=True)
    lock.close()
    lock.close()
