"""What follows a backslash, within a class and outside."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final, Never

from exo_stream.regex import characters
from exo_stream.regex.ranges import OCTETS, SCALARS, Ranges, difference
from exo_stream.regex.source import Source


@dataclass(frozen=True, slots=True)
class Literal:
    """One character, or one byte that no character stands for."""

    code: int
    is_octet: bool = False


_PLAIN: Final = {"a": 0x07, "f": 0x0C, "t": 0x09, "n": 0x0A, "r": 0x0D, "v": 0x0B}
_ESCAPEABLE: Final = frozenset(map(chr, range(0x80))) - {
    *string.ascii_letters,
    *string.digits,
    "<",
    ">",
}
_HEX_DIGITS: Final = {"x": 2, "u": 4, "U": 8}


def take_escape(source: Source) -> Literal | Ranges | str:
    """Read what follows a backslash: a character, a class, or the letter of an assertion."""
    letter = source.take()
    if letter in _PLAIN or letter in _ESCAPEABLE:
        return Literal(_PLAIN.get(letter, ord(letter)))
    if letter in _HEX_DIGITS:
        return _take_number(source, letter)
    if letter in "dDsSwW":
        return _perl_class(source, letter)
    if letter in "pP":
        return _take_property(source, is_negated=letter == "P")
    if letter in "AzbB":
        return letter
    if letter in string.digits:
        _refuse(source, "there are no back-references and no octal numbers")
    return _refuse(source, f"there is no escape \\{letter}")


def _refuse(source: Source, problem: str) -> Never:
    source.at -= 1
    source.refuse(problem)


def _take_number(source: Source, letter: str) -> Literal:
    source.skip_space()
    if is_braced := source.took("{"):
        digits = source.take_until("}", "a brace is not closed").strip()
    else:
        digits = source.text[source.at : source.at + _HEX_DIGITS[letter]]
        source.at += len(digits)
    is_whole = is_braced or len(digits) == _HEX_DIGITS[letter]
    if not is_whole or not digits or not set(digits) <= set(string.hexdigits):
        source.refuse(f"{digits[:20]!r} is no hexadecimal number")
    code = int(digits, 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        source.refuse(f"{digits[:20]} is no character")
    is_octet = letter == "x" and not is_braced and not source.flags.is_unicode and code > 0x7F
    return Literal(code, is_octet)


def _perl_class(source: Source, letter: str) -> Ranges:
    is_unicode = source.flags.is_unicode
    match letter.lower():
        case "d":
            found = characters.digits() if is_unicode else characters.ASCII_CLASSES["digit"]
        case "s":
            found = characters.SPACE if is_unicode else characters.ASCII_CLASSES["space"]
        case _:
            found = characters.word() if is_unicode else characters.ASCII_CLASSES["word"]
    return source.spend(difference(universe(source), found) if letter.isupper() else found)


def universe(source: Source) -> Ranges:
    """Everything that a class can name here: characters, or bytes."""
    return SCALARS if source.flags.is_unicode else OCTETS


def _take_property(source: Source, *, is_negated: bool) -> Ranges:
    if not source.flags.is_unicode:
        _refuse(source, "there are no classes of Unicode where it is switched off")
    source.skip_space()
    if source.took("{"):
        name = source.take_until("}", "a brace is not closed").strip()
    else:
        name = source.take()
    for form in ("gc=", "gc:", "general_category=", "generalcategory=", "general_category:"):
        name = name[len(form) :] if name.lower().startswith(form) else name
    found = characters.named(name)
    if found is None:
        source.refuse(f"no class {name[:40]!r} here: only general categories, any and ascii")
    if source.flags.ignores_case:
        found = characters.folded(source.spend(found))
    return source.spend(difference(SCALARS, found) if is_negated else found)
