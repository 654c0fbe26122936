"""The tables that each projection's file has besides its own: the cursor, and dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from exo_stream.errors import ForeignFileError, InvalidStateError
from exo_stream.storage.dead_letter import DeadLetter

FORMAT: Final = 1

_META: Final = "exo.exo_projection.projection_meta"
_LETTERS: Final = "exo.exo_projection.dead_letter_queue"

Change = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a projection's file says of itself; ``problem`` is what stopped it, if anything did."""

    name: str
    log_id: str
    schema_version: int
    cursor: int | None
    updated_at: int
    problem: str


def create(
    con: duckdb.DuckDBPyConnection, name: str, log_id: str, schema_version: int, *, now: int
) -> None:
    """Make them, in the transaction that is open; nothing is applied yet."""
    # No keys: DuckDB checks them too early for a row that is deleted and put again.
    con.execute("CREATE SCHEMA exo_projection")
    con.execute(
        f"CREATE TABLE {_META} (format UINTEGER NOT NULL, name VARCHAR NOT NULL,"
        " log_id VARCHAR NOT NULL, schema_version UINTEGER NOT NULL,"
        " last_applied_event_id UBIGINT, updated_at UBIGINT NOT NULL, problem VARCHAR NOT NULL)"
    )
    con.execute(
        f"CREATE TABLE {_LETTERS} (event_id UBIGINT NOT NULL, event_bytes BLOB NOT NULL,"
        " error_message VARCHAR NOT NULL, failed_at UBIGINT NOT NULL,"
        " retry_count UINTEGER NOT NULL, last_retry_at UBIGINT, permanent BOOLEAN NOT NULL)"
    )
    con.execute(
        f"INSERT INTO {_META} VALUES (?, ?, ?, ?, NULL, ?, '')",  # noqa: S608  our own name
        [FORMAT, name, log_id, schema_version, now],
    )


def load(con: duckdb.DuckDBPyConnection, path: Path) -> Stored:
    """What the file says of itself. Raises ForeignFileError if it is no projection's."""
    try:
        found = con.execute(
            "SELECT format, name, log_id, schema_version, last_applied_event_id, updated_at,"  # noqa: S608  our own name
            f" problem FROM {_META}"
        ).fetchall()
    except duckdb.CatalogException:
        found = []
    if len(found) != 1:
        raise ForeignFileError(f"{path} is not the file of a projection")
    number, *rest = found[0]
    if number > FORMAT:
        raise ForeignFileError(f"{path} has format {number}, and this version reads {FORMAT}")
    return Stored(*rest)


def move_cursor(
    con: duckdb.DuckDBPyConnection,
    known: int | None,
    cursor: int | None,
    *,
    now: int,
    problem: str,
) -> None:
    """Move the cursor from where it is known to be. Raises InvalidStateError if it is not there:
    a handler has written to a table that is not its own.
    """
    [(moved,)] = con.execute(
        f"UPDATE {_META} SET last_applied_event_id = ?, updated_at = ?, problem = ?"  # noqa: S608  our own name
        " WHERE last_applied_event_id IS NOT DISTINCT FROM ?",
        [cursor, now, problem, known],
    ).fetchall()
    if moved != 1:
        raise InvalidStateError("a handler has changed the cursor of its projection")


def write_log_id(con: duckdb.DuckDBPyConnection, log_id: str) -> None:
    """Say that what is in the file was made of another log, of which its own is the beginning."""
    con.execute(f"UPDATE {_META} SET log_id = ?", [log_id])  # noqa: S608  our own name


def put_letter(con: duckdb.DuckDBPyConnection, letter: DeadLetter) -> None:
    """Put an event aside, in the place of an earlier one with its id."""
    remove_letter(con, letter.event_id)
    con.execute(
        f"INSERT INTO {_LETTERS} VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  our own name
        [
            letter.event_id,
            letter.event_bytes,
            letter.error_message,
            letter.failed_at,
            letter.retry_count,
            letter.last_retry_at,
            letter.permanent,
        ],
    )


def remove_letter(con: duckdb.DuckDBPyConnection, event_id: int) -> None:
    """Forget it, if it is there."""
    con.execute(f"DELETE FROM {_LETTERS} WHERE event_id = ?", [event_id])  # noqa: S608  our own name


def letters(
    con: duckdb.DuckDBPyConnection, first: int, limit: int, bytes_max: int
) -> list[DeadLetter]:
    """Up to ``limit`` of them from the id ``first`` on, by id: one at least, if there is one, and
    no more than have ``bytes_max`` together.
    """
    ids = con.execute(
        f"SELECT event_id, octet_length(event_bytes) FROM {_LETTERS} WHERE event_id >= ?"  # noqa: S608  our own name
        " ORDER BY event_id LIMIT ?",
        [first, limit],
    ).fetchall()
    last, size = first - 1, 0
    for event_id, length in ids:
        size += length
        if last >= first and size > bytes_max:
            break
        last = event_id
    rows = con.execute(
        "SELECT event_id, event_bytes, error_message, failed_at, retry_count, last_retry_at,"  # noqa: S608  our own name
        f" permanent FROM {_LETTERS} WHERE event_id BETWEEN ? AND ? ORDER BY event_id",
        [first, max(first, last)],
    ).fetchall()
    return [DeadLetter(*row) for row in rows]


def letters_due(
    con: duckdb.DuckDBPyConnection, now: int, delays: Sequence[int] | None, limit: int
) -> list[int]:
    """The ids of up to ``limit`` of them that are not permanent, the oldest first.

    With ``delays`` only those whose last try is so many microseconds ago, by how often they were
    replayed, and of them those replayed least first.
    """
    if delays is None:
        found = con.execute(
            f"SELECT event_id FROM {_LETTERS} WHERE NOT permanent ORDER BY event_id LIMIT ?",  # noqa: S608  our own name
            [limit],
        )
    else:
        found = con.execute(
            f"SELECT event_id FROM {_LETTERS} WHERE NOT permanent"  # noqa: S608  our own name
            " AND coalesce(last_retry_at, failed_at) + list_extract(?, retry_count + 1) <= ?"
            " ORDER BY retry_count, event_id LIMIT ?",
            [list(delays), now, limit],
        )
    return [event_id for (event_id,) in found.fetchall()]


def count_letters(con: duckdb.DuckDBPyConnection) -> int:
    """How many there are."""
    [(count,)] = con.execute(f"SELECT count(*) FROM {_LETTERS}").fetchall()  # noqa: S608  our own name
    assert isinstance(count, int)
    return count
