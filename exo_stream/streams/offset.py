"""Offsets of a stream: where a message ends, written so that text order is stream order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from exo_stream.stream_errors import InvalidOffsetError

POSITION_MAX: Final = 10**16 - 1
"""Sixteen digits: a stream ends before ten petabytes."""

_TOKEN: Final = re.compile(r"([0-9]{16})_([0-9]{16})")


@dataclass(frozen=True, slots=True, order=True)
class Offset:
    """``position`` bytes of messages stand before it; a message's offset is where it ends.

    ``generation`` is 0 in every offset that we give; one that a caller brings with another number
    is greater than all of them. ``Offset.now()`` is the tail at the time of the read.
    """

    generation: int
    position: int

    @classmethod
    def at(cls, position: int) -> Offset:
        """The offset with so many bytes of messages before it."""
        return cls(0, position)

    @classmethod
    def start(cls) -> Offset:
        """Before the first message."""
        return START

    @classmethod
    def now(cls) -> Offset:
        """The tail, wherever it is when the read is made."""
        return NOW

    @classmethod
    def parse(cls, token: str) -> Offset:
        """The offset written as ``token``; ``-1`` is the start and ``now`` the tail.

        Raises InvalidOffsetError for anything that is not exactly an offset.
        """
        if token == "-1":  # noqa: S105  no secret
            return START
        if token == "now":  # noqa: S105  likewise
            return NOW
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise InvalidOffsetError(f"not an offset: {token[:80]!r}")
        return cls(int(match[1]), int(match[2]))

    @property
    def is_now(self) -> bool:
        return self.generation < 0

    def within(self, tail: int) -> int:
        """The position a read begins at in a stream whose tail is ``tail``; never beyond it."""
        return tail if self.generation else min(self.position, tail)

    def __str__(self) -> str:
        return "now" if self.is_now else f"{self.generation:016d}_{self.position:016d}"


START: Final = Offset(0, 0)
NOW: Final = Offset(-1, 0)

Where = Offset | str
"""What the Storage methods take as an offset: the value, or its token."""


def offset_of(where: Where) -> Offset:
    """The offset that a caller gave as a value or as a token."""
    if isinstance(where, Offset):
        return where
    if isinstance(where, str):
        return Offset.parse(where)
    raise InvalidOffsetError("an offset is an Offset, or its token")
