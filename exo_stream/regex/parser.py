"""Reads a regex of Rust's ``regex::bytes`` and says what it means.

Unicode is on unless ``u`` is switched off: then ``.`` and classes are of characters in UTF-8, and
match no byte that is not part of one. Flags are done with here: the tree has none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from exo_stream.regex import characters
from exo_stream.regex.brackets import take_class
from exo_stream.regex.escapes import Literal, take_escape, universe
from exo_stream.regex.ranges import Ranges, difference
from exo_stream.regex.source import REGEX_LENGTH_MAX, InvalidRegexError, Source
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

COUNT_MAX: Final = 1_000
"""The largest number in ``x{n,m}``: RE2 counts no further."""

_FLAGS: Final = {
    "i": "ignores_case",
    "m": "is_multi_line",
    "s": "dot_takes_newline",
    "U": "swaps_greed",
    "u": "is_unicode",
    "x": "is_verbose",
}
_NEWLINE: Final[Ranges] = ((0x0A, 0x0A),)
_NOTHING: Final = Octets(b"")


def parse(text: str) -> Node:
    """What ``text`` means. Raises InvalidRegexError if it is no regex of the dialect."""
    if type(text) is not str or not text.strip():
        raise InvalidRegexError("text that is not blank is needed")
    if len(text) > REGEX_LENGTH_MAX:
        raise InvalidRegexError(f"a regex has at most {REGEX_LENGTH_MAX} characters")
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._source = Source(text)
        self._names: set[str] = set()

    def whole(self) -> Node:
        node = self._choice()
        if self._source.next:
            self._source.refuse("a group is closed that was not opened")
        return node

    def _choice(self) -> Node:
        branches = [self._sequence()]
        while self._source.took("|"):
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _sequence(self) -> Node:
        source, nodes = self._source, list[Node]()
        is_repeatable = False
        while True:
            source.skip_space()
            if not source.next or source.next in "|)":
                return nodes[0] if len(nodes) == 1 else Sequence(tuple(nodes))
            if source.next in "*+?{":
                if not is_repeatable:
                    source.refuse("there is nothing to repeat")
                nodes[-1] = self._repeat(nodes[-1])
                continue
            node = self._item()
            is_repeatable = node is not None
            if node is not None:
                nodes.append(node)

    def _item(self) -> Node | None:
        """Read one item; None if it was only flags."""
        source = self._source
        node: Node | None
        match source.take():
            case "(":
                node = self._group()
            case "[":
                node = self._one_of(take_class(source))
            case ".":
                node = self._one_of(self._dot())
            case "^":
                node = Assertion("(?m:^)" if source.flags.is_multi_line else r"\A")
            case "$":
                node = Assertion("(?m:$)" if source.flags.is_multi_line else r"\z")
            case "\\":
                node = self._escape()
            case character:
                node = self._literal(Literal(ord(character)))
        return node

    def _one_of(self, ranges: Ranges) -> Node:
        return OneCharacter(ranges) if self._source.flags.is_unicode else OneOctet(ranges)

    def _dot(self) -> Ranges:
        everything = universe(self._source)
        if self._source.flags.dot_takes_newline:
            return everything
        return difference(everything, _NEWLINE)

    def _escape(self) -> Node:
        source = self._source
        found = take_escape(source)
        if isinstance(found, Literal):
            return self._literal(found)
        if not isinstance(found, str):
            return self._one_of(found)
        if found in "Az":
            return Assertion(rf"\{found}")
        if source.next == "{" and source.text[source.at + 1 : source.at + 2].isalpha():
            source.refuse("half word boundaries are not supported")
        if source.flags.is_unicode:
            source.refuse(rf"a word boundary of Unicode is not supported; write (?-u:\{found})")
        return Assertion(rf"\{found}")

    def _literal(self, literal: Literal) -> Node:
        code, flags = literal.code, self._source.flags
        if flags.ignores_case:
            if flags.is_unicode:
                cases = self._source.spend(characters.folded(((code, code),)))
                if cases != ((code, code),):
                    return OneCharacter(cases)
            elif code <= 0x7F:
                return OneOctet(characters.folded_octets(((code, code),)))
        return Octets(bytes([code]) if literal.is_octet else _utf8(self._source, code))

    def _repeat(self, node: Node) -> Node:
        source = self._source
        least, most = self._bounds(source.take())
        is_greedy = not source.took("?")
        return Repeat(node, least, most, is_greedy is not source.flags.swaps_greed)

    def _bounds(self, operator: str) -> tuple[int, int | None]:
        match operator:
            case "*":
                return 0, None
            case "+":
                return 1, None
            case "?":
                return 0, 1
            case _:
                return self._counted()

    def _counted(self) -> tuple[int, int | None]:
        source = self._source
        least = most = source.number()
        if source.took(","):
            most = source.number()
        if least is None:
            source.refuse("a number is missing in a count")
        if not source.took("}"):
            source.refuse("a count is not closed")
        if max(least, most or 0) > COUNT_MAX:
            source.refuse(f"a count is at most {COUNT_MAX}")
        if most is not None and most < least:
            source.refuse("a count ends before it begins")
        return least, most

    def _group(self) -> Node | None:
        source = self._source
        opened, flags = source.at - 1, source.flags
        source.enter()
        name = None
        source.skip_space()
        if source.took("?P<") or self._is_named():
            name = self._name()
        elif source.took("?") and self._took_flags():
            source.leave()
            return None
        node = self._choice()
        if not source.took(")"):
            source.at = opened
            source.refuse("a group is not closed")
        source.leave()
        source.flags = flags
        return node if name is None else Capture(name, node)

    def _is_named(self) -> bool:
        source = self._source
        if source.text.startswith(("?=", "?!", "?<=", "?<!"), source.at):
            source.refuse("there is no look-around: it takes more than linear time")
        return source.took("?<")

    def _name(self) -> str:
        source = self._source
        name = source.take_until(">", "the name of a group is not closed")
        first, rest = name[:1], name[1:].translate(dict.fromkeys(map(ord, "_.[]"), "a"))
        if not (first == "_" or first.isalpha()) or not (not rest or rest.isalnum()):
            source.refuse(f"{name[:40]!r} is no name of a group")
        if name in self._names:
            source.refuse(f"there are two groups named {name[:40]!r}")
        self._names.add(name)
        return name

    def _took_flags(self) -> bool:
        """Read flags; whether they are for all that follows, not for a group that begins here."""
        source = self._source
        changes: dict[str, bool] = {}
        value, is_dangling = True, False
        while (letter := source.take()) not in ":)":
            if letter == "-" and value:
                value, is_dangling = False, True
                continue
            field = _FLAGS.get(letter)
            if field is None or field in changes:
                source.at -= 1
                source.refuse(f"{letter!r} is no flag here; there are {''.join(_FLAGS)}")
            changes[field] = value
            is_dangling = False
        if is_dangling or (letter == ")" and not changes):
            source.refuse("a flag is missing")
        source.flags = replace(source.flags, **changes)
        return letter == ")"


def _utf8(source: Source, code: int) -> bytes:
    if 0xD800 <= code <= 0xDFFF:
        source.refuse("half of a surrogate pair is no character")
    return chr(code).encode()
