"""A picture redrawn in place: one write a frame, nothing hidden, nothing to undo after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_BEGIN: Final = "\x1b[?2026h"
_END: Final = "\x1b[?2026l"
"""Terminals that know synchronized updates show a frame at once; others ignore these."""
_CLEAR: Final = "\x1b[2J\x1b[H"


class Redrawn:
    """Turns frames into what to write so that each replaces the one before.

    No alternate screen and no hidden cursor: a process that is killed leaves the terminal usable,
    its last frame on it.
    """

    def __init__(self) -> None:
        self._lines = 0
        self._size = (0, 0)

    def draw(self, lines: Sequence[str], *, size: tuple[int, int]) -> str:
        """What to write for ``lines``, on a terminal that has this size now."""
        up = ""
        if self._lines and size != self._size:
            up = _CLEAR  # a terminal of another size has wrapped the old frame, nobody knows how
        elif self._lines:
            up = f"\x1b[{self._lines}A\r"
        self._lines, self._size = len(lines), size
        body = "".join([f"{line}\x1b[K\n" for line in lines])
        return f"{_BEGIN}{up}{body}\x1b[J{_END}"
