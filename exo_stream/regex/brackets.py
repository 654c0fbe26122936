"""Classes in brackets: ranges, classes within classes, and what is done to two of them."""

from __future__ import annotations

from typing import Final

from exo_stream.regex import characters
from exo_stream.regex.escapes import Literal, take_escape, universe
from exo_stream.regex.ranges import Ranges, difference, intersection, merged
from exo_stream.regex.source import Source

_OPERATORS: Final = ("&&", "--", "~~")


def take_class(source: Source) -> Ranges:
    """Read a class whose opening bracket has been read, and its closing one."""
    source.enter()
    opened = source.at - 1
    source.skip_space()
    is_negated = source.took("^")
    source.skip_space()
    found: Ranges | None = None
    operator = ""
    is_first = True
    while True:
        operand = _take_union(source, opened, is_first=is_first)
        found = operand if found is None else _combined(operator, found, operand)
        source.spend(found)
        is_first = False
        operator = next((o for o in _OPERATORS if source.took(o)), "")
        if not operator:
            break
    source.take()  # the closing bracket: nothing else ends a union
    source.leave()
    if source.flags.ignores_case:
        found = _folded(source, found)
    return source.spend(difference(universe(source), found) if is_negated else found)


def _combined(operator: str, left: Ranges, right: Ranges) -> Ranges:
    match operator:
        case "&&":
            return intersection(left, right)
        case "--":
            return difference(left, right)
        case _:
            return merged([*difference(left, right), *difference(right, left)])


def _folded(source: Source, ranges: Ranges) -> Ranges:
    fold = characters.folded if source.flags.is_unicode else characters.folded_octets
    return source.spend(fold(ranges))


def _take_union(source: Source, opened: int, *, is_first: bool) -> Ranges:
    """Read what stands side by side, up to an operator or the end of the class."""
    parts: dict[Ranges, None] = {}
    if is_first:
        while source.took("-"):  # at its beginning a hyphen is one
            parts[((0x2D, 0x2D),)] = None
            source.skip_space()
        if not parts and source.took("]"):  # and so is a bracket
            parts[((0x5D, 0x5D),)] = None
    while True:
        source.skip_space()
        if not source.next:
            source.at = opened
            source.refuse("a class is not closed")
        if source.next == "]" or source.text.startswith(_OPERATORS, source.at):
            break
        parts[_take_item(source)] = None
    union = merged([span for part in parts for span in source.spend(part)])
    # Each operand has its cases added by itself, as its complement could not have afterwards.
    return _folded(source, union) if source.flags.ignores_case else union


def _take_item(source: Source) -> Ranges:
    if source.took("[:"):
        found = _take_ascii_class(source)
        if found is not None:
            return found
        source.at -= 2
    if source.took("["):
        return take_class(source)
    first = _take_member(source)
    if not isinstance(first, Literal):
        return first
    low = _code(source, first)
    source.skip_space()
    if source.next != "-" or source.text[source.at + 1 : source.at + 2] in {"]", "-", ""}:
        return ((low, low),)
    source.take()
    source.skip_space()
    last = _take_member(source)
    if not isinstance(last, Literal):
        source.refuse("a range ends with a character, not with a class")
    high = _code(source, last)
    if high < low:
        source.refuse("a range ends before it begins")
    return _without_surrogates(source, low, high)


def _without_surrogates(source: Source, low: int, high: int) -> Ranges:
    return intersection(universe(source), ((low, high),))


def _take_member(source: Source) -> Literal | Ranges:
    if not source.took("\\"):
        return Literal(ord(source.take()))
    found = take_escape(source)
    if isinstance(found, str):
        source.refuse(f"\\{found} is no character")
    return found


def _code(source: Source, literal: Literal) -> int:
    if not source.flags.is_unicode and not literal.is_octet and literal.code > 0x7F:
        source.refuse("a class of bytes holds no other characters than those of ASCII")
    return literal.code


def _take_ascii_class(source: Source) -> Ranges | None:
    """Read the rest of a class such as ``[:alpha:]``; None, and nothing read, if it is none."""
    start = source.at
    end = source.text.find(":]", start)
    name = source.text[start:end] if end >= 0 else ""
    found = characters.ASCII_CLASSES.get(name.removeprefix("^"))
    if found is None:
        return None
    source.at = end + 2
    return difference(universe(source), found) if name.startswith("^") else found
