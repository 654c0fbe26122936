"""Which entries a subscription wants: the kinds of selectors, as values that are equal and shared.

To add a kind: write a frozen dataclass here and add it to ``AnySelector``; carry it out in
``matchers`` as a ``Matcher``, which ``interest`` finds by its ``leads``; give it a form on the wire
in ``protocol.selector_fields``, an array that begins with the kind's name, and in
docs/protocol.cddl. Subscriptions, feeds and the fan-out then have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from exo_stream.errors import InvalidRequestError
from exo_stream.keys import InvalidPrefixError, KeyCodec, MatchKey
from exo_stream.model import Keyspace
from exo_stream.payload import NONE, EncodedBatch, visible
from exo_stream.regex.pattern import compile_regex
from exo_stream.regex.source import InvalidRegexError

T = TypeVar("T")

MATCH_KEYS_MAX: Final = 16
VALUE_FILTERS_MAX: Final = 16
"""As many as the Exoware store takes of each."""


class InvalidSelectorError(InvalidRequestError):
    """A selector breaks a rule; ``field`` is the path of what breaks it, ``problem`` says how.

    It crosses the wire as the ``invalid_request`` it is.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class ExactValue:
    """Values that are these bytes; none at all is a value too."""

    value: bytes


@dataclass(frozen=True, slots=True)
class ValuePrefix:
    """Values that begin with these bytes; the empty prefix takes every value."""

    prefix: bytes


@dataclass(frozen=True, slots=True)
class ValueRegex:
    """Values in which the regex has a match, anywhere."""

    regex: str


ValueFilter = ExactValue | ValuePrefix | ValueRegex


@dataclass(frozen=True, slots=True)
class Selector:
    """Entries of ``keyspace`` whose key starts with ``prefix``; equal selectors are shared."""

    prefix: bytes = b""
    keyspace: Keyspace = Keyspace.STORE

    @property
    def takes_all(self) -> bool:
        """Whether every entry of the store matches, so that a payload can travel unread."""
        return not self.prefix and self.keyspace is Keyspace.STORE

    def select(self, batch: EncodedBatch) -> EncodedBatch | None:
        """The batch with its matching entries only, in their order; None if there are none.

        The whole batch, where all of it matches, keeps its bytes.
        """
        if self.takes_all:
            payload = visible(batch.payload)
            if payload == NONE:
                return None
            if payload is batch.payload:
                return batch
            return EncodedBatch(batch.sequence, batch.committed_at, payload)
        keyspace, prefix = self.keyspace, self.prefix
        matching = [e for e in batch.entries if e[0] == keyspace and e[1].startswith(prefix)]
        if not matching:
            return None
        return EncodedBatch(batch.sequence, batch.committed_at, entries=tuple(matching))


@dataclass(frozen=True, slots=True)
class StoreSelector:
    """Entries of the store whose key begins with ``prefix``, the rest of which matches one of
    ``match_keys``, and whose value passes one of ``value_filters``; an empty tuple asks nothing.

    An entry is taken once, however many match it; order and duplicates stay. A deletion has no
    value, so it passes no value filter: it is taken only where there is none. ``selector_for``
    checks such a selector.
    """

    match_keys: tuple[MatchKey, ...] = ()
    value_filters: tuple[ValueFilter, ...] = ()
    prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class StreamSelector:
    """Batches about the stream ``name``, or about every stream whose name begins so.

    Such a batch begins with the record of the stream that it is about. Of it are taken the record
    and what was appended, not what else the batch changes.
    """

    name: str
    is_prefix: bool = False

    @property
    def key(self) -> bytes:
        """The key of the stream's record, or how the keys begin."""
        return self.name.encode()


AnySelector = Selector | StoreSelector | StreamSelector


def selector_for(
    *,
    prefix: bytes = b"",
    match: Iterable[MatchKey] | None = None,
    values: Iterable[ValueFilter] | None = None,
) -> AnySelector:
    """The selector that was asked for; of the parts that are None nothing is asked.

    Raises InvalidSelectorError for the first rule that is broken: there are 1 to 16 match keys
    and at most 16 value filters, and prefixes fit into their bits. ``check_selector`` looks at
    the regexes too.
    """
    if match is None and values is None:
        return Selector(prefix)
    selector = StoreSelector(
        _several(match, "match_keys", least=1, most=MATCH_KEYS_MAX),
        _several(values, "value_filters", least=0, most=VALUE_FILTERS_MAX),
        prefix,
    )
    _check_parts(selector)
    return selector


def check_selector(selector: AnySelector) -> None:
    """Raise InvalidSelectorError for the first rule that is broken, those of regexes included.

    To compile a regex may take long enough to be done by a thread.
    """
    if not isinstance(selector, StoreSelector):
        return
    _check_parts(selector)
    for index, match_key in enumerate(selector.match_keys):
        _check_regex(match_key.payload_regex, f"match_keys[{index}].payload_regex")
    for index, value_filter in enumerate(selector.value_filters):
        if isinstance(value_filter, ValueRegex):
            _check_regex(value_filter.regex, f"value_filters[{index}].regex")


def _check_parts(selector: StoreSelector) -> None:
    for index, match_key in enumerate(selector.match_keys):
        _check_match_key(match_key, f"match_keys[{index}]")
    for index, value_filter in enumerate(selector.value_filters):
        _check_value_filter(value_filter, f"value_filters[{index}]")


def _several(given: Iterable[T] | None, field: str, *, least: int, most: int) -> tuple[T, ...]:
    if given is None:
        return ()
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidSelectorError(field, "several are needed, as in a list")
    several = tuple(islice(given, most + 1))
    if not least <= len(several) <= most:
        raise InvalidSelectorError(field, f"{least} to {most} are needed")
    return several


def _check_match_key(match_key: MatchKey, field: str) -> None:
    if not isinstance(match_key, MatchKey):
        raise InvalidSelectorError(field, "a match key is needed")
    try:
        KeyCodec(match_key.reserved_bits, match_key.prefix)
    except InvalidPrefixError as error:
        raise InvalidSelectorError(field, str(error)) from None
    if type(match_key.payload_regex) is not str:
        raise InvalidSelectorError(f"{field}.payload_regex", "text is needed")


def _check_value_filter(value_filter: ValueFilter, field: str) -> None:
    part: object
    kind: type[bytes | str]
    match value_filter:
        case ExactValue(part) | ValuePrefix(part):
            kind, needed = bytes, "bytes are needed"
        case ValueRegex(part):
            kind, needed = str, "text is needed"
        case _:
            raise InvalidSelectorError(field, "an exact value, a prefix or a regex is needed")
    if type(part) is not kind:
        raise InvalidSelectorError(field, needed)


def _check_regex(regex: str, field: str) -> None:
    try:
        compile_regex(regex)
    except InvalidRegexError as error:
        raise InvalidSelectorError(field, str(error)) from None
