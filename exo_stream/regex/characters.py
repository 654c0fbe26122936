"""Which characters a class names, and which are the same but for their case.

Python's own Unicode tables say it, so a character that is newer than they are is in no class.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import chain
from typing import Final

from exo_stream.regex.ranges import SCALARS, Ranges, difference, intersection, merged

SPACE: Final[Ranges] = (
    (0x09, 0x0D), (0x20, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
    (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
"""White_Space."""

_LETTERED: Final[Ranges] = (
    (0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189),
)  # fmt: skip
"""Symbols that count as letters: those of Other_Alphabetic that are no marks."""

_JOINERS: Final[Ranges] = ((0x200C, 0x200D),)
_PRIVATE_PLANES: Final[Ranges] = ((0xF0000, 0xFFFFD), (0x100000, 0x10FFFD))
_CASED_MAX: Final = 0x1FFFF

ASCII_CLASSES: Final[dict[str, Ranges]] = {
    "alnum": ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)),
    "alpha": ((0x41, 0x5A), (0x61, 0x7A)),
    "ascii": ((0x00, 0x7F),),
    "blank": ((0x09, 0x09), (0x20, 0x20)),
    "cntrl": ((0x00, 0x1F), (0x7F, 0x7F)),
    "digit": ((0x30, 0x39),),
    "graph": ((0x21, 0x7E),),
    "lower": ((0x61, 0x7A),),
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((0x09, 0x0D), (0x20, 0x20)),
    "upper": ((0x41, 0x5A),),
    "word": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}

_LONG_NAMES: Final = {
    "c": "other", "cc": "control", "cf": "format", "cn": "unassigned", "co": "privateuse",
    "l": "letter", "ll": "lowercaseletter", "lm": "modifierletter", "lo": "otherletter",
    "lt": "titlecaseletter", "lu": "uppercaseletter", "lc": "casedletter",
    "m": "mark", "mc": "spacingmark", "me": "enclosingmark", "mn": "nonspacingmark",
    "n": "number", "nd": "decimalnumber", "nl": "letternumber", "no": "othernumber",
    "p": "punctuation", "pc": "connectorpunctuation", "pd": "dashpunctuation",
    "pe": "closepunctuation", "pf": "finalpunctuation", "pi": "initialpunctuation",
    "po": "otherpunctuation", "ps": "openpunctuation",
    "s": "symbol", "sc": "currencysymbol", "sk": "modifiersymbol", "sm": "mathsymbol",
    "so": "othersymbol",
    "z": "separator", "zl": "lineseparator", "zp": "paragraphseparator", "zs": "spaceseparator",
}  # fmt: skip
_SHORT_NAMES: Final = {long: short for short, long in _LONG_NAMES.items()}


def named(name: str) -> Ranges | None:
    """The characters of a general category, or of ``any``, ``ascii`` and ``assigned``.

    None if there is no such class here. Case, spaces, hyphens and underscores do not count.
    """
    loose = name.lower().translate(dict.fromkeys(map(ord, " -_")))
    match loose:
        case "any":
            return SCALARS
        case "ascii":
            return ASCII_CLASSES["ascii"]
        case "assigned":
            return difference(SCALARS, _category("cn"))
        case "whitespace" | "space" | "wspace":
            return SPACE
        case _:
            pass
    short = _SHORT_NAMES.get(loose, loose)
    return _category(short) if short in _LONG_NAMES else None


@cache
def digits() -> Ranges:
    r"""What ``\d`` is: the decimal digits of every script."""
    return _category("nd")


@cache
def word() -> Ranges:
    r"""What ``\w`` is: letters, marks, decimal digits, connecting punctuation, and joiners."""
    parts = [_category(name) for name in ("l", "m", "nd", "nl", "pc")]
    return merged(chain(*parts, _LETTERED, _JOINERS))


@cache
def _category(short: str) -> Ranges:
    if short == "lc":
        return merged(chain(*[_category(part) for part in ("lu", "ll", "lt")]))
    found = [ranges for name, ranges in _categories().items() if name.startswith(short)]
    return merged(chain(*found))


@cache
def _categories() -> dict[str, Ranges]:
    """Every category's characters. Planes in which there are none are not looked at."""
    found: dict[str, list[tuple[int, int]]] = {}
    for code in chain(range(0x40000), range(0xE0000, 0xE1000)):
        ranges = found.setdefault(unicodedata.category(chr(code)).lower(), [])
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    found["co"].extend(_PRIVATE_PLANES)
    del found["cn"], found["cs"]
    assigned = merged(chain(*found.values()))
    found["cn"] = list(difference(SCALARS, assigned))
    return {name: tuple(ranges) for name, ranges in found.items()}


@lru_cache(maxsize=64)
def folded(ranges: Ranges) -> Ranges:
    """The characters of ``ranges``, and those that differ from one of them only by case."""
    others = [(other, other) for code in _within(ranges) for other in _same_but_case()[code]]
    return merged([*ranges, *others])


def folded_octets(ranges: Ranges) -> Ranges:
    """The same for bytes, of which only the letters of ASCII have a case."""
    found = list(ranges)
    for first, other in ((0x41, 0x20), (0x61, -0x20)):
        letters = intersection(ranges, ((first, first + 25),))
        found.extend((low + other, high + other) for low, high in letters)
    return merged(found)


def _within(ranges: Ranges) -> Iterator[int]:
    known = _same_but_case()
    for low, high in ranges:
        if high - low < len(known):
            yield from (code for code in range(low, high + 1) if code in known)
        else:
            yield from (code for code in known if low <= code <= high)


@cache
def _same_but_case() -> dict[int, tuple[int, ...]]:
    """For each character with a case: all that fold to the same one."""
    orbits: dict[str, list[int]] = {}
    for code in range(_CASED_MAX):
        folds_to = _simple_fold(chr(code))
        if folds_to != chr(code):
            orbits.setdefault(folds_to, [ord(folds_to)]).append(code)
    return {code: tuple(orbit) for orbit in orbits.values() for code in orbit}


def _simple_fold(character: str) -> str:
    """Folded to one character; the tables of Python also fold to several, as ß to ss."""
    for fold in (character.casefold(), character.lower()):
        if len(fold) == 1:
            return fold
    return character
