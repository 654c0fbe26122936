"""A transaction as a value: what it read and at which versions, and what it wants to change.

That is all the one writer needs to decide it, and all that would have to travel: whoever has a
read set with versions, whether an open transaction, a preflighted one or a client far away, is
judged by the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from exo_stream.canonical.record import NEED_RECORD, RECORD_KEY, Record, read_record
from exo_stream.decision import (
    UNKNOWN,
    Answer,
    Decision,
    Need,
    Refuse,
    Unknown,
    Verdict,
    View,
    Write,
)
from exo_stream.errors import ExoStreamError, SealedError, TransactionConflictError
from exo_stream.model import Entry, Keyspace

EVENT_ID_BYTES: Final = 8
_CANONICAL: Final = int(Keyspace.CANONICAL)
_STATE: Final = int(Keyspace.STATE)
_EVENT: Final = int(Keyspace.EVENT)

_new_entry: Final[Callable[[type[Entry], tuple[int, bytes, bytes | None]], Entry]] = tuple.__new__
"""``Entry`` itself is a Python function; this is a third of an event's way in."""

Operation = tuple[bytes, bytes | None]
"""One ``put_state``, or one ``del_state`` if the value is None."""


class CommitInfo(NamedTuple):
    """What a commit did.

    ``state_keys_written`` counts calls of put, not keys; ``state_keys_deleted`` counts keys that
    were there. Both event ids are None if it appended none. ``dlq_events`` is always 0: an event
    is in the log or its transaction failed. ``sequence`` is its batch; that of the batch before
    if it wrote nothing.
    """

    events_written: int
    first_event_id: int | None
    last_event_id: int | None
    state_keys_written: int
    state_keys_deleted: int
    dlq_events: int
    sequence: int


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """Whether a transaction would be let through now, and which keys it reads and writes."""

    valid: bool
    errors: tuple[str, ...] = ()
    read_keys: tuple[bytes, ...] = ()
    write_keys: tuple[bytes, ...] = ()

    @classmethod
    def success(cls) -> PreflightResult:
        """Nothing objects."""
        return cls(valid=True)

    @classmethod
    def failure(cls, message: str) -> PreflightResult:
        """One objection."""
        return cls(valid=False, errors=(message,))

    def with_keys(self, read_keys: Iterable[bytes], write_keys: Iterable[bytes]) -> PreflightResult:
        """The same result, with these keys."""
        return PreflightResult(self.valid, self.errors, tuple(read_keys), tuple(write_keys))


class Source:
    """A transaction that was handed to the one writer and is not answered yet.

    What is read of it has a version only when it is decided; a later transaction refers to it
    in place of a number. ``settled`` tells its answer, or its error, once there is one.
    """

    __slots__ = ("_sequence", "_view", "settled")

    def __init__(self, settled: Callable[[], CommitInfo | ExoStreamError | None]) -> None:
        self.settled = settled
        self._view: View | None = None
        self._sequence = 0

    def note(self, view: View, verdict: Verdict[CommitInfo]) -> None:
        """Remember for those behind it in the same group whether it is going to be written."""
        self._view = None
        if isinstance(verdict, Write | Answer):
            self._view, self._sequence = view, verdict.answer.sequence

    def forget_view(self) -> None:
        """Its group is over."""
        self._view = None

    def version(self, view: View) -> int | ExoStreamError:
        """The sequence of its batch; the error it failed with, for who built on it."""
        if self._view is view:
            return self._sequence
        settled = self.settled()
        if isinstance(settled, CommitInfo):
            return settled.sequence
        # Unsettled, it needs to be read for first: this verdict is thrown away, and asked again.
        return TransactionConflictError(b"", 0, 0) if settled is None else settled.again()


Expected = int | Source
"""At which version something was read: a sequence, 0 for what is absent, or one to come."""


_NOTHING: Final[Mapping[bytes, Expected]] = MappingProxyType({})


class Changes(NamedTuple):
    """Everything one transaction is decided by.

    ``reads`` are state keys with the versions they were read at. ``operations`` are in the order
    of the calls. ``store_version`` is the record's version if the state was read as a whole, and
    ``first_event_id`` the first id it has given away, if it has. ``built_on`` are others that
    must take effect first, beside those that something was read of.

    A tuple, as is ``CommitInfo``: to make two frozen dataclasses is a tenth of a transaction.
    """

    operations: Sequence[Operation] = ()
    events: Sequence[bytes] = ()
    reads: Mapping[bytes, Expected] = _NOTHING
    built_on: Sequence[Source] = ()
    store_version: Expected | None = None
    first_event_id: int | None = None


