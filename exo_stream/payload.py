"""The bytes of a batch: CBOR ``[[keyspace, key, value|null], …]``, encoded once, used everywhere.

The same bytes stand in the log, in the tail and in every frame of an unfiltered subscriber.
What belongs to a producer is bookkeeping that no subscriber sees; it comes first in a batch, so
that it can be cut off by reading a few heads instead of decoding everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cbor2

from exo_stream.model import Entry, Keyspace

ENTRY_BYTES: Final = 160
"""What a decoded entry costs in memory beside its bytes: a tuple and two byte strings."""

NONE: Final = b"\x80"
"""The payload without entries."""

_ENTRY_OF_PRODUCER: Final = b"\x83\x01"
"""How an entry begins whose keyspace is PRODUCER: an array of three, then the number 1."""


class EncodedBatch:
    """One batch as the log keeps it: its number, its time, and its payload.

    It is made from its payload or from its entries; the other one is made when first asked for,
    and kept. So all in-process readers of the tail share one decoding, and a batch that travels
    as bytes is never decoded.
    """

    __slots__ = ("_entries", "_payload", "committed_at", "sequence")

    def __init__(
        self,
        sequence: int,
        committed_at: int,
        payload: bytes | None = None,
        entries: tuple[Entry, ...] | None = None,
    ) -> None:
        assert payload is not None or entries is not None
        self.sequence = sequence
        self.committed_at = committed_at
        self._payload = payload
        self._entries = entries

    @property
    def payload(self) -> bytes:
        """The entries as CBOR."""
        if self._payload is None:
            assert self._entries is not None
            self._payload = encode_entries(self._entries)
        return self._payload

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every entry in write order, those of the PRODUCER keyspace included."""
        if self._entries is None:
            assert self._payload is not None
            self._entries = decode_entries(self._payload)
        return self._entries

    def __repr__(self) -> str:
        return f"EncodedBatch({self.sequence})"


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """The payload of a batch of these entries."""
    return cbor2.dumps(entries)


def decode_entries(payload: bytes) -> tuple[Entry, ...]:
    """The entries of a payload that we encoded ourselves and whose checksum holds."""
    return tuple([Entry(*entry) for entry in cbor2.loads(payload)])


def count_entries(payload: bytes) -> int:
    """How many entries a payload holds, without decoding it."""
    return _head(payload, 0)[0]


def prepend(hidden: Sequence[Entry], payload: bytes) -> bytes:
    """``payload`` with the PRODUCER entries ``hidden`` before its own, without re-encoding it."""
    count, start = _head(payload, 0)
    body = b"".join([cbor2.dumps(entry) for entry in hidden])
    return _array_head(count + len(hidden)) + body + payload[start:]


def visible(payload: bytes) -> bytes:
    """The part of a payload that subscribers to the store may see.

    That is all but the leading PRODUCER entries, if what follows belongs to STORE; a batch of
    another face has no such part, and the answer is the empty array.
    """
    count, start = _head(payload, 0)
    end, hidden = start, 0
    while payload.startswith(_ENTRY_OF_PRODUCER, end):
        end = _skip_string(payload, _skip_string(payload, end + len(_ENTRY_OF_PRODUCER)))
        hidden += 1
    if hidden == count or payload[end + 1] != Keyspace.STORE:
        return NONE
    return payload if not hidden else _array_head(count - hidden) + payload[end:]


def _skip_string(data: bytes, at: int) -> int:
    if data[at] == 0xF6:  # null: a deletion
        return at + 1
    length, start = _head(data, at)
    return start + length


def _head(data: bytes, at: int) -> tuple[int, int]:
    """The argument of the CBOR head at ``at``, and where its content starts (RFC 8949, 3)."""
    additional = data[at] & 0x1F
    if additional < 24:
        return additional, at + 1
    width = 1 << (additional - 24)
    return int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width


def _array_head(count: int) -> bytes:
    if count < 24:
        return bytes([0x80 | count])
    width_code = 24 if count < 1 << 8 else 25 if count < 1 << 16 else 26
    return bytes([0x80 | width_code]) + count.to_bytes(1 << (width_code - 24), "big")
