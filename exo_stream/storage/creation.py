"""The birth of a file: made whole under another name, then given its own."""

from __future__ import annotations

import secrets
from pathlib import Path

import duckdb

from exo_stream.logger import log
from exo_stream.storage import directory, failures, meta
from exo_stream.storage.instance import attach
from exo_stream.storage.schema import FORMAT, TABLES, VIEWS


def create(path: Path, *, memory_bytes: int) -> None:
    """Make an empty file with a new log id at ``path``; the caller holds its lock.

    A process killed half-way leaves ``path`` absent, never a file that looks like another's.
    """
    unborn = directory.beside(path, ".new")
    for leftover in (unborn, directory.beside(unborn, ".wal")):
        leftover.unlink(missing_ok=True)
    log_id = secrets.token_hex(16)
    try:
        write_empty(unborn, log_id=log_id, memory_bytes=memory_bytes)
        unborn.rename(path)
        directory.sync(path)
    except (duckdb.Error, OSError) as error:
        raise failures.of_creation(path, error) from error
    log.info("file created", path=str(path), log_id=log_id)


def write_empty(path: Path, *, log_id: str, memory_bytes: int) -> None:
    """A file with all its tables and nothing in them, durable but for its name."""
    con = attach(path, memory_bytes=memory_bytes)
    try:
        con.execute("BEGIN TRANSACTION")
        for statement in TABLES + VIEWS:
            con.execute(statement)
        meta.write_number(con, meta.FORMAT, FORMAT)
        meta.write(con, meta.LOG_ID, log_id.encode())
        meta.write_number(con, meta.FLOOR, 1)
        meta.write_number(con, meta.FOLDED_THROUGH, 0)
        meta.write_number(con, meta.COMMITTED_AT, 0)
        meta.write_number(con, meta.CLEAN, 1)
        con.execute("COMMIT")
        con.execute("CHECKPOINT exo")
    finally:
        con.close()
