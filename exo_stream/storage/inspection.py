"""Inspection of a file before it is opened: ours, of a format we know, and sound enough.

Nothing is written: a file that is refused stays as it was, byte for byte.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import duckdb

from exo_stream.errors import (
    CorruptionError,
    ExoStreamError,
    FileInUseError,
    ForeignFileError,
    StoreError,
)
from exo_stream.storage import failures, meta, wal
from exo_stream.storage.directory import beside
from exo_stream.storage.instance import attach
from exo_stream.storage.schema import FORMAT

_MAGIC: Final = b"DUCK"
_MAGIC_AT: Final = 8
_OURS: Final = {"log", "kv", "manifest", "filters", "meta"}


def exists(path: Path) -> bool:
    """Whether there is something at ``path`` to be opened; the caller holds its lock.

    Raises ForeignFileError for a directory or a device, CorruptionError for a WAL without its
    file.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if beside(path, ".wal").exists():
            raise CorruptionError(f"{path} is gone, but its write-ahead log is there") from None
        return False
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise ForeignFileError(f"{path} is no file")
    return True


def inspect(path: Path, *, memory_bytes: int) -> int:
    """Raise unless the existing file at ``path`` is ours; the caller holds its lock.

    Returns how many bytes at the end of its write-ahead log are no whole transaction, and are
    dropped when it is opened.
    """
    _check_magic(path)
    tail = refuse_hole(path, memory_bytes=memory_bytes)
    _check_tables(path, path, memory_bytes=memory_bytes)
    return tail


def inspect_without_wal(path: Path, *, memory_bytes: int) -> None:
    """Raise unless the file at ``path`` is ours, whatever its write-ahead log holds."""
    _check_magic(path)
    with TemporaryDirectory(prefix="exo-stream-inspect-") as folder:
        # DuckDB looks for the log beside the name it is given.
        alone = Path(folder) / "alone.duckdb"
        alone.symlink_to(path.absolute())
        _check_tables(path, alone, memory_bytes=memory_bytes)


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(_MAGIC_AT + len(_MAGIC))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    if len(head) < _MAGIC_AT + len(_MAGIC):
        raise ForeignFileError(
            f"{path} has {len(head)} bytes: it was cut off, or is not an exo-stream file"
        )
    if head[_MAGIC_AT:] != _MAGIC:
        raise ForeignFileError(f"{path} is not an exo-stream file")


def _check_tables(path: Path, name: Path, *, memory_bytes: int) -> None:
    """Open the file at ``path`` under ``name`` and look whether its tables are ours."""
    try:
        con = attach(name, memory_bytes=memory_bytes, mode="READ_ONLY")
    except duckdb.Error as error:
        raise refusal(path, error) from error
    try:
        check_format(path, con)
    finally:
        con.close()


def refuse_hole(path: Path, *, memory_bytes: int) -> int:
    """Raise CorruptionError if the write-ahead log is damaged where DuckDB would not say so.

    It takes a damaged header for an empty log, and a damaged length for the log's end, and would
    silently drop what follows. A tail without an end is left to it, and its size returned: that
    COMMIT may not have returned. Raises ForeignFileError if the file is another program's: so
    is its log.
    """
    wal_path = beside(path, ".wal")
    if not wal_path.exists():
        return 0
    scan = wal.scan_structure(wal_path.read_bytes())
    if scan.header_lost or scan.flush_follows or scan.flush_at_end:
        inspect_without_wal(path, memory_bytes=memory_bytes)
        raise CorruptionError(_damaged_wal(path))
    return scan.size - scan.intact_bytes


def _damaged_wal(path: Path) -> str:
    return (
        f"the write-ahead log of {path} is damaged; see what can be done with: "
        f"exo-stream repair-wal {path}"
    )


def check_format(path: Path, con: duckdb.DuckDBPyConnection) -> None:
    """Raise ForeignFileError unless the tables are ours and their format is known."""
    names = con.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'exo'")
    try:
        found = meta.load(con) if {name for (name,) in names.fetchall()} >= _OURS else {}
    except duckdb.Error as error:
        if failures.is_corrupt(error) or isinstance(error, duckdb.IOException):
            raise refusal(path, error) from error
        found = {}
    if not {meta.FORMAT, meta.LOG_ID} <= found.keys():
        raise ForeignFileError(f"{path} is a DuckDB file, but not an exo-stream file")
    version = int.from_bytes(found[meta.FORMAT], "big")
    if version > FORMAT:
        raise ForeignFileError(
            f"{path} has format {version}, and this version of exo-stream reads up to {FORMAT}"
        )


def refusal(path: Path, error: duckdb.Error) -> ExoStreamError:
    """Why DuckDB would not open ``path``, in our words."""
    text = str(error)
    if holder := re.search(r"Could not set lock.*?\(PID (\d+)\)", text, flags=re.DOTALL):
        return FileInUseError(str(path), int(holder[1]))
    if "version number" in text:
        return ForeignFileError(f"{path} was written by a newer DuckDB")
    if "WAL" in text:
        return CorruptionError(_damaged_wal(path))
    if "enough bytes" in text:
        return CorruptionError(
            f"{path} is damaged: it was cut off; if the power went, see what can be done with: "
            f"exo-stream repair-wal {path}; else restore it"
        )
    if failures.is_corrupt(error):
        return CorruptionError(
            f"{path} is damaged: if the power went, see what can be done with: "
            f"exo-stream repair-wal {path}; else restore it"
        )
    return StoreError(f"{path} cannot be opened ({type(error).__name__})")
