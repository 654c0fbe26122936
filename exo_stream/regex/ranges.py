"""Sets of numbers as ranges: of bytes, and of Unicode scalar values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Ranges = tuple[tuple[int, int], ...]
"""Inclusive, ascending, and none touches the next."""

OCTETS: Final[Ranges] = ((0, 0xFF),)
SCALARS: Final[Ranges] = ((0, 0xD7FF), (0xE000, 0x10FFFF))
"""Every code point but the surrogates: what UTF-8 can say."""


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The union of any ranges."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def intersection(left: Ranges, right: Ranges) -> Ranges:
    """What is in both."""
    found: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        low, high = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if low <= high:
            found.append((low, high))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def difference(left: Ranges, right: Ranges) -> Ranges:
    """What is in ``left`` and not in ``right``."""
    gaps: list[tuple[int, int]] = []
    start = 0
    for low, high in right:
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    gaps.append((start, 0x10FFFF))
    return intersection(left, tuple(gaps))
