"""The check of the log: every batch there, whole, in order, and never back in time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final

import cbor2

from exo_stream.model import Entry
from exo_stream.payload import decode_entries
from exo_stream.storage.database import Rows
from exo_stream.storage.findings import Findings

_ROWS_MAX: Final = 1024
_BYTES_MAX: Final = 4 * 1024 * 1024
"""What is in memory at a time; a larger batch is alone."""


def check_log(
    rows: Rows,
    findings: Findings,
    committed_at: int,
    sink: Callable[[int, tuple[Entry, ...]], None],
) -> int:
    """Read every batch, none older than ``committed_at``; hand each to ``sink``; count them."""
    count, expected = 0, None
    for page in raw_pages(rows, 0):
        for sequence, time, entries, size, checksum, payload in page:
            count += 1
            if expected is not None and sequence != expected:
                findings.add("log", f"after batch {expected - 1} comes batch {sequence}")
            expected = sequence + 1
            if time < committed_at:
                findings.add("log", f"batch {sequence} was committed before its predecessor")
            committed_at = max(committed_at, time)
            if zlib.crc32(payload) != checksum or len(payload) != size:
                findings.add("log", f"batch {sequence} does not match its checksum or its length")
                continue
            decoded = _decode(payload)
            if decoded is None or len(decoded) != entries:
                findings.add(
                    "log", f"batch {sequence} does not hold the {entries} entries it names"
                )
                continue
            sink(sequence, decoded)
    return count


def raw_pages(rows: Rows, oldest: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows from ``oldest`` on in order, a bounded number and size of them at a time."""
    last = oldest - 1
    while True:
        ((start,),) = rows.fetch("SELECT min(sequence) FROM log WHERE sequence > ?", (last,))
        if start is None:
            return
        sizes = _sizes(rows, start)
        while sizes:
            totals = accumulate(size for _, size in sizes)
            fitting = max(1, sum(1 for total in totals if total <= _BYTES_MAX))
            last = sizes[fitting - 1][0]
            yield rows.fetch(
                "SELECT sequence, committed_at, entries, bytes, checksum, payload FROM log"
                " WHERE sequence BETWEEN ? AND ? ORDER BY sequence",
                (sizes[0][0], last),
            )
            # Only a hole asks for the next row there is: that is a scan of what is left.
            sizes = _sizes(rows, last + 1)


def _sizes(rows: Rows, start: int) -> list[tuple[Any, ...]]:
    return rows.fetch(
        "SELECT sequence, bytes FROM log WHERE sequence BETWEEN ? AND ? ORDER BY sequence",
        (start, start + _ROWS_MAX - 1),
    )


def _decode(payload: bytes) -> tuple[Entry, ...] | None:
    try:
        return decode_entries(payload)
    except (cbor2.CBORError, TypeError, ValueError):
        return None
