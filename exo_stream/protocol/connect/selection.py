"""What a Subscribe selects, from its messages: match keys and value filters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exo_stream.keys import MatchKey
from exo_stream.protocol.connect.generated import common_pb2
from exo_stream.selectors import (
    MATCH_KEYS_MAX,
    VALUE_FILTERS_MAX,
    ExactValue,
    InvalidSelectorError,
    StoreSelector,
    ValueFilter,
    ValuePrefix,
    ValueRegex,
)


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
