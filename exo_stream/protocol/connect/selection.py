"""What a Subscribe selects, from its messages: match keys and value filters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from exo_stream.keys import MatchKey
from exo_stream.protocol.connect.generated import common_pb2
from exo_stream.selectors import (
    MATCH_KEYS_MAX,
    VALUE_FILTERS_MAX,
    AnySelector,
    ExactValue,
    InvalidSelectorError,
    Selector,
    StoreSelector,
    ValueFilter,
    ValuePrefix,
    ValueRegex,
)

_EVERYTHING: Final = ("(?s).*", "(?s-u).*")
_WHOLE_BYTES: Final = (0, 8, 16)


def match_key(message: common_pb2.MatchKey) -> MatchKey:
    """The match key that a message is."""
    return MatchKey(message.reserved_bits, message.prefix, message.payload_regex)


def checked_selector(
    match_keys: Sequence[common_pb2.MatchKey], value_filters: Sequence[common_pb2.BytesFilter]
) -> StoreSelector:
    """The selector that these are. Raises InvalidSelectorError for the first wrong field."""
    if not 1 <= len(match_keys) <= MATCH_KEYS_MAX:
        raise InvalidSelectorError("match_keys", f"from 1 to {MATCH_KEYS_MAX} are needed")
    if len(value_filters) > VALUE_FILTERS_MAX:
        raise InvalidSelectorError("value_filters", f"at most {VALUE_FILTERS_MAX} are taken")
    return StoreSelector(tuple(map(match_key, match_keys)), tuple(_value_filters(value_filters)))


def simplest(selector: StoreSelector) -> AnySelector:
    """What takes the same with less work: a prefix, if any payload behind whole bytes is wanted.

    Exoware's own clients ask so for everything, or for all of a namespace.
    """
    if selector.value_filters or selector.prefix or len(selector.match_keys) != 1:
        return selector
    [one] = selector.match_keys
    if one.payload_regex not in _EVERYTHING or one.reserved_bits not in _WHOLE_BYTES:
        return selector
    if one.prefix >> one.reserved_bits:
        return selector  # it cannot be, and whoever starts it is told so
    return Selector(one.prefix.to_bytes(one.reserved_bits // 8, "big"))


def _value_filters(messages: Iterable[common_pb2.BytesFilter]) -> Iterable[ValueFilter]:
    for index, message in enumerate(messages):
        match message.WhichOneof("kind"):
            case "exact":
                yield ExactValue(message.exact)
            case "prefix":
                yield ValuePrefix(message.prefix)
            case "regex":
                yield ValueRegex(message.regex)
            case _:
                raise InvalidSelectorError(
                    f"value_filters[{index}]", "one of exact, prefix and regex is needed"
                )
