"""The messages about streams: the Storage methods and their answers, offsets written as tokens.

A configuration is the array ``[content type, ttl seconds, expires at, closed, retention seconds,
retention bytes]``; of a fork null means the source's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class StreamSetup(NamedTuple):
    """What a stream is created with; ``expires_at`` in microseconds."""

    content_type: str | None = None
    ttl_seconds: int | None = None
    expires_at: int | None = None
    closed: bool = False
    retention_seconds: int | None = None
    retention_bytes: int | None = None


class StreamNumbers(NamedTuple):
    """A stream's producer, and which of its appends this is."""

    id: str
    epoch: int
    seq: int


class StoredAppend(NamedTuple):
    """Some messages that were appended together and end at position ``end``.

    ``lengths`` are four bytes for each, the highest first; ``joined`` is the messages with a comma
    between each two. ``through`` counts the stream's messages up to the last of them.
    """

    end: int
    committed_at: int
    through: int
    lengths: bytes
    joined: bytes


class StreamDescription(NamedTuple):
    """What is told of a stream without its messages; times in microseconds."""

    name: str
    setup: StreamSetup
    incarnation: int
    next_offset: str
    oldest_offset: str
    closed: bool
    total_bytes: int
    message_count: int
    created_at: int
    updated_at: int
    expires_at: int | None
    sequence: int


@dataclass(frozen=True, slots=True)
class CreateStream:
    """Create a stream with its first messages; answered by ``StreamCreated``."""

    id: int
    name: str
    setup: StreamSetup
    messages: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class ForkStream:
    """Create a fork of ``source``, at its tail if ``offset`` is None; answered by
    ``StreamCreated``.
    """

    id: int
    name: str
    source: str
    offset: str | None
    sub_offset: int
    setup: StreamSetup
    messages: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class AppendStream:
    """Append, close, or both; answered by ``StreamAppended``."""

    id: int
    name: str
    messages: tuple[bytes, ...]
    content_type: str | None = None
    producer: StreamNumbers | None = None
    close: bool = False
    seq: str | None = None
    expected_offset: str | None = None


@dataclass(frozen=True, slots=True)
class ReadStream:
    """Read what follows ``offset``, at most a frame of it; answered by ``StreamRead``."""

    id: int
    name: str
    offset: str
    bytes_max: int | None = None


@dataclass(frozen=True, slots=True)
class HeadStream:
    """Tell of a stream without its messages; answered by ``StreamHead``."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class DeleteStream:
    """Delete a stream; answered by ``StreamDeleted``."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class ListStreams:
    """Name some streams in their order; answered by ``StreamsListed``."""

    id: int
    prefix: str
    after: str
    limit: int


@dataclass(frozen=True, slots=True)
class CleanUpStreams:
    """Remove all streams that have expired; answered by ``StreamsCleanedUp``."""

    id: int


@dataclass(frozen=True, slots=True)
class StreamCreated:
    """The stream is there; ``created`` says whether it was made now."""

    id: int
    created: bool
    next_offset: str
    closed: bool
    setup: StreamSetup
    incarnation: int


@dataclass(frozen=True, slots=True)
class StreamAppended:
    """What was asked has taken effect: now, or before if it is a producer's ``duplicate``.

    ``epoch`` and ``seq`` are the producer's; then there is no ``start_offset``.
    """

    id: int
    start_offset: str | None
    next_offset: str
    closed: bool
    duplicate: bool = False
    epoch: int | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class StreamRead:
    """Some consecutive messages, and where the next read goes on."""

    id: int
    setup: StreamSetup
    incarnation: int
    start_offset: str
    next_offset: str
    up_to_date: bool
    closed: bool
    sequence: int
    stored: tuple[StoredAppend, ...]


@dataclass(frozen=True, slots=True)
class StreamHead:
    """What is told of a stream."""

    id: int
    stream: StreamDescription


@dataclass(frozen=True, slots=True)
class StreamDeleted:
    """The stream is deleted."""

    id: int


@dataclass(frozen=True, slots=True)
class StreamsListed:
    """Some streams; ``resume`` is the next page's ``after``, None if this is the last."""

    id: int
    streams: tuple[StreamDescription, ...]
    resume: str | None


@dataclass(frozen=True, slots=True)
class StreamsCleanedUp:
    """How many streams had expired."""

    id: int
    streams: int


StreamRequest = (
    CreateStream
    | ForkStream
    | AppendStream
    | ReadStream
    | HeadStream
    | DeleteStream
    | ListStreams
    | CleanUpStreams
)
StreamReply = (
    StreamCreated
    | StreamAppended
    | StreamRead
    | StreamHead
    | StreamDeleted
    | StreamsListed
    | StreamsCleanedUp
)
