"""A set of characters as a regex over the bytes of their UTF-8 encodings, and nothing else."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from exo_stream.regex.ranges import Ranges, intersection, merged

_LENGTHS: Final = (
    # The characters whose encoding has so many bytes after its first, and what marks the first.
    (0, 0x00, (0x00, 0x7F)),
    (1, 0xC0, (0x80, 0x7FF)),
    (2, 0xE0, (0x800, 0xFFFF)),
    (3, 0xF0, (0x10000, 0x10FFFF)),
)


def octet_class(ranges: Ranges) -> str:
    """One byte of these, as RE2 writes it; of none, what matches nothing."""
    if not ranges:
        return r"[^\x00-\xff]"
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return rf"\x{ranges[0][0]:02x}"
    parts = [
        rf"\x{low:02x}" if low == high else rf"\x{low:02x}-\x{high:02x}" for low, high in ranges
    ]
    return f"[{''.join(parts)}]"


@lru_cache(maxsize=64)
def character_class(ranges: Ranges) -> str:
    """One character of these, of which none may be a surrogate."""
    choices = [
        choice
        for following, mark, span in _LENGTHS
        if (part := intersection(ranges, (span,)))
        for choice in _encodings(part, following, mark)
    ]
    if len(choices) == 1:
        return choices[0]
    return f"(?:{'|'.join(choices)})" if choices else octet_class(())


def _encodings(ranges: Ranges, following: int, mark: int) -> list[str]:
    """What encodes these, ``following`` bytes of six bits each after a first one."""
    if not following:
        return [octet_class(tuple([(mark | low, mark | high) for low, high in ranges]))]
    width = 6 * following
    rests: dict[int, list[tuple[int, int]]] = {}
    for low, high in ranges:
        for head in range(low >> width, (high >> width) + 1):
            base = head << width
            rest = (max(low, base) - base, min(high, base + (1 << width) - 1) - base)
            rests.setdefault(head, []).append(rest)
    heads: dict[Ranges, list[int]] = {}
    for head, rest_ranges in rests.items():
        heads.setdefault(tuple(rest_ranges), []).append(mark | head)
    found = []
    for rest_key, firsts in heads.items():
        choices = _encodings(rest_key, following - 1, 0x80)
        tail = choices[0] if len(choices) == 1 else f"(?:{'|'.join(choices)})"
        found.append(octet_class(merged([(first, first) for first in firsts])) + tail)
    return found
