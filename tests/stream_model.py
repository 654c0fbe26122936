"""What streams should do, as simply as it can be said: a real file is held against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from exo_stream.errors import ExoStreamError, ProducerFencedError, ProducerGapError
from exo_stream.stream_errors import (
    ContentTypeMismatchError,
    ForkFromTombstoneError,
    InvalidProducerStateError,
    OffsetConflictError,
    StreamClosedError,
    StreamConfigMismatchError,
    StreamGoneError,
    StreamNotFoundError,
    StreamPathBlockedError,
    StreamSeqConflictError,
)
from exo_stream.streams.values import StreamConfig, StreamProducer, media_type

Answer = tuple[Any, ...] | type[ExoStreamError]
"""What a method answers, as far as the model tells; or the error that it raises."""


@dataclass
class Modelled:
    """One stream: all its messages, its source's included."""

    config: StreamConfig
    messages: list[bytes]
    closed: bool
    accessed_at: int
    last_seq: str | None = None
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)
    source: str | None = None
    fork_offset: int = 0
    forks: int = 0
    deleted: bool = False

    @property
    def data(self) -> bytes:
        return b"".join(self.messages)

    @property
    def tail(self) -> int:
        return len(self.data)


class Model:
    """The streams by their names. Every method answers what the real one should."""

    def __init__(self) -> None:
        self.streams: dict[str, Modelled] = {}
        self.now = 0

    def earliest_expiry(self, stream: Modelled) -> int | None:
        ttl = stream.config.ttl_seconds
        return None if ttl is None else stream.accessed_at + ttl

    def is_doubtful(self, name: str) -> bool:
        """Whether it may have expired, and after a restart may live on for its slack."""
        stream = self.streams.get(name)
        expiry = None if stream is None or stream.deleted else self.earliest_expiry(stream)
        return expiry is not None and expiry <= self.now

    def end(self, name: str) -> None:
        """It is deleted, or has expired."""
        stream = self.streams[name]
        stream.deleted = True
        while stream.deleted and not stream.forks:
            del self.streams[name]
            if stream.source is None:
                return
            name = stream.source
            stream = self.streams[name]
            stream.forks -= 1

    def create(self, name: str, config: StreamConfig, messages: list[bytes]) -> Answer:
        stream = self.streams.get(name)
        if stream is None:
            self.streams[name] = Modelled(config, list(messages), config.closed, self.now)
            return True, self.streams[name].tail, config.closed
        if stream.deleted:
            return StreamPathBlockedError
        same = (
            media_type(config.content_type) == media_type(stream.config.content_type)
            and config.ttl_seconds == stream.config.ttl_seconds
            and config.closed == stream.closed
        )
        return (False, stream.tail, stream.closed) if same else StreamConfigMismatchError

    def fork(self, name: str, source: str, offset: int, messages: list[bytes]) -> Answer:
        origin, stream = self.streams.get(source), self.streams.get(name)
        if stream is not None and not stream.deleted:
            # Asked for again it is compared with itself: its source may be gone by then.
            same = (stream.source, stream.fork_offset) == (source, offset) and not stream.closed
            return (False, stream.tail, stream.closed) if same else StreamConfigMismatchError
        if origin is None:
            return StreamNotFoundError
        if origin.deleted:
            return ForkFromTombstoneError
        if stream is not None:
            return StreamPathBlockedError
        origin.forks += 1
        config = StreamConfig(origin.config.content_type, origin.config.ttl_seconds)
        shared = [origin.data[:offset]] if offset else []
        made = Modelled(
            config, [*shared, *messages], False, self.now, source=source, fork_offset=offset
        )
        self.streams[name] = made
        return True, made.tail, False

    def append(
        self,
        name: str,
        messages: list[bytes],
        *,
        content_type: str | None,
        seq: str | None,
        expected: int | None,
        close: bool,
    ) -> Answer:
        stream = self._there(name)
        if not isinstance(stream, Modelled):
            return stream
        objection = self._objection(stream, content_type, seq, expected)
        if objection is not None:
            return objection
        start = stream.tail
        self._take(stream, messages, seq, close=close)
        return start, stream.tail, stream.closed

    def produce(
        self,
        name: str,
        messages: list[bytes],
        producer: StreamProducer,
        *,
        content_type: str | None,
        close: bool,
    ) -> Answer:
        stream = self._there(name)
        if not isinstance(stream, Modelled):
            return stream
        epoch, last = stream.producers.get(producer.id, (None, -1))
        if epoch is not None and producer.epoch < epoch:
            return ProducerFencedError
        if epoch == producer.epoch and producer.seq <= last:
            return True, epoch, last, stream.tail, stream.closed
        objection: type[ExoStreamError] | None = None
        if stream.closed:
            objection = StreamClosedError
        elif epoch is not None and producer.epoch > epoch and producer.seq:
            objection = InvalidProducerStateError
        elif (epoch is None and producer.seq) or (
            epoch == producer.epoch and producer.seq > last + 1
        ):
            objection = ProducerGapError
        elif messages:
            objection = self._objection(stream, content_type, None, None)
        if objection is not None:
            return objection
        self._take(stream, messages, None, close=close)
        stream.producers[producer.id] = (producer.epoch, producer.seq)
        return False, producer.epoch, producer.seq, stream.tail, stream.closed

    def close(self, name: str) -> Answer:
        stream = self._there(name)
        if not isinstance(stream, Modelled):
            return stream
        if not stream.closed:
            self._take(stream, [], None, close=True)
        return stream.tail, stream.tail, True

    def delete(self, name: str) -> Answer:
        stream = self._there(name)
        if not isinstance(stream, Modelled):
            return stream
        self.end(name)
        return ()

    def read(self, name: str, *, is_access: bool) -> Answer:
        stream = self._there(name)
        if not isinstance(stream, Modelled):
            return stream
        if is_access:
            stream.accessed_at = self.now
        return stream.data, stream.tail, stream.closed

    def _there(self, name: str) -> Modelled | type[ExoStreamError]:
        stream = self.streams.get(name)
        if stream is None:
            return StreamNotFoundError
        return StreamGoneError if stream.deleted else stream

    def _objection(
        self, stream: Modelled, content_type: str | None, seq: str | None, expected: int | None
    ) -> type[ExoStreamError] | None:
        if stream.closed:
            return StreamClosedError
        if content_type not in {None, stream.config.content_type}:
            return ContentTypeMismatchError
        if seq is not None and stream.last_seq is not None and seq <= stream.last_seq:
            return StreamSeqConflictError
        if expected is not None and expected != stream.tail:
            return OffsetConflictError
        return None

    def _take(
        self, stream: Modelled, messages: list[bytes], seq: str | None, *, close: bool
    ) -> None:
        stream.messages += messages
        stream.closed = close
        stream.last_seq = seq or stream.last_seq
        stream.accessed_at = self.now
