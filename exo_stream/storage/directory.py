"""The directory the file lies in: a new name there is durable only once the directory is synced.

DuckDB unlinks and creates its WAL at each CHECKPOINT and never syncs the directory.
"""

from __future__ import annotations

import os
from pathlib import Path


def beside(path: Path, suffix: str) -> Path:
    """The companion of a file: its WAL, its lock, its unborn self."""
    return path.with_name(path.name + suffix)


def sync(path: Path) -> None:
    """Make the names beside ``path`` durable."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make what was written to a file durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def file_bytes(path: Path) -> int:
    """The size of a file, 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def disk_free_bytes(path: Path) -> int:
    """What an unprivileged process may still write beside ``path``."""
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize
