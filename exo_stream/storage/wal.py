"""DuckDB's write-ahead log, read without DuckDB: where its transactions end, and what is damaged.

Worked out on DuckDB 2.0 (WAL version 2). A header without a checksum, then frames: a length and
a checksum of eight bytes each, little-endian, then the payload, which begins with its type and
ends with FF FF. Each transaction ends with a frame of type WAL_FLUSH, always the same 21 bytes.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, replace
from typing import Final

_WORD: Final = (1 << 64) - 1
_HEAD: Final = struct.Struct("<QQ")
_PAYLOAD_START: Final = b"\x64\x00"
_FIELD_END: Final = b"\xff\xff"
_VERSION_START: Final = b"\x64\x00\x62\x65\x00\x02\x66\x00\x10"
"""Type WAL_VERSION, version 2, and a list of 16 numbers: the id of the database file."""
_ITERATION_FIELD: Final = b"\x67\x00"
_HEADER_MAX: Final = len(_VERSION_START) + 16 * 2 + len(_ITERATION_FIELD) + 10 + len(_FIELD_END)
_FLUSH_PAYLOAD: Final = b"\x64\x00\x64\xff\xff"


def checksum(payload: bytes) -> int:
    """DuckDB's checksum of a frame: every word multiplied and XORed; a murmur for the rest."""
    whole = len(payload) & ~7
    result = 5381
    for word in array("Q", payload[:whole]):
        result ^= word * 0xBF58476D1CE4E5B9
    if whole < len(payload):
        result ^= _checksum_of_rest(payload[whole:])
    return result & _WORD


def _checksum_of_rest(rest: bytes) -> int:
    factor, shift = 0xC6A4A7935BD1E995, 47
    state = 0xE17A1465 ^ (len(rest) * factor & _WORD)
    state = (state ^ int.from_bytes(rest, "little")) * factor & _WORD
    state = (state ^ state >> shift) * factor & _WORD
    return state ^ state >> shift


FLUSH: Final = _HEAD.pack(len(_FLUSH_PAYLOAD), checksum(_FLUSH_PAYLOAD)) + _FLUSH_PAYLOAD
"""The frame that ends a transaction."""


@dataclass(frozen=True, slots=True)
class WalScan:
    """What a WAL holds: ``transactions`` intact ones, the last of which ends at ``intact_bytes``.

    ``damage`` says what is wrong behind that, ``None`` if the WAL ends there. ``flush_follows``
    tells whether a later transaction ends behind the damage: then what is damaged was followed
    by more, so it had been made durable. ``flush_at_end`` tells whether the damaged transaction
    is the last and its own end is there. ``header_lost`` tells that the log does not begin as
    one does, and that no torn first write explains it: DuckDB would take it for an empty one.
    """

    size: int
    intact_bytes: int
    transactions: int
    damage: str | None
    flush_follows: bool
    flush_at_end: bool
    header_lost: bool = False


def scan(data: bytes) -> WalScan:
    """Read every frame of a WAL and verify its checksum."""
    return _scan(data, verify=True)


def scan_structure(data: bytes) -> WalScan:
    """Only follow the lengths: DuckDB verifies checksums itself, but takes a damaged length for
    the end of the log, and would silently drop whatever follows.
    """
    return _scan(data, verify=False)


def _scan(data: bytes, *, verify: bool) -> WalScan:
    at = _header_end(data)
    if at is None:
        if _is_torn_birth(data):
            return _damaged(data, 0, 0, "its first write is not complete")
        return replace(_damaged(data, 0, 0, "its header is damaged"), header_lost=True)
    intact, transactions = at, 0
    while at < len(data):
        end, damage = _frame_end(data, at, verify=verify)
        if damage is not None:
            return _damaged(data, intact, transactions, damage)
        if data.startswith(FLUSH, at):
            intact, transactions = end, transactions + 1
        at = end
    if at != intact:
        return _damaged(data, intact, transactions, "its last transaction is not complete")
    return WalScan(len(data), intact, transactions, None, False, False)


def _frame_end(data: bytes, at: int, *, verify: bool) -> tuple[int, str | None]:
    start = at + _HEAD.size
    if start > len(data):
        return at, f"the frame at byte {at} is cut off"
    size, expected = _HEAD.unpack_from(data, at)
    end = start + size
    if end > len(data):
        return at, f"the frame at byte {at} is cut off, or its length is damaged"
    whole = data.startswith(_PAYLOAD_START, start) and data.endswith(_FIELD_END, start, end)
    if not whole or (verify and checksum(data[start:end]) != expected):
        return at, f"the frame at byte {at} does not match its checksum"
    return end, None


def _damaged(data: bytes, intact: int, transactions: int, damage: str) -> WalScan:
    # A filesystem may have made the file longer before it wrote the bytes: zeros say nothing.
    end = len(data.rstrip(b"\0")) if data.endswith(b"\0") else len(data)
    last = end - len(FLUSH)
    # The end of a transaction may be what is damaged: either part of it gives it away.
    follows = any(
        0 <= data.find(part, intact) < last + FLUSH.index(part)
        for part in (FLUSH[8:16], _FLUSH_PAYLOAD)
    )
    return WalScan(
        size=len(data),
        intact_bytes=intact,
        transactions=transactions,
        damage=damage,
        flush_follows=follows,
        flush_at_end=last >= intact and data.startswith(FLUSH, last),
    )


def _is_torn_birth(data: bytes) -> bool:
    """Whether a power cut leaves this of the first write: some of the header, or only its size."""
    if not data.strip(b"\0"):
        return True
    if len(data) >= _HEADER_MAX or not _VERSION_START.startswith(data[: len(_VERSION_START)]):
        return False
    at = len(_VERSION_START)
    for _ in range(16):
        at = _varint_end(data, at)
    rest = data[at:]
    if not _ITERATION_FIELD.startswith(rest[: len(_ITERATION_FIELD)]):
        return False
    rest = rest[_varint_end(rest, len(_ITERATION_FIELD)) :]
    return _FIELD_END.startswith(rest)


def _header_end(data: bytes) -> int | None:
    if not data.startswith(_VERSION_START):
        return None
    at = len(_VERSION_START)
    for _ in range(16):
        at = _varint_end(data, at)
    if not data.startswith(_ITERATION_FIELD, at):
        return None
    at = _varint_end(data, at + len(_ITERATION_FIELD))
    return at + len(_FIELD_END) if data.startswith(_FIELD_END, at) else None


def _varint_end(data: bytes, at: int) -> int:
    while at < len(data) and data[at] & 0x80:
        at += 1
    return at + 1
