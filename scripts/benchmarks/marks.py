"""Marks: eight bytes that every published value begins with, by which receivers count.

Redis, NATS and exo-stream wrap a message in heads of different and varying lengths. What they have
in common is the value, so a receiver counts values, the same way for all three, at memory speed.
"""

from __future__ import annotations

from typing import Final

MARK: Final = b"\x02exoMRK\x03"

INDEX_DIGITS: Final = 8

VALUE_BYTES: Final = 200


def marked(index: int, size: int = VALUE_BYTES) -> bytes:
    """A value of ``size`` bytes that can be counted, and told from the others."""
    head = MARK + b"%0*d" % (INDEX_DIGITS, index)
    return head + b"." * (size - len(head))


def index_at(buffer: bytes | bytearray, at: int) -> int:
    """The index of the value whose mark stands at ``at``."""
    start = at + len(MARK)
    return int(buffer[start : start + INDEX_DIGITS])
