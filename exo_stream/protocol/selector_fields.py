"""How a selector is written in a message: one array for each kind, and how it is checked.

Unlike a message, a selector with a field that is not known is refused: to overlook a condition
would deliver what was not asked for. Whether its regexes are any is no matter of the protocol:
the subscription says so.
"""

from __future__ import annotations

from typing import Any, Final, assert_never

from exo_stream.keys import MatchKey
from exo_stream.model import Keyspace
from exo_stream.protocol.fields import BYTES, FLAG, TEXT, UINT, Sort
from exo_stream.regex.source import REGEX_LENGTH_MAX
from exo_stream.selectors import (
    MATCH_KEYS_MAX,
    VALUE_FILTERS_MAX,
    AnySelector,
    ExactValue,
    Selector,
    StoreSelector,
    StreamSelector,
    ValueFilter,
    ValuePrefix,
    ValueRegex,
)


def _read_selector(value: Any) -> AnySelector:
    match value:
        case ("store", prefix, match_keys, value_filters):
            return StoreSelector(
                tuple([_read_match_key(one) for one in _few(match_keys, MATCH_KEYS_MAX)]),
                tuple([_read_value_filter(one) for one in _few(value_filters, VALUE_FILTERS_MAX)]),
                BYTES.read(prefix),
            )
        case ("stream", name, is_prefix):
            return StreamSelector(TEXT.read(name), FLAG.read(is_prefix))
        case (prefix, keyspace):
            return Selector(BYTES.read(prefix), _read_keyspace(keyspace))
        case _:
            raise ValueError("not a selector")


def _read_keyspace(value: Any) -> Keyspace:
    keyspace = Keyspace(UINT.read(value))
    if keyspace is Keyspace.STREAM_SUBSCRIPTION:
        raise ValueError("a keyspace that holds a secret")
    return keyspace


def _few(value: Any, most: int) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) > most:
        raise ValueError("not an array, or too long")
    return value


def _read_match_key(value: Any) -> MatchKey:
    reserved_bits, prefix, regex = value
    return MatchKey(UINT.read(reserved_bits), UINT.read(prefix), _read_regex(regex))


def _read_value_filter(value: Any) -> ValueFilter:
    match value:
        case ("exact", octets):
            return ExactValue(BYTES.read(octets))
        case ("prefix", octets):
            return ValuePrefix(BYTES.read(octets))
        case ("regex", regex):
            return ValueRegex(_read_regex(regex))
        case _:
            raise ValueError("not a value filter")


def _read_regex(value: Any) -> str:
    if type(value) is not str or len(value) > REGEX_LENGTH_MAX:
        raise ValueError("not a regex, or too long")
    return value


def _write_selector(selector: AnySelector) -> tuple[object, ...]:
    match selector:
        case Selector(prefix, keyspace):
            return prefix, int(keyspace)
        case StoreSelector(match_keys, value_filters, prefix):
            keys = [(key.reserved_bits, key.prefix, key.payload_regex) for key in match_keys]
            return "store", prefix, keys, list(map(_write_value_filter, value_filters))
        case StreamSelector(name, is_prefix):
            return "stream", name, is_prefix
        case _:
            assert_never(selector)


def _write_value_filter(value_filter: ValueFilter) -> tuple[str, bytes | str]:
    match value_filter:
        case ExactValue(value):
            return "exact", value
        case ValuePrefix(prefix):
            return "prefix", prefix
        case ValueRegex(regex):
            return "regex", regex
        case _:
            assert_never(value_filter)


SELECTOR: Final = Sort(_read_selector, _write_selector)
