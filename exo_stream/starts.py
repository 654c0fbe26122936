"""Where a subscription begins: the values that say so, and the one choice a caller makes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from exo_stream.errors import InvalidRequestError
from exo_stream.model import SEQUENCE_MAX, Cursor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class After:
    """Start after this cursor, which is the last batch the reader has finished."""

    cursor: Cursor


@dataclass(frozen=True, slots=True)
class FromSequence:
    """Start with this batch."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Oldest:
    """Start with the oldest retained batch."""


@dataclass(frozen=True, slots=True)
class Now:
    """Start with the first batch that is not visible yet."""


@dataclass(frozen=True, slots=True)
class Last:
    """Start ``count`` sequence numbers back, or with the oldest retained batch."""

    count: int


@dataclass(frozen=True, slots=True)
class Since:
    """Start with the first batch committed at or after this time, in microseconds."""

    committed_at: int


@dataclass(frozen=True, slots=True)
class FromEvent:
    """Start with the batch of this canonical event, or of the next one that comes."""

    event_id: int


@dataclass(frozen=True, slots=True)
class FromSnapshot:
    """Start with the table's matching rows at one sequence, then follow."""


Start = After | FromSequence | FromEvent | Oldest | Now | Last | Since | FromSnapshot


def chosen_start(
    *,
    after: Cursor | str | None = None,
    from_sequence: int | None = None,
    from_event: int | None = None,
    start: Literal["oldest", "now"] | None = None,
    last: int | None = None,
    since_time: datetime | None = None,
    snapshot: bool = False,
) -> Start:
    """The one start that was asked for; the oldest batch if none was.

    A cursor wins over ``snapshot``: whoever has one has had the snapshot. Every number in it is
    an unsigned 64-bit integer. Raises InvalidRequestError for more than one start, or one that
    cannot be.
    """
    if after is not None:
        snapshot = False
    given = {
        "after": after,
        "from_sequence": from_sequence,
        "from_event": from_event,
        "start": start,
        "last": last,
        "since_time": since_time,
        "snapshot": snapshot or None,
    }
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise InvalidRequestError(f"one start at a time, not {' and '.join(chosen)}")
    if after is not None:
        return After(Cursor.parse(after) if isinstance(after, str) else _checked(after, Cursor))
    if from_sequence is not None or from_event is not None:
        return _first_wanted(from_sequence, from_event)
    if last is not None:
        return Last(min(max(0, _checked(last, int)), SEQUENCE_MAX))
    if since_time is not None:
        # No batch is older than the epoch: whoever asks for more gets the same.
        return Since(max(0, _microseconds(_checked(since_time, datetime))))
    if snapshot:
        return FromSnapshot()
    return _named_start(start)


def _microseconds(time: datetime) -> int:
    """A time as microseconds since the Unix epoch; it must name its time zone."""
    if time.tzinfo is None:
        raise InvalidRequestError("a time needs a time zone")
    return round(time.timestamp() * 1_000_000)


def _named_start(start: str | None) -> Start:
    match start:
        case None | "oldest":
            return Oldest()
        case "now":
            return Now()
        case _:
            raise InvalidRequestError(f"a start is 'oldest' or 'now', not {start!r}")


def _first_wanted(sequence: int | None, event_id: int | None) -> FromSequence | FromEvent:
    if event_id is None:
        assert sequence is not None
        return FromSequence(_checked_sequence(sequence))
    return FromEvent(_checked_event_id(event_id))


def _checked_sequence(value: int) -> int:
    if not 1 <= _checked(value, int) <= SEQUENCE_MAX:
        raise InvalidRequestError("the first sequence number is 1")
    return value


def _checked_event_id(value: int) -> int:
    if not 0 <= _checked(value, int) <= SEQUENCE_MAX:
        raise InvalidRequestError("an event id is an unsigned 64-bit integer")
    return value


def _checked(value: T, kind: type[T]) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidRequestError(f"{value!r} is no {kind.__name__}")
    return value
