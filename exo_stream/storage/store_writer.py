"""A new file written through a DuckDB instance of its own: rows, then the log, slice by slice.

The file is that of a backup, or of what is restored from one: the table is whole and folded
through the last batch, so that nothing need be replayed when it is opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count, groupby
from pathlib import Path
from typing import Final

import duckdb

from exo_stream.errors import CorruptionError
from exo_stream.limits import MIB
from exo_stream.model import Row
from exo_stream.payload import EncodedBatch
from exo_stream.storage import batch_log, creation, directory, failures, inspection, manifest, meta
from exo_stream.storage.block_writer import BlockWriter
from exo_stream.storage.database import Rows
from exo_stream.storage.instance import OFFLINE_MEMORY_BYTES, attach
from exo_stream.storage.log_check import raw_pages
from exo_stream.storage.packing import pack
from exo_stream.storage.tiers import compute_tier

_WAL_BYTES_MAX: Final = 16 * MIB
"""How far the new file's own WAL grows before it is moved into the file."""

_SLICE_ROWS: Final = 16_384
_SLICE_BYTES: Final = 8 * MIB


class StoreWriter:
    """One new file on its way, under a name that nobody else knows. All methods block.

    They raise StoreFullError when there is no space, else StoreError; then call ``close``.
    """

    def __init__(self, path: Path, *, log_id: str, frontier: int, committed_at: int) -> None:
        self._path = path
        self._frontier = frontier
        self._committed_at = committed_at
        self._rows: list[Row] = []
        self._bytes = 0
        self._newest: int | None = None
        ids = count(1)
        self._blocks = BlockWriter(
            ids,
            run=next(ids),
            tier=compute_tier(committed_at, committed_at),
            folded_through=frontier,
            created_at=committed_at,
        )
        with _told(path):
            creation.write_empty(path, log_id=log_id, memory_bytes=OFFLINE_MEMORY_BYTES)
            # Synced once, at the end: until then nobody knows of the file, and a crash ends it.
            self._con = attach(path, memory_bytes=OFFLINE_MEMORY_BYTES, unsafe_nosync=True)

    def add_rows(self, rows: Sequence[Row]) -> None:
        """The next live rows of the table, in the order of their keys."""
        self._rows += rows
        self._bytes += sum([len(row.key) + len(row.value or b"") for row in rows])
        if len(self._rows) >= _SLICE_ROWS or self._bytes >= _SLICE_BYTES:
            with _told(self._path):
                self._write_rows()

    def add_batches(self, batches: Sequence[EncodedBatch]) -> None:
        """The next batches of the log."""
        expected = batches[0].sequence if self._newest is None else self._newest + 1
        numbers = [batch.sequence for batch in batches]
        if numbers != [*range(expected, expected + len(batches))]:
            raise CorruptionError(f"batch {expected} is missing in the log")
        with _told(self._path):
            self._con.execute("BEGIN TRANSACTION")
            with self._con.appender("log") as appender:
                batch_log.append(appender, batches)
            self._commit()
        self._newest = batches[-1].sequence

    def forget_batches(self) -> None:
        """Drop the batches so far: they were evicted meanwhile."""
        with _told(self._path):
            self._con.execute("BEGIN TRANSACTION")
            self._con.execute("DELETE FROM log")
            self._commit()
        self._newest = None

    def finish(self, floor: int) -> None:
        """Write the rest, and the ends of the log; the file is durable, but for its name."""
        if self._newest is not None and self._newest != self._frontier:
            raise CorruptionError(f"the log ends at {self._newest}, the table at {self._frontier}")
        with _told(self._path):
            self._write_rows()
            self._blocks.close_block()
            self._con.execute("BEGIN TRANSACTION")
            manifest.insert(self._con, self._blocks.blocks)
            meta.write_number(self._con, meta.FLOOR, floor)
            meta.write_number(self._con, meta.FOLDED_THROUGH, self._frontier)
            if self._newest is None:
                meta.write_number(self._con, meta.COMMITTED_AT, self._committed_at)
            self._con.execute("COMMIT")
            self._con.execute("CHECKPOINT exo")
            self.close()
            directory.sync_file(self._path)

    def close(self) -> None:
        """Let go of the file, whole or not; a second time it does nothing."""
        self._con.close()

    def _write_rows(self) -> None:
        rows, self._rows, self._bytes = self._rows, [], 0
        for keyspace, group in groupby(rows, key=lambda row: row.key[0]):
            part = list(group)
            self._con.execute("BEGIN TRANSACTION")
            first = self._blocks.next_sub_block(keyspace, len(part))
            with self._con.appender("kv") as appender:
                appender.append_rows(pack(part, first))
            written = self._blocks.take(self._con)
            assert written == len(part), (written, len(part))
            self._commit()

    def _commit(self) -> None:
        self._con.execute("COMMIT")
        if directory.file_bytes(directory.beside(self._path, ".wal")) > _WAL_BYTES_MAX:
            self._con.execute("CHECKPOINT exo")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise failures.of_creation(path, error) from error


def renew_log_id(path: Path) -> None:
    """Give a stopped file that nobody else knows another log id: it is a copy that goes on alone.

    Raises ForeignFileError, CorruptionError, StoreFullError, StoreError.
    """
    inspection.inspect(path, memory_bytes=OFFLINE_MEMORY_BYTES)
    with _told(path), closing(attach(path, memory_bytes=OFFLINE_MEMORY_BYTES)) as con:
        con.execute("BEGIN TRANSACTION")
        meta.write(con, meta.LOG_ID, secrets.token_hex(16).encode())
        con.execute("COMMIT")
        con.execute("CHECKPOINT exo")


def read_log(path: Path) -> Iterator[list[EncodedBatch]]:
    """The log of a stopped file, page by page; nothing beside the file is written."""
    inspection.inspect(path, memory_bytes=OFFLINE_MEMORY_BYTES)
    con = attach(path, memory_bytes=OFFLINE_MEMORY_BYTES, mode="READ_ONLY")
    with closing(con):
        for page in raw_pages(Rows(con), 0):
            yield [EncodedBatch(row[0], row[1], row[5]) for row in page]
