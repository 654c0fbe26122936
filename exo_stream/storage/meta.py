"""The ``meta`` table: a few named values that must change in one transaction with the rest."""

from __future__ import annotations

from typing import Final

import duckdb

from exo_stream.storage.schema import number

FORMAT: Final = "format"
LOG_ID: Final = "log_id"
FLOOR: Final = "floor"
"""The oldest retained sequence; rows below it are evicted, and deleted when there is time."""
FOLDED_THROUGH: Final = "folded_through"
"""The newest sequence that the blocks hold; the memtable is rebuilt from the log after it."""
COMMITTED_AT: Final = "committed_at"
"""The newest time among deleted batches, so that an emptied log does not go back in time."""
CLEAN: Final = "clean"
"""1 after an orderly close, 0 while the file is open."""


def load(con: duckdb.DuckDBPyConnection) -> dict[str, bytes]:
    """Everything, by name."""
    return dict(con.execute("SELECT name, value FROM meta").fetchall())


def write_number(con: duckdb.DuckDBPyConnection, name: str, value: int) -> None:
    """Replace one number, inside the open transaction."""
    write(con, name, number(value))


def write(con: duckdb.DuckDBPyConnection, name: str, value: bytes) -> None:
    """Replace one value, inside the open transaction."""
    update = con.execute("UPDATE meta SET value = ? WHERE name = ?", [value, name])
    if update.fetchall() == [(0,)]:
        con.execute("INSERT INTO meta VALUES (?, ?)", [name, value])