def decision(changes: Changes, source: Source | None = None) -> Decision[CommitInfo]:
    """How ingest decides on ``changes``; ``source`` is who others have built on meanwhile."""

    def decide(view: View, now: int) -> Verdict[CommitInfo]:
        verdict = judge(changes, view, now)
        if source is not None:
            source.note(view, verdict)
        return verdict

    return decide


def judge(changes: Changes, view: View, now: int) -> Verdict[CommitInfo]:
    """Write all of it, or refuse it: what was read must still be so, and the seal open."""
    row = view.row(_CANONICAL, RECORD_KEY)
    unknown = _unknown(changes, view)
    if isinstance(row, Unknown):
        return Need(keys=NEED_RECORD.keys, versions=unknown)
    if unknown:
        return Need(versions=unknown)
    record = read_record(row)
    if record.sealed:
        return Refuse(SealedError(record.sealed - 1))
    objection = _objection(changes, view, record, 0 if row is None else row.sequence)
    if objection is not None:
        return Refuse(objection)
    return _write(changes, view, record, now)


def _unknown(changes: Changes, view: View) -> list[tuple[int, bytes]]:
    """The keys to look up first: those read, and those that a deletion counts. Their versions
    will do: a value of 16 MiB is not worth reading to be compared by its age.
    """
    asked = [*changes.reads, *[key for key, value in changes.operations if value is None]]
    return [(_STATE, key) for key in asked if view.version(_STATE, key) is UNKNOWN]


def _objection(
    changes: Changes, view: View, record: Record, store_version: int
) -> ExoStreamError | None:
    if not changes.reads and not changes.built_on and changes[4:] == (None, None):
        return None
    for source in changes.built_on:
        standing = source.version(view)
        if isinstance(standing, ExoStreamError):
            return standing
    for key, wanted, found in _read(changes, view, store_version):
        expected = wanted if isinstance(wanted, int) else wanted.version(view)
        if isinstance(expected, ExoStreamError):
            return expected
        if found != expected:
            return TransactionConflictError(key, expected, found)
    first = changes.first_event_id
    if first is not None and first != record.next_event_id:
        return TransactionConflictError(b"", first, record.next_event_id)
    return None


def _read(
    changes: Changes, view: View, store_version: int
) -> Iterator[tuple[bytes, Expected, int]]:
    """What was read: its key, at which version it was, and at which it is now."""
    for key, expected in changes.reads.items():
        yield key, expected, _version(view, key)
    if changes.store_version is not None:
        yield b"", changes.store_version, store_version


def _version(view: View, key: bytes) -> int:
    version = view.version(_STATE, key)
    assert not isinstance(version, Unknown), key
    return version


def _write(
    changes: Changes, view: View, record: Record, now: int
) -> Write[CommitInfo] | Answer[CommitInfo]:
    operations = changes.operations
    if len(operations) == 1 and operations[0][1] is not None:
        final, written, deleted = dict(operations), 1, 0
    else:
        final, written, deleted = _folded(operations, view)
    first, count = record.next_event_id, len(changes.events)
    made = _new_entry
    entries = [made(Entry, (_STATE, key, value)) for key, value in final.items()]
    entries += [
        made(Entry, (_EVENT, number.to_bytes(EVENT_ID_BYTES, "big"), event))
        for number, event in enumerate(changes.events, first)
    ]
    sequence = view.sequence if entries else view.sequence - 1
    first_id, last_id = (first, first + count - 1) if count else (None, None)
    info = CommitInfo(count, first_id, last_id, written, deleted, 0, sequence)
    if not entries:
        return Answer(info)
    created_at = record.created_at or now
    later = Record(first + count, record.sealed, record.schema_version, created_at, now)
    entries.append(later.entry())
    return Write(entries, info)


def _folded(
    operations: Sequence[Operation], view: View
) -> tuple[dict[bytes, bytes | None], int, int]:
    """The last value of each key that changes; how many puts; how many keys were deleted."""
    final: dict[bytes, bytes | None] = {}
    written = deleted = 0
    for key, value in operations:
        if value is not None:
            written += 1
        elif key not in final and not _version(view, key):
            continue  # deleting what is not there is no change
        elif key not in final or final[key] is not None:
            deleted += 1
        final[key] = value
    return final, written, deleted
