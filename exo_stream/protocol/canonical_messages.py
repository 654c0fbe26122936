"""The messages about transactions: what is read and at which version, what is to be changed.

A version is the sequence of a key's last write, 0 if it is absent. ``changed`` in an answer is the
sequence of the last canonical commit before it: what was read at that sequence or later holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from exo_stream.producers import Producer


class StateVersion(NamedTuple):
    """A key that a transaction has read, and the version it was at."""

    key: bytes
    version: int


class StateValue(NamedTuple):
    """A key's version and its value; 0 and None if it is absent."""

    version: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class OpenSnapshot:
    """Hold the store as it is now, under this id, until ``ScanClose``; answered by
    ``SnapshotOpened``.
    """

    id: int


@dataclass(frozen=True, slots=True)
class ReadState:
    """Read keys of the state, in a snapshot or, if that is 0, as they are now; answered by
    ``StateValues`` in the order asked.

    Without ``values`` only versions are asked for: a value is then empty, or None.
    """

    id: int
    snapshot: int
    keys: tuple[bytes, ...]
    values: bool


@dataclass(frozen=True, slots=True)
class ScanState:
    """Read up to ``rows_max`` of the pairs with ``start <= key < end``, fewer if they are large;
    answered by ``StateRows``.

    ``snapshot`` 0 opens one, which stays open under this id if there are more pages to come.
    """

    id: int
    snapshot: int
    start: bytes
    end: bytes | None
    reverse: bool
    rows_max: int
    keys_only: bool


@dataclass(frozen=True, slots=True)
class ReadEvents:
    """Read up to ``count`` events from id ``first`` on; answered by ``EventsRead``."""

    id: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Decide a transaction: keep all of it if what it has read still holds; answered by
    ``Committed``.

    ``operations`` are puts and, without a value, deletions, in the order of the calls.
    ``store_version`` is what ``changed`` was if the state was read as a whole;
    ``first_event_id`` the id its first event must have, if it must.
    """

    id: int
    reads: tuple[StateVersion, ...]
    operations: tuple[tuple[bytes, bytes | None], ...]
    events: tuple[bytes, ...] = ()
    store_version: int | None = None
    first_event_id: int | None = None
    producer: Producer | None = None


@dataclass(frozen=True, slots=True)
class ReadMeta:
    """Tell of the store as a whole; answered by ``StoreMeta``."""

    id: int


@dataclass(frozen=True, slots=True)
class Seal:
    """Refuse every canonical write from now on; answered by ``Sealed``."""

    id: int


@dataclass(frozen=True, slots=True)
class Unseal:
    """Take canonical writes again; answered by ``Unsealed``."""

    id: int


@dataclass(frozen=True, slots=True)
class PauseWrites:
    """Begin the pause of this name, of transactions or of ``all_faces``; answered by ``Paused``
    once the writes under way are over. A second time it changes nothing.
    """

    id: int
    name: bytes
    all_faces: bool


@dataclass(frozen=True, slots=True)
class ResumeWrites:
    """End the pause of this name, wherever it was begun, or every named one; answered by
    ``Resumed``.
    """

    id: int
    name: bytes | None
    all_faces: bool


@dataclass(frozen=True, slots=True)
class SnapshotOpened:
    """The store is held as it was at ``sequence``."""

    id: int
    sequence: int
    changed: int
    next_event_id: int


@dataclass(frozen=True, slots=True)
class StateValues:
    """The values of the keys asked for, at ``sequence``."""

    id: int
    sequence: int
    changed: int
    values: tuple[StateValue, ...]


@dataclass(frozen=True, slots=True)
class StateRows:
    """Some pairs at ``sequence``, without their values if only keys were asked for.

    ``resume`` is where the next page starts, or ends if it goes against the order of keys; None
    if this is the last. The next page is of ``snapshot``.
    """

    id: int
    snapshot: int
    sequence: int
    changed: int
    rows: tuple[tuple[bytes, bytes | None], ...]
    resume: bytes | None


@dataclass(frozen=True, slots=True)
class EventsRead:
    """Consecutive events from ``first`` on, none if there are none yet; ``next_event_id`` is the
    next to be given away.
    """

    id: int
    first: int
    next_event_id: int
    events: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction is durable: now, or before if it was sent again."""

    id: int
    events_written: int
    first_event_id: int | None
    last_event_id: int | None
    state_keys_written: int
    state_keys_deleted: int
    sequence: int


@dataclass(frozen=True, slots=True)
class StoreMeta:
    """What is known of the store as a whole; times are RFC 3339."""

    id: int
    next_event_id: int
    sealed_event_id: int | None
    schema_version: int
    created_at: str | None
    updated_at: str | None
    sequence: int
    is_paused: bool
    all_faces_paused: bool


@dataclass(frozen=True, slots=True)
class Sealed:
    """The id of the last event; nothing commits after it. 0 and not sealed if there is none."""

    id: int
    event_id: int


@dataclass(frozen=True, slots=True)
class Unsealed:
    """Writes are taken again."""

    id: int


@dataclass(frozen=True, slots=True)
class Paused:
    """Writes are refused, and those that were under way are over."""

    id: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """How many pauses ended."""

    id: int
    pauses: int


CanonicalRequest = (
    OpenSnapshot
    | ReadState
    | ScanState
    | ReadEvents
    | Commit
    | ReadMeta
    | Seal
    | Unseal
    | PauseWrites
    | ResumeWrites
)
CanonicalReply = (
    SnapshotOpened
    | StateValues
    | StateRows
    | EventsRead
    | Committed
    | StoreMeta
    | Sealed
    | Unsealed
    | Paused
    | Resumed
)
