"""A regex for RE2, over bytes: what a tree means, in RE2's own words."""

from __future__ import annotations

from typing import Final, assert_never

from exo_stream.regex.source import InvalidRegexError
from exo_stream.regex.tree import (
    Assertion,
    Capture,
    Choice,
    Node,
    Octets,
    OneCharacter,
    OneOctet,
    Repeat,
    Sequence,
)
from exo_stream.regex.utf8 import character_class, octet_class

TEXT_LENGTH_MAX: Final = 256 * 1024
"""Characters of a translation: classes of characters are long when they are spelt in bytes."""


def translate(tree: Node, *, captures: bool) -> str:
    """The regex in ASCII, for RE2 in its Latin-1 mode, where a character is a byte.

    Its groups are the named ones, in their order, or none without ``captures``. Raises
    InvalidRegexError if it would be too long.
    """
    pieces: list[str] = []
    _Translation(pieces, captures=captures).add(tree)
    return "".join(pieces)


class _Translation:
    def __init__(self, pieces: list[str], *, captures: bool) -> None:
        self._pieces = pieces
        self._captures = captures
        self._left = TEXT_LENGTH_MAX

    def add(self, node: Node) -> None:
        match node:
            case Octets(octets):
                self._say("".join([octet_class(((octet, octet),)) for octet in octets]))
            case OneOctet(ranges):
                self._say(octet_class(ranges))
            case OneCharacter(ranges):
                self._say(character_class(ranges))
            case Assertion(text):
                self._say(text)
            case Sequence(nodes):
                self._each(nodes, "")
            case Choice(nodes):
                self._say("(?:")
                self._each(nodes, "|")
                self._say(")")
            case Capture(_, inner):
                self._say("(" if self._captures else "(?:")
                self.add(inner)
                self._say(")")
            case Repeat(inner, least, most, is_greedy):
                self._say("(?:")
                self.add(inner)
                self._say(")" + _count(least, most) + ("" if is_greedy else "?"))
            case _:
                assert_never(node)

    def _each(self, nodes: tuple[Node, ...], between: str) -> None:
        for index, node in enumerate(nodes):
            self._say(between if index else "")
            self.add(node)

    def _say(self, text: str) -> None:
        self._left -= len(text)
        if self._left < 0:
            raise InvalidRegexError("the regex is too large: its classes hold too much of Unicode")
        self._pieces.append(text)


def _count(least: int, most: int | None) -> str:
    match least, most:
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case 0, 1:
            return "?"
        case _, None:
            return f"{{{least},}}"
        case _:
            return f"{{{least},{most}}}"


def names(tree: Node) -> tuple[str, ...]:
    """The names of the captures, in the order of their groups."""
    match tree:
        case Capture(name, inner):
            return (name, *names(inner))
        case Repeat(inner):
            return names(inner)
        case Sequence(nodes) | Choice(nodes):
            return tuple([name for node in nodes for name in names(node)])
        case _:
            return ()
