"""What ``follow`` chooses entries by, as words: match keys and value filters."""

from __future__ import annotations

import argparse

from exo_stream.cli.wording import from_argument
from exo_stream.errors import InvalidRequestError
from exo_stream.keys import MatchKey
from exo_stream.selectors import (
    ExactValue,
    ValueFilter,
    ValuePrefix,
    ValueRegex,
    check_selector,
    selector_for,
)


def match_key(word: str) -> MatchKey:
    """``BITS:PREFIX:REGEX``; the prefix is a number as Python writes it, 10, 0xa or 0b1010."""
    bits, _, rest = word.partition(":")
    prefix, colon, regex = rest.partition(":")
    try:
        found = MatchKey(int(bits), int(prefix, 0), regex)
    except ValueError:
        found = None
    if found is None or not colon:
        raise argparse.ArgumentTypeError(f"{word!r} is not BITS:PREFIX:REGEX")
    _check(match=[found])
    return found


def value_filter(word: str) -> ValueFilter:
    """``exact:VALUE``, ``prefix:VALUE`` or ``regex:REGEX``."""
    kind, colon, rest = word.partition(":")
    found: ValueFilter
    try:
        match kind:
            case "exact" if colon:
                found = ExactValue(from_argument(rest))
            case "prefix" if colon:
                found = ValuePrefix(from_argument(rest))
            case "regex" if colon:
                found = ValueRegex(rest)
            case _:
                raise argparse.ArgumentTypeError(
                    f"{word!r} is not exact:VALUE, prefix:VALUE or regex:REGEX"
                )
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    _check(values=[found])
    return found


def _check(*, match: list[MatchKey] | None = None, values: list[ValueFilter] | None = None) -> None:
    try:
        check_selector(selector_for(match=match, values=values))
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
