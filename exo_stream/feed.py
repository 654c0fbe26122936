"""What a subscription yields, in process and over the wire alike."""

from __future__ import annotations

from dataclasses import dataclass

from exo_stream.model import Batch, Cursor, Entry


@dataclass(frozen=True, slots=True)
class SnapshotBegin:
    """The matching rows of the table at ``sequence`` follow; drop what an earlier one brought."""

    sequence: int


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """Some rows of the snapshot at ``sequence``, in key order. It has no cursor: a reader that
    loses its connection before ``SnapshotEnd`` begins again.
    """

    sequence: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """The snapshot is whole; from here on ``cursor`` may be saved."""

    cursor: Cursor


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything up to the log's end at this moment has been delivered."""

    cursor: Cursor


@dataclass(frozen=True, slots=True)
class FellBehind:
    """After having been caught up, the reader is now ``behind`` batches late."""

    cursor: Cursor
    behind: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Nothing matched up to ``cursor``; resuming from it skips nothing."""

    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened for a while; the log's newest batch is ``frontier``."""

    frontier: int


FeedMessage = (
    SnapshotBegin
    | SnapshotPage
    | SnapshotEnd
    | Batch
    | CaughtUp
    | FellBehind
    | Progress
    | Heartbeat
)
