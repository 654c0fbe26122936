"""A regex as it is being read: the text, how far, the flags, and what it may still cost."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final, Never

from exo_stream.errors import InvalidRequestError
from exo_stream.regex.ranges import Ranges

REGEX_LENGTH_MAX: Final = 4_096
"""Characters of a regex."""
NESTING_MAX: Final = 64
"""Groups and classes within one another."""
RANGES_MAX: Final = 32_768
"""Ranges that the classes of one regex may add up to while they are put together."""

_PATTERN_SPACE: Final = frozenset("\t\n\v\f\r \u0085\u200e\u200f\u2028\u2029")
"""What ``(?x)`` skips: Pattern_White_Space."""


class InvalidRegexError(InvalidRequestError):
    """The text is no regex of the dialect, or one that this engine cannot do; ``at`` is where.

    It crosses the wire as the ``invalid_request`` it is.
    """

    def __init__(self, problem: str, at: int | None = None) -> None:
        super().__init__(problem if at is None else f"{problem}, at character {at + 1}")
        self.problem = problem
        self.at = at


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags in force at one place: i, m, s, U, u and x."""

    ignores_case: bool = False
    is_multi_line: bool = False
    dot_takes_newline: bool = False
    swaps_greed: bool = False
    is_unicode: bool = True
    is_verbose: bool = False


class Source:
    """The characters that are left to read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.flags = Flags()
        self._depth = 0
        self._ranges_left = RANGES_MAX

    @property
    def next(self) -> str:
        """The next character, "" at the end."""
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        """Read the next character; there must be one."""
        if self.at >= len(self.text):
            self.refuse("the regex ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def took(self, wanted: str) -> bool:
        """Read ``wanted``, if it comes next."""
        if not self.text.startswith(wanted, self.at):
            return False
        self.at += len(wanted)
        return True

    def take_until(self, end: str, problem: str) -> str:
        """Read up to ``end``, and ``end`` itself; what stood before it."""
        found = self.text.find(end, self.at)
        if found < 0:
            self.refuse(problem)
        word, self.at = self.text[self.at : found], found + len(end)
        return word

    def skip_space(self) -> None:
        """Skip space and comments, if they mean nothing here."""
        while self.flags.is_verbose and self.next:
            if self.next in _PATTERN_SPACE:
                self.at += 1
            elif self.next == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end + 1
            else:
                return

    def number(self) -> int | None:
        """Read a decimal number, if one comes next, and the space round it."""
        self._skip_any_space()
        start = self.at
        while self.next and self.next in string.digits:
            self.at += 1
        digits = self.text[start : self.at]
        self._skip_any_space()
        return int(digits[:20]) if digits else None

    def _skip_any_space(self) -> None:
        while self.next.isspace():
            self.at += 1

    def enter(self) -> None:
        """Go into a group or a class."""
        self._depth += 1
        if self._depth > NESTING_MAX:
            self.refuse(f"more than {NESTING_MAX} groups and classes within one another")

    def leave(self) -> None:
        """Come out again."""
        self._depth -= 1

    def spend(self, ranges: Ranges) -> Ranges:
        """Count ranges that were put together: many large classes are much work."""
        self._ranges_left -= len(ranges)
        if self._ranges_left < 0:
            self.refuse("the classes are too large together")
        return ranges

    def refuse(self, problem: str) -> Never:
        """Raise InvalidRegexError for what stands here."""
        raise InvalidRegexError(problem, self.at)
