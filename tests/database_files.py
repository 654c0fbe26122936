"""Files at the level of ``Database``: made, written to, left behind, compared byte for byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

from exo_stream.limits import MIB
from exo_stream.storage import batch_log
from exo_stream.storage.database import Database, open_database
from tests.batches import make_batches

MEMORY = 64 * MIB


def write(db: Database, first: int, last: int, *, value_bytes: int = 10) -> None:
    """Batches of these numbers, in one COMMIT."""
    with db.transaction() as con:
        batch_log.append(con.appender("log"), make_batches(first, last, value_bytes=value_bytes))


def digest(folder: Path) -> dict[str, str]:
    """The contents of every file but our own lock."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and path.suffix != ".lock"
    }


def leave_with_wal(path: Path, last: int = 3) -> None:
    """Write a batch a COMMIT, then let go of the file as a killed process would."""
    db = open_database(path, memory_bytes=MEMORY)
    for sequence in range(1, last + 1):
        write(db, sequence, sequence)
    db.abandon()
    assert db.wal_bytes > 0
