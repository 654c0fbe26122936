"""The log in the file: a row per batch, appended by the writer and read by page.

All functions work inside a transaction of the caller's: ``con`` is the writer's, ``rows`` a
reader's (or the writer's, before anybody reads).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import duckdb

from exo_stream.errors import BatchEvictedError, CorruptionError
from exo_stream.payload import EncodedBatch, count_entries
from exo_stream.storage import meta
from exo_stream.storage.database import Rows
from exo_stream.storage.engine import Retention

_CHUNK: Final = 1024
"""Batches summed up together when retention counts bytes."""


@dataclass(frozen=True, slots=True)
class LogEnds:
    """Where the log begins and ends.

    ``oldest_row`` is the oldest batch still in the file, ``newest + 1`` if there is none; it
    may be below ``floor``, until it is deleted. ``newest`` counts numbers once given, so that
    an emptied log gives none of them again. ``last_committed_at`` is the newest time, in
    microseconds.
    """

    oldest_row: int
    floor: int
    newest: int
    folded_through: int
    last_committed_at: int


def ends(rows: Rows) -> LogEnds:
    """The ends of the log. Raises CorruptionError if a batch is missing between them."""
    (found,) = rows.fetch(
        "SELECT count(*), min(sequence), max(sequence), max(committed_at) FROM log"
    )
    count, oldest, newest, committed_at = (value or 0 for value in found)
    floor = _number(rows, meta.FLOOR)
    folded_through = _number(rows, meta.FOLDED_THROUGH)
    if count and count != newest - oldest + 1:
        raise CorruptionError(f"of the batches {oldest} to {newest} only {count} are in the log")
    last = max(newest, folded_through, floor - 1)
    if count and (newest != last or floor < oldest):
        raise CorruptionError(
            f"the log holds the batches {oldest} to {newest}, but its floor is {floor}"
            f" and the table is folded through {folded_through}"
        )
    return LogEnds(
        oldest_row=oldest if count else last + 1,
        floor=floor,
        newest=last,
        folded_through=folded_through,
        last_committed_at=max(committed_at, _number(rows, meta.COMMITTED_AT)),
    )


def append(appender: duckdb.Appender, batches: Sequence[EncodedBatch]) -> None:
    """Write batches numbered without a hole, in the transaction that is open."""
    first = batches[0].sequence
    rows = []
    for sequence, batch in enumerate(batches, first):
        assert batch.sequence == sequence, (batch.sequence, sequence)
        payload = batch.payload
        checksum = zlib.crc32(payload)
        entries = count_entries(payload)
        rows.append((sequence, batch.committed_at, entries, len(payload), checksum, payload))
    try:
        appender.append_rows(rows)
        appender.flush()
    except BaseException:
        appender.clear()
        raise


def move_floor(con: duckdb.DuckDBPyConnection, floor: int) -> None:
    """Evict every batch below ``floor``; their rows stay until they are deleted."""
    meta.write_number(con, meta.FLOOR, floor)


def delete_below(con: duckdb.DuckDBPyConnection, bound: int, *, rows_max: int) -> int:
    """Delete a slice of the batches below ``bound``, the oldest; answer how many there were.

    0 means there is nothing left to delete.
    """
    ((oldest,),) = con.execute("SELECT min(sequence) FROM log").fetchall()
    if oldest is None or oldest >= bound:
        return 0
    end = min(bound, oldest + rows_max)
    ((committed_at,),) = con.execute(
        "SELECT max(committed_at) FROM log WHERE sequence < ?", [end]
    ).fetchall()
    meta.write_number(con, meta.COMMITTED_AT, committed_at)
    ((deleted,),) = con.execute("DELETE FROM log WHERE sequence < ?", [end]).fetchall()
    return int(deleted)


def page(
    rows: Rows, after: int, *, through: int, batches_max: int, bytes_max: int
) -> list[EncodedBatch]:
    """The batches that follow ``after`` up to ``through``, which was committed: at least one,
    unless ``through`` is not above ``after``.

    Raises BatchEvictedError if ``after + 1`` is no longer in the file, CorruptionError if a
    checksum does not hold or a batch is missing.
    """
    last = min(through, after + batches_max)
    if last <= after:
        return []
    (found,) = rows.fetch(
        "SELECT count(*), min(sequence), max(sequence), sum(bytes) FROM log"
        " WHERE sequence BETWEEN ? AND ?",
        (after + 1, last),
    )
    count, oldest, newest, size = found
    if oldest != after + 1:
        raise _absence(rows, after + 1)
    if count != newest - after:
        raise CorruptionError(f"of the batches {oldest} to {newest} only {count} are in the log")
    if newest != last:
        raise CorruptionError(f"batch {newest + 1} is missing")
    if size > bytes_max:
        newest = _last_that_fits(rows, after, newest, bytes_max)
    return _read(rows, after, newest)


def after(rows: Rows, sequence: int, *, through: int, bytes_max: int) -> Iterator[EncodedBatch]:
    """Every batch after ``sequence`` up to ``through``, in order, page by page."""
    while sequence < through:
        batches = page(rows, sequence, through=through, batches_max=_CHUNK, bytes_max=bytes_max)
        yield from batches
        sequence = batches[-1].sequence


def sequence_at(rows: Rows, committed_at: int) -> int:
    """The first retained batch committed at or after this time; the newest + 1 if none was."""
    floor = _number(rows, meta.FLOOR)
    ((found, newest),) = rows.fetch(
        "SELECT min(sequence) FILTER (committed_at >= ?), max(sequence) FROM log"
        " WHERE sequence >= ?",
        (committed_at, floor),
    )
    if found is not None:
        return int(found)
    return floor if newest is None else int(newest) + 1


def cutoff(rows: Rows, retention: Retention, now: int) -> int:
    """The floor that ``retention`` asks for at time ``now`` (microseconds), never a lower one."""
    floor = _number(rows, meta.FLOOR)
    ((newest,),) = rows.fetch("SELECT max(sequence) FROM log WHERE sequence >= ?", (floor,))
    if newest is None:
        return floor
    wanted = floor
    if retention.batches_max is not None:
        wanted = max(wanted, newest - retention.batches_max + 1)
    if retention.seconds_max is not None:
        wanted = max(wanted, sequence_at(rows, now - retention.seconds_max * 1_000_000))
    if retention.bytes_max is not None:
        wanted = max(wanted, _newest_bytes(rows, wanted, newest, retention.bytes_max))
    return wanted


def payload_bytes(rows: Rows, floor: int) -> int:
    """The payloads of every batch from ``floor`` on: one column of small numbers is read."""
    ((size,),) = rows.fetch("SELECT sum(bytes) FROM log WHERE sequence >= ?", (floor,))
    return int(size or 0)


def _newest_bytes(rows: Rows, floor: int, newest: int, bytes_max: int) -> int:
    """The oldest batch such that all from it on have at most ``bytes_max`` together."""
    left = bytes_max
    for oldest, size in rows.fetch(
        "SELECT min(sequence), sum(bytes) FROM log WHERE sequence BETWEEN ? AND ?"
        " GROUP BY sequence // ? ORDER BY min(sequence) DESC",
        (floor, newest, _CHUNK),
    ):
        if size > left:
            return _oldest_that_fits(rows, oldest, left)
        left -= size
    return floor


def _oldest_that_fits(rows: Rows, oldest: int, left: int) -> int:
    """Where in the chunk that begins at ``oldest`` the last ``left`` bytes begin."""
    sizes = rows.fetch(
        "SELECT sequence, bytes FROM log WHERE sequence BETWEEN ? AND ? ORDER BY sequence DESC",
        (oldest, oldest // _CHUNK * _CHUNK + _CHUNK - 1),
    )
    for sequence, size in sizes:
        left -= size
        if left < 0:
            return int(sequence) + 1
    raise AssertionError((oldest, left))


def _last_that_fits(rows: Rows, after: int, last: int, bytes_max: int) -> int:
    sizes = rows.fetch(
        "SELECT bytes FROM log WHERE sequence BETWEEN ? AND ? ORDER BY sequence",
        (after + 1, last),
    )
    fitting = sum(1 for total in accumulate(size for (size,) in sizes) if total <= bytes_max)
    return after + max(1, fitting)


def _read(rows: Rows, after: int, last: int) -> list[EncodedBatch]:
    batches = []
    for sequence, committed_at, checksum, payload in rows.fetch(
        "SELECT sequence, committed_at, checksum, payload FROM log"
        " WHERE sequence BETWEEN ? AND ? ORDER BY sequence",
        (after + 1, last),
    ):
        if zlib.crc32(payload) != checksum:
            raise CorruptionError(f"batch {sequence} does not match its checksum")
        batches.append(EncodedBatch(sequence, committed_at, payload))
    return batches


def _absence(rows: Rows, wanted: int) -> BatchEvictedError | CorruptionError:
    """Why a batch that was committed is not there."""
    floor = _number(rows, meta.FLOOR)
    if wanted < floor:
        return BatchEvictedError(floor)
    return CorruptionError(f"batch {wanted} is missing")


def _number(rows: Rows, name: str) -> int:
    found = rows.fetch("SELECT value FROM meta WHERE name = ?", (name,))
    return int.from_bytes(found[0][0], "big") if found else 0
