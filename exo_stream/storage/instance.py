"""One DuckDB instance with the file attached, its settings fixed and then locked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import duckdb

from exo_stream.limits import MIB
from exo_stream.storage.schema import ROW_GROUP_ROWS

NEVER_BYTES: Final = "900TB"
"""A WAL never grows to this: checkpoints happen when we say so, not inside a COMMIT."""

MEMORY_PER_BATCH_BYTE: Final = 4
"""DuckDB holds a large value two or three times while it is written, replayed or read."""

OFFLINE_MEMORY_BYTES: Final = 1024 * MIB
"""For work on a stopped file, whatever the largest batch in it: it may have 256 MiB."""

_SETTINGS: Final = {
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "async_threads": "1",
    "auto_checkpoint_skip_wal_threshold": str((1 << 64) - 1),
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "checkpoint_on_detach": "DISABLED",
    "checkpoint_threshold": NEVER_BYTES,
    # The bit-packing encoder has an open bug that makes a file unreadable (duckdb #22823). The
    # others make a CHECKPOINT of 35 MiB take 400 to 560 ms instead of 60, on the writer thread.
    "disabled_compression_methods": "bitpacking,dict_fsst,fsst,zstd",
    "enable_external_file_cache": "false",
    # All data go through the WAL: optimistically written row groups are the younger path.
    "enable_optimistic_write": "false",
    # A CHECKPOINT would merge small row groups, which for the log means to write up to 32,768
    # payloads again and again (1 s and more at 300 MiB). Row groups that are quite dead, as a
    # pruned log and merged blocks leave them, are dropped all the same.
    "max_vacuum_tasks": "0",
    "preserve_insertion_order": "true",
    "python_enable_replacements": "false",
    "threads": "1",
    "wal_autocheckpoint_entries": "0",
}


def attach(
    path: Path,
    *,
    memory_bytes: int,
    mode: str = "READ_WRITE",
    spill: str = "",
    unsafe_nosync: bool = False,
) -> duckdb.DuckDBPyConnection:
    """Open the file at ``path`` in an instance of its own, named ``exo``; it is created if absent.

    An in-memory instance, so that a CHECKPOINT which fails invalidates the file and no more.
    ``spill`` is a directory for what exceeds ``memory_bytes``; without one, such a query fails.
    With ``unsafe_nosync`` nothing is ever synced.
    """
    con = duckdb.connect(":memory:")
    try:
        fsync_mode = "NONE" if unsafe_nosync else "STANDARD"
        for name, value in {**_SETTINGS, "fsync_mode": fsync_mode}.items():
            con.execute(f"SET GLOBAL {name} = '{value}'")
        con.execute(f"SET GLOBAL temp_directory = {_quote(spill)}")
        con.execute(f"SET GLOBAL memory_limit = '{memory_bytes}B'")
        con.execute("PRAGMA disable_checkpoint_on_shutdown")
        con.execute(f"ATTACH {_quote(str(path))} AS exo ({mode}, ROW_GROUP_SIZE {ROW_GROUP_ROWS})")
        con.execute("SET GLOBAL enable_external_access = false")
        con.execute("SET GLOBAL lock_configuration = true")
        con.execute("USE exo")
        # fetchall, here and everywhere: an open result keeps its transaction open.
        found = con.execute("SELECT current_setting('fsync_mode')").fetchall()
        assert found == [(fsync_mode,)], found
    except BaseException:
        con.close()
        raise
    return con


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def open_cursor(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Another connection to the same instance, for another thread."""
    cursor = con.cursor()
    cursor.execute("USE exo")
    return cursor
