"""How many items a CBOR text holds, told by their heads alone: none of them is built.

Every byte of a text is the first of an item or belongs to the item whose head is before it.
Nesting does not matter for counting.
"""

from __future__ import annotations

from typing import Final

_STRINGS: Final = (2, 3)
"""The major types whose content is skipped: byte strings and texts."""


def _step(first: int) -> int:
    """How far it is from a head with this first byte to the next; 0 if its length must be read."""
    major, low = first >> 5, first & 0x1F
    if low >= 28:
        return 1
    if major not in _STRINGS:
        return 1 if low < 24 else 1 + (1 << low - 24)
    return 1 + low if low < 24 else 0


_STEPS: Final = tuple(map(_step, range(256)))


def holds_more_than(text: bytes, items_max: int) -> bool:
    """Whether more items than that are in it; says no to what ends in the middle of one.

    It looks at so many heads at most, and at fewer if much is content of strings: it stops as
    soon as the bytes that are left would not suffice.
    """
    # So many bytes must turn out to be no item's first before there are few enough.
    surplus = len(text) - items_max
    at = 0
    for _ in range(items_max):
        if surplus <= 0:
            break
        first = text[at]
        step = _STEPS[first]
        if not step:
            step = _string_bytes(text, at) if first & 0x1F > 24 else 2 + text[at + 1]
        at += step
        surplus -= step - 1
    return surplus > 0


def _string_bytes(text: bytes, at: int) -> int:
    """The length of the string whose head is at ``at``, head included."""
    content = at + 1 + (1 << (text[at] & 0x1F) - 24)
    return content - at + int.from_bytes(text[at + 1 : content], "big")
