"""Selectors at work: what carries a selector out, made once for all that ask the same.

A matcher says which entries can match by how they begin, so that an index can find it, and then
which of these do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol, assert_never

from exo_stream.keys import MatchKey, payload_to_match
from exo_stream.model import Entry, Keyspace, row_key
from exo_stream.payload import EncodedBatch
from exo_stream.regex.pattern import Pattern, compile_regex
from exo_stream.selectors import (
    AnySelector,
    ExactValue,
    Selector,
    StoreSelector,
    StreamSelector,
    ValuePrefix,
    ValueRegex,
    check_selector,
)

KEY_END: Final = b"\xff" * 2048
"""Above every key that starts like it: longer than the longest key of any keyspace."""

ENTRY_STEPS: Final = 500
"""What looking at one entry costs beside its regexes, in steps of RE2."""

RowRange = tuple[bytes, bytes]
"""Row keys from the first on, up to and without the second."""


class Matcher(Protocol):
    """What a subscription and the index of interest ask of a selector, whatever its kind."""

    @property
    def leads(self) -> Sequence[tuple[int, bytes]]:
        """Keyspaces and beginnings of keys: no entry matches that begins like none of them."""

    @property
    def row_ranges(self) -> Sequence[RowRange]:
        """Where in the table matching rows can be: ascending, and none twice."""

    @property
    def regexes(self) -> frozenset[str]:
        """The regexes it holds compiled."""

    def steps(self, entries: Iterable[Entry]) -> int:
        """What it may cost at worst to look at ``entries``; a step is some nanoseconds."""

    def takes(self, entry: Entry) -> bool:
        """Whether ``entry`` matches."""

    def looks(self, entry: Entry) -> Iterator[bool]:
        """The same, one search of a value at a time: it matches once one of them says so."""

    def select(self, batch: EncodedBatch) -> EncodedBatch | None:
        """The batch with its matching entries only, in their order; None if there are none."""


def matcher_of(selector: AnySelector) -> Matcher:
    """What carries ``selector`` out. Raises InvalidSelectorError if it breaks a rule."""
    match selector:
        case Selector():
            return PrefixMatcher(selector)
        case StoreSelector():
            return StoreMatcher(selector)
        case StreamSelector():
            return StreamMatcher(selector)
        case _:
            assert_never(selector)


class PrefixMatcher:
    """Carries out a ``Selector``."""

    regexes: Final = frozenset[str]()

    def __init__(self, selector: Selector) -> None:
        self.select = selector.select
        self.keyspace, self.prefix = selector.keyspace, selector.prefix
        self.leads = ((int(selector.keyspace), selector.prefix),)
        self.row_ranges = (
            (
                row_key(selector.keyspace, selector.prefix),
                row_key(selector.keyspace, selector.prefix + KEY_END),
            ),
        )

    def steps(self, entries: Iterable[Entry]) -> int:  # noqa: ARG002 - as every matcher
        """Nothing that counts."""
        return 0

    def takes(self, entry: Entry) -> bool:
        """Whether ``entry`` is of the keyspace and begins with the prefix."""
        return entry[0] == self.keyspace and entry[1].startswith(self.prefix)

    def looks(self, entry: Entry) -> Iterator[bool]:
        """The same: there is nothing to search for."""
        yield self.takes(entry)


class StoreMatcher:
    """Carries out a ``StoreSelector``. Raises InvalidSelectorError if it breaks a rule."""

    def __init__(self, selector: StoreSelector) -> None:
        check_selector(selector)
        self._prefix = selector.prefix
        self._prefix_bytes = len(selector.prefix)
        self._keys = [(key.codec, compile_regex(key.payload_regex)) for key in selector.match_keys]
        filters = selector.value_filters
        self._asks_value = bool(filters)
        self._exact = frozenset([one.value for one in filters if isinstance(one, ExactValue)])
        self._begins = tuple([one.prefix for one in filters if isinstance(one, ValuePrefix)])
        self._patterns = [
            compile_regex(one.regex) for one in filters if isinstance(one, ValueRegex)
        ]
        self._key_steps = _steps([pattern for _, pattern in self._keys])
        self._value_steps = _steps(self._patterns)
        self.regexes = frozenset(
            [pattern.regex for pattern in (*self._patterns, *[p for _, p in self._keys])]
        )
        self.leads = tuple([(int(Keyspace.STORE), lead) for lead in _leads(selector)])
        self.row_ranges = _row_ranges(selector)

    def steps(self, entries: Iterable[Entry]) -> int:
        """Bytes times instructions, which is what RE2 falls back to when its memory is used up."""
        key_steps, value_steps = self._key_steps, self._value_steps
        return sum(
            [
                ENTRY_STEPS + len(key) * key_steps + (len(value) * value_steps if value else 0)
                for _, key, value in entries
            ]
        )

    def takes(self, entry: Entry) -> bool:
        """Whether ``entry`` is of the store and matches."""
        keyspace, key, value = entry
        return (
            keyspace == Keyspace.STORE
            and key.startswith(self._prefix)
            and self._takes_key(key[self._prefix_bytes :])
            and (not self._asks_value or (value is not None and self._takes_value(value)))
        )

    def looks(self, entry: Entry) -> Iterator[bool]:
        """The same, one search of a value at a time: it matches once one of them says so."""
        keyspace, key, value = entry
        if (
            keyspace != Keyspace.STORE
            or not key.startswith(self._prefix)
            or not self._takes_key(key[self._prefix_bytes :])
        ):
            yield False
        elif not self._asks_value or value is None:
            yield not self._asks_value
        elif value in self._exact or value.startswith(self._begins):
            yield True
        else:
            for pattern in self._patterns:
                yield pattern.matches(value)

    def select(self, batch: EncodedBatch) -> EncodedBatch | None:
        """The batch with its matching entries only, in their order; None if there are none."""
        return narrowed(self, batch, batch.entries)

    def _takes_key(self, key: bytes) -> bool:
        for codec, pattern in self._keys:
            if pattern.takes_everything:
                if codec.matches(key):
                    return True
                continue
            payload = payload_to_match(codec, key)
            if payload is not None and pattern.matches(payload):
                return True
        return not self._keys

    def _takes_value(self, value: bytes) -> bool:
        if value in self._exact or value.startswith(self._begins):
            return True
        return any(pattern.matches(value) for pattern in self._patterns)


class StreamMatcher:
    """Carries out a ``StreamSelector``. A snapshot of it is the records of the streams."""

    regexes: Final = frozenset[str]()

    def __init__(self, selector: StreamSelector) -> None:
        self._key = key = selector.key
        self._is_prefix = selector.is_prefix
        self.leads = ((int(Keyspace.STREAM), key),)
        end = KEY_END if selector.is_prefix else b"\x00"
        self.row_ranges = ((row_key(Keyspace.STREAM, key), row_key(Keyspace.STREAM, key + end)),)

    def steps(self, entries: Iterable[Entry]) -> int:  # noqa: ARG002 - as every matcher
        """Nothing that counts."""
        return 0

    def takes(self, entry: Entry) -> bool:
        """Whether ``entry`` is the record of such a stream."""
        if entry[0] != Keyspace.STREAM:
            return False
        return entry[1].startswith(self._key) if self._is_prefix else entry[1] == self._key

    def looks(self, entry: Entry) -> Iterator[bool]:
        """The same: there is nothing to search for."""
        yield self.takes(entry)

    def select(self, batch: EncodedBatch) -> EncodedBatch | None:
        """The record and what was appended, if the batch is about such a stream."""
        return about_stream(batch) if batch.entries and self.takes(batch.entries[0]) else None


def about_stream(batch: EncodedBatch) -> EncodedBatch:
    """Of a batch that begins with the record of a stream that record, and what was appended."""
    record, *others = batch.entries
    data = [entry for entry in others if entry[0] == Keyspace.STREAM_DATA]
    return EncodedBatch(batch.sequence, batch.committed_at, entries=(record, *data))


def narrowed(
    matcher: Matcher, batch: EncodedBatch, entries: Iterable[Entry]
) -> EncodedBatch | None:
    """The batch with those of ``entries``, which are some of its own, that match."""
    takes = matcher.takes
    matching = tuple([entry for entry in entries if takes(entry)])
    if not matching:
        return None
    return EncodedBatch(batch.sequence, batch.committed_at, entries=matching)


def _steps(patterns: Iterable[Pattern]) -> int:
    return sum([0 if pattern.takes_everything else pattern.size for pattern in patterns])


def _leads(selector: StoreSelector) -> list[bytes]:
    """How the keys begin that can match: as is asked for, in whole bytes."""
    if not selector.match_keys:
        return [selector.prefix]
    leads = [lead for match_key in selector.match_keys for lead in _leads_of(match_key)]
    return list(dict.fromkeys([selector.prefix + lead for lead in leads]))


def _leads_of(match_key: MatchKey) -> list[bytes]:
    """The whole bytes that a family begins with.

    The bits after them are the upper half of a byte, or more, in many families: then every such
    byte, which are 16 at most, is one more.
    """
    bits, prefix = match_key.reserved_bits, match_key.prefix
    odd = bits % 8
    lead = (prefix >> odd).to_bytes(bits // 8, "big")
    if odd < 4:
        return [lead]
    first = (prefix & ((1 << odd) - 1)) << (8 - odd)
    return [lead + bytes([byte]) for byte in range(first, first + (1 << (8 - odd)))]


def _row_ranges(selector: StoreSelector) -> tuple[RowRange, ...]:
    outer = row_key(Keyspace.STORE, selector.prefix)
    if not selector.match_keys:
        return ((outer, outer + KEY_END),)
    found: list[RowRange] = []
    for low, high in sorted([key.codec.prefix_bounds() for key in selector.match_keys]):
        start, end = outer + low, outer + high + b"\x00"
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)
