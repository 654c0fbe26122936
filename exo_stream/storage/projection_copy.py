"""A projection's file as a backup copies it, whole and with nobody in it; and as it is put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb

from exo_stream.errors import CorruptionError, StoreError
from exo_stream.storage import directory, failures, projection_tables
from exo_stream.storage.at_rest import AtRest
from exo_stream.storage.instance import OFFLINE_MEMORY_BYTES, attach
from exo_stream.storage.projection_file import Identity, ProjectionFile, refuse_hole
from exo_stream.storage.projection_tables import Stored


def put_to_rest(file: ProjectionFile, identity: Identity) -> AtRest:
    """Move what the write-ahead log holds into the file, and close it; its lock stays held.

    Raises StoreError while a reader is in the way, StoreFullError, OutcomeUnknownError.
    """
    file.roll_back()
    file.checkpoint()
    if file.wal_bytes:
        raise StoreError(f"{file.path} could not be completed")
    file.abandon()
    return AtRest(file.path, identity.log_id, file.cursor, identity.schema_version)


def complete(path: Path) -> Stored:
    """Do the same to a file that nobody has open, under its lock; what it says of itself.

    Raises ForeignFileError if it is no projection's, CorruptionError, StoreFullError.
    """
    refuse_hole(path)
    with _opened(path) as con:
        stored = projection_tables.load(con, path)
        con.execute("CHECKPOINT exo")
    directory.sync_file(path)
    return stored


def adopt(path: Path, *, log_id: str) -> Stored:
    """Make a copy that nobody else knows one of another log; what it said of itself before.

    It is durable, but for its name. Raises as ``complete`` does.
    """
    with _opened(path) as con:
        stored = projection_tables.load(con, path)
        con.execute("BEGIN TRANSACTION")
        projection_tables.write_log_id(con, log_id)
        con.execute("COMMIT")
        con.execute("CHECKPOINT exo")
    directory.sync_file(path)
    return stored


@contextmanager
def _opened(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        with closing(attach(path, memory_bytes=OFFLINE_MEMORY_BYTES)) as con:
            yield con
    except duckdb.Error as error:
        if failures.is_no_space(error):
            raise failures.of_creation(path, error) from error
        raise CorruptionError(f"{path} is damaged") from error
