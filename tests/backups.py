"""Platforms to be backed up, and what a file holds, row for row and batch for batch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

from exo_stream import Platform, Producer, open_platform
from exo_stream.backup import BackupKey
from exo_stream.backup.reading import open_backup
from exo_stream.canonical.projection import Projector
from exo_stream.limits import KIB, Limits
from exo_stream.model import Row, row_key
from exo_stream.payload import EncodedBatch
from exo_stream.storage.duckdb_engine import open_duckdb_engine
from exo_stream.streams.values import StreamConfig
from tests.projections import TABLES, see

LIMITS = replace(
    Limits(), memtable_entries_max=400, memtable_bytes_max=256 * KIB, slice_rows_max=200
)
"""Small, so that a short life has blocks, merges and garbage."""

KEY = BackupKey(bytes(range(32)))
SECRET = b"the-secret-that-must-not-lie-in-the-clear"

KINDS: dict[str, tuple[bool, BackupKey | None]] = {
    "plain": (False, None),
    "compressed": (True, None),
    "encrypted": (False, KEY),
    "compressed and encrypted": (True, KEY),
}

Contents = tuple[list[Row], list[tuple[int, int, bytes]]]


@asynccontextmanager
async def projected(
    file: Path, limits: Limits = LIMITS
) -> AsyncIterator[tuple[Platform, Projector]]:
    """A platform, and a projection of all its events where they are looked for."""
    async with (
        open_platform(file, limits=limits) as platform,
        platform.canonical.projections(f"{file}.projections") as projections,
    ):
        yield platform, await projections.add("seen", see, tables=TABLES)


async def live(platform: Platform, rounds: int, *, first: int = 0) -> None:
    """Write to all three faces: values and deletions, producers, streams, events and state."""
    streams, canonical = platform.streams, platform.canonical
    for number in range(first, first + rounds):
        keys = [b"user/%04d" % (number * 7 % 500 + step) for step in range(20)]
        await platform.put_batch([(key, SECRET + b"%d" % number) for key in keys])
        await platform.delete_batch(keys[:5])
        await platform.write(
            puts=[(b"counted/%d" % number, b"once")],
            producer=Producer(b"test", 1, number),
        )
        name = f"stream/{number % 3}"
        await streams.create_stream(name, StreamConfig("text/plain"))
        await streams.append(name, SECRET + b" %d" % number)
        async with canonical.write_txn() as txn:
            txn.put_state(b"state/%d" % (number % 10), b"%d" % number)
            await txn.append_event(SECRET + b" event %d" % number)
            await txn.commit()


def contents(path: Path) -> Contents:
    """Every live row of a stopped file and its whole log."""
    with closing(open_duckdb_engine(path)) as engine:
        version, reader, rows = engine.version, engine.open_reader(), []
        start: bytes | None = b""
        while start is not None:
            plan = engine.scan(
                version, start, b"\xff" * 8, rows_max=1_000, bytes_max=1 << 22, forward=True
            )
            page = plan.run(reader)
            rows += page.rows
            start = page.resume
        batches: list[EncodedBatch] = []
        after = version.floor - 1
        while after < version.frontier:
            batches += reader.log_page(
                after, through=version.frontier, batches_max=1_000, bytes_max=1 << 22
            )
            after = batches[-1].sequence
        return rows, [(batch.sequence, batch.committed_at, batch.payload) for batch in batches]


def folded(log: Sequence[tuple[int, int, bytes]]) -> list[Row]:
    """The rows that a log from its beginning on comes to, by the plainest rule."""
    rows: dict[bytes, Row] = {}
    for sequence, committed_at, payload in log:
        for keyspace, key, value in EncodedBatch(sequence, committed_at, payload).entries:
            rows[row_key(keyspace, key)] = Row(row_key(keyspace, key), sequence, value)
    return [rows[key] for key in sorted(rows) if rows[key].value is not None]


def key_of(backup: Path) -> BackupKey | None:
    """The key that belongs to a backup, None if it is not encrypted."""
    return KEY if open_backup(backup).manifest.encryption else None


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a directory, byte for byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
