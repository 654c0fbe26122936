"""The values every layer speaks in: keyspaces, entries, batches and cursors. No I/O, no clock."""

from __future__ import annotations

import string
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from exo_stream.errors import InvalidRequestError

SEQUENCE_MAX: Final = (1 << 64) - 1
"""Sequence numbers are unsigned 64-bit integers; the first batch is number 1."""

LOG_ID_LENGTH: Final = 32
"""A log id is 128 random bits, written as this many lower-case hexadecimal digits."""


class Keyspace(IntEnum):
    """Which face an entry belongs to; rows are ordered by (keyspace, key)."""

    STORE = 0
    PRODUCER = 1
    STREAM = 2
    STREAM_DATA = 3
    STATE = 4
    EVENT = 5
    STORE_RULE = 6
    """Rules that the file keeps for itself, such as its log's retention."""
    STREAM_PRODUCER = 7
    """What a stream remembers of its producers."""
    STREAM_UPKEEP = 8
    """When streams are to be looked at again, and what is left of removed ones."""
    CANONICAL = 9
    """The record of the canonical face: its next event id and its seal."""
    STREAM_SUBSCRIPTION = 11
    """Who is to be woken by appends to streams, and the secret that proves it: never sent."""


class Entry(NamedTuple):
    """One key and its value as one batch wrote it; the value ``None`` is a deletion."""

    keyspace: int
    key: bytes
    value: bytes | None


class Row(NamedTuple):
    """One row of the table: the latest entry of a key, and the sequence that wrote it.

    ``key`` is a row key: the keyspace's byte, then the entry's key (see ``row_key``), so that
    bytewise order is the table's order. The value ``None`` is a tombstone.
    """

    key: bytes
    sequence: int
    value: bytes | None


class VersionedValue(NamedTuple):
    """The answer to ``get_entry``: a value, its version, and the sequence it was served at.

    ``version`` is the sequence of the key's last write, 0 when the key is absent; ``value`` is
    ``None`` when the key is absent.
    """

    value: bytes | None
    version: int
    sequence: int


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """The last batch a reader has finished: exclusive, and only good for the log it names."""

    log_id: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.log_id}.{self.sequence:016x}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor written as ``<log_id>.<sequence as 16 hex digits>``.

        Raises InvalidRequestError for anything else.
        """
        log_id, dot, digits = text.partition(".")
        lower_hex = set(string.hexdigits.lower())
        if (
            not dot
            or (len(log_id), len(digits)) != (LOG_ID_LENGTH, 16)
            or not lower_hex.issuperset(log_id + digits)
        ):
            raise InvalidRequestError(f"not a cursor: {text[:80]!r}")
        return cls(log_id, int(digits, 16))


@dataclass(frozen=True, slots=True)
class Batch:
    """The entries of one atomic write, under the sequence number it was given.

    ``committed_at`` is in microseconds since the Unix epoch and never less than the
    predecessor's. A batch delivered on a subscription holds the matching entries only.
    """

    sequence: int
    committed_at: int
    entries: tuple[Entry, ...]
    log_id: str

    @property
    def cursor(self) -> Cursor:
        """Resume after this batch: save it once the batch is finished with."""
        return Cursor(self.log_id, self.sequence)


_PREFIXES: Final = tuple(bytes([keyspace]) for keyspace in range(256))


def row_key(keyspace: int, key: bytes) -> bytes:
    """The key of a row in the table's one order: the keyspace's byte, then the key."""
    return _PREFIXES[keyspace] + key
