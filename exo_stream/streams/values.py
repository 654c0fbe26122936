"""What the Storage methods take and answer: configuration, producer, results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from exo_stream.streams.messages import Stored
from exo_stream.streams.offset import Offset

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"


def media_type(content_type: str) -> str:
    """What types are compared by: lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What a stream is created with, and never changes.

    ``ttl_seconds`` after its last access the stream expires; or at ``expires_at``, in microseconds
    since the Unix epoch, whatever happens. ``closed`` creates it closed. Retention lets go of
    messages older than ``retention_seconds``, and of the oldest ones beyond ``retention_bytes``.
    """

    content_type: str = DEFAULT_CONTENT_TYPE
    ttl_seconds: int | None = None
    expires_at: int | None = None
    closed: bool = False
    retention_seconds: int | None = None
    retention_bytes: int | None = None

    @property
    def is_json(self) -> bool:
        """Whether a message is a JSON value, which no page may cut."""
        return media_type(self.content_type) == "application/json"


@dataclass(frozen=True, slots=True)
class StreamProducer:
    """Who appends, and which of its appends this is: ``seq`` 0, 1, 2 … within an ``epoch``.

    Retried with the same numbers an append takes effect once; a higher epoch fences lower ones.
    """

    id: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One message, or the rest of one; a read from ``offset`` begins after it."""

    offset: Offset
    data: bytes


@dataclass(frozen=True, slots=True)
class CreateResult:
    """``created``, or it exists with the same configuration already, its data untouched."""

    created: bool
    next_offset: Offset
    closed: bool
    config: StreamConfig
    incarnation: int


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What was appended stands between the two offsets."""

    start_offset: Offset
    next_offset: Offset
    closed: bool


@dataclass(frozen=True, slots=True)
class ProducerAppendResult:
    """What became of a producer's append: taken, or a ``duplicate`` of one that was.

    ``seq`` is the highest that was accepted in ``epoch``; ``next_offset`` the stream's tail.
    """

    duplicate: bool
    epoch: int
    seq: int
    next_offset: Offset
    closed: bool


@dataclass(frozen=True, slots=True)
class ReadResult:
    """Some consecutive messages, and where the next read goes on.

    ``up_to_date`` says that nothing followed them at the time; ``closed`` that the stream is
    closed, so that with both nothing ever will. ``sequence`` is the log's at which it was read:
    a subscription after it misses nothing. ``stored`` is the messages as they are kept, append by
    append, for who wants to join them without taking them apart.
    """

    name: str
    config: StreamConfig
    incarnation: int
    start_offset: Offset
    next_offset: Offset
    up_to_date: bool
    closed: bool
    sequence: int
    stored: Sequence[Stored] = field(default=(), repr=False)

    @property
    def messages(self) -> list[StreamMessage]:
        """The messages in order, each with the offset after it."""
        return [
            StreamMessage(Offset.at(end), data)
            for stored in self.stored
            for end, data in stored.messages()
        ]

    @property
    def body(self) -> bytes:
        """The messages as one: a JSON array of them, or their bytes one after the other."""
        if self.config.is_json:
            return b"[%b]" % b",".join([stored.joined for stored in self.stored])
        return b"".join([data for stored in self.stored for _, data in stored.messages()])

    @property
    def etag(self) -> str:
        """Other for other data, other ends, another closing, and another stream of this name."""
        closed = "c" if self.closed and self.up_to_date else ""
        return (
            f'"{self.incarnation:x}:{self.start_offset.position:x}'
            f':{self.next_offset.position:x}{closed}"'
        )


@dataclass(frozen=True, slots=True)
class HeadResult:
    """What is told of a stream without its messages. Times are in microseconds.

    ``oldest_offset`` is where retention begins; ``total_bytes`` and ``message_count`` are what is
    retained, shared messages included. ``expires_at`` is when it expires if nobody touches it.
    """

    name: str
    config: StreamConfig
    incarnation: int
    next_offset: Offset
    oldest_offset: Offset
    closed: bool
    total_bytes: int
    message_count: int
    created_at: int
    updated_at: int
    expires_at: int | None
    sequence: int


@dataclass(frozen=True, slots=True)
class StreamPage:
    """Some streams in the order of their names; ``resume`` is the ``after`` of the next page."""

    streams: tuple[HeadResult, ...]
    resume: str | None
