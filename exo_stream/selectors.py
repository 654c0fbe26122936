"""Which entries a subscription wants: the kinds of selectors, as values that are equal and shared.

To add a kind: write a frozen dataclass with the members of ``Kind``, add it to ``AnySelector``, and
give it a form on the wire in ``protocol.fields`` (an array that begins with the kind's name) and
in docs/protocol.cddl. Subscriptions, the index of interest and the fan-out ask nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exo_stream.errors import InvalidRequestError
from exo_stream.keys import MatchKey
from exo_stream.model import Keyspace
from exo_stream.payload import NONE, EncodedBatch, visible

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
    """Entries of the store whose key begins with ``prefix`` and matches one of ``match_keys``,
    and whose value passes one of ``value_filters``; an empty tuple asks nothing.

    An entry is taken once, however many match it; order and duplicates stay. A deletion has no
    value, so it passes no value filter: it is taken only where there is none.
    """

    match_keys: tuple[MatchKey, ...] = ()
    value_filters: tuple[ValueFilter, ...] = ()
    prefix: bytes = b""


AnySelector = Selector | StoreSelector
