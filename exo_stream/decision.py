"""What the one writer decides: pure functions from a view of the state to a write or a refusal.

Whatever must be judged "under a single lock hold" (a precondition, a producer's number, an append
to a stream, a transaction's read set) is a decision. It is called by ingest alone, possibly more
than once, and only what it returns reaches the log: entries, never functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, Self, TypeVar, runtime_checkable

from exo_stream.errors import ExoStreamError
from exo_stream.model import Entry, Row

T_co = TypeVar("T_co", covariant=True)


class Unknown:
    """What a view answers when the state is not in memory: return ``Need`` and be called again."""


UNKNOWN: Final = Unknown()


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The rows of ``keyspace`` with ``start <= key < end``, at most ``limit`` of them: the first
    ones, or in ``reverse`` the last ones.
    """

    keyspace: int
    start: bytes
    end: bytes
    limit: int
    reverse: bool = False


class View(Protocol):
    """The visible state, plus what earlier decisions of the same group have written."""

    @property
    def sequence(self) -> int:
        """The number this decision's batch will have if it writes."""

    def row(self, keyspace: int, key: bytes) -> Row | Unknown | None:
        """The row of a key, a tombstone included; None if there is none."""

    def version(self, keyspace: int, key: bytes) -> int | Unknown:
        """The sequence of the key's last write, 0 if it is absent; its value is not read."""

    def changed(self, keyspace: int, key: bytes, since: int) -> bool | Unknown:
        """Whether a batch after ``since`` wrote the key; cheaper than its row, which is mostly in
        the file.
        """

    def rows(self, wanted: KeyRange) -> list[Row] | Unknown:
        """The live rows of a range in key order, from its end on if it is in reverse."""


@runtime_checkable
class Numbered(Protocol):
    """An answer that holds its batch's number, which a backend of its own numbers may change."""

    def numbered(self, sequence: int) -> Self:
        """The same answer with this number."""


@dataclass(frozen=True, slots=True)
class Write(Generic[T_co]):
    """Write these entries as one batch, and give the caller this answer once it is durable.

    ``payload`` is their encoding if the caller has made it already, beside the writer.
    """

    entries: Sequence[Entry]
    answer: T_co
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer(Generic[T_co]):
    """Write nothing; give the caller this answer, as for a duplicate."""

    answer: T_co


@dataclass(frozen=True, slots=True)
class Refuse:
    """Write nothing; raise this error where the caller waits."""

    error: ExoStreamError


@dataclass(frozen=True, slots=True)
class Need:
    """These keys ``(keyspace, key)``, ranges and versions of keys were unknown: fetch them and
    call again.
    """

    keys: Sequence[tuple[int, bytes]] = ()
    ranges: Sequence[KeyRange] = ()
    versions: Sequence[tuple[int, bytes]] = ()


Verdict = Write[T_co] | Answer[T_co] | Refuse | Need

Decision = Callable[[View, int], Verdict[T_co]]
"""``decide(view, now)``; ``now`` is the batch's ``committed_at`` in microseconds."""
