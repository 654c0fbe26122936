"""Patterns of stream names: ``*`` is one segment, ``**`` any number of them, none included."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

PATTERNS_MAX: Final = 1_024
"""Patterns that are kept taken apart."""


def matches(pattern: str, name: str) -> bool:
    """Whether ``name`` is one that ``pattern`` means; ``%2A`` in a pattern is an asterisk itself.

    The time it takes grows with the product of both numbers of segments at most, whatever the
    pattern: a stranger wrote it.
    """
    parts = _parts(pattern)
    reached = {0}
    reached = _past_any(parts, reached)
    for segment in name.split("/"):
        after = set[int]()
        for at in reached:
            if at == len(parts):
                continue
            if parts[at] == "**":
                after.add(at)
            elif parts[at] == "*" or _literal(parts[at]) == segment:
                after.add(at + 1)
        reached = _past_any(parts, after)
        if not reached:
            return False
    return len(parts) in reached


def literal_prefix(pattern: str) -> str:
    """How every name begins that the pattern means."""
    parts = _parts(pattern)
    literal: list[str] = []
    for part in parts:
        if part in {"*", "**"}:
            # What ``**`` means may be nothing at all, the slash before it included.
            prefix = "/".join(literal)
            return prefix + "/" if literal and part == "*" else prefix
        literal.append(_literal(part))
    return "/".join(literal)


@lru_cache(PATTERNS_MAX)
def _parts(pattern: str) -> Sequence[str]:
    return tuple(pattern.split("/"))


def _literal(part: str) -> str:
    return part.replace("%2A", "*").replace("%2a", "*")


def _past_any(parts: Sequence[str], reached: set[int]) -> set[int]:
    """With the places that are reached without a segment."""
    found = set(reached)
    for at in reached:
        after = at
        while after < len(parts) and parts[after] == "**":
            after += 1
            found.add(after)
    return found
