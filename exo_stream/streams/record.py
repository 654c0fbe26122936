"""What is kept of a stream: one record under its name, small, rewritten by every change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import cbor2

from exo_stream.model import Entry, Keyspace
from exo_stream.streams.values import StreamConfig

SECOND: Final = 1_000_000
"""Microseconds: the unit of every time here."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a fork shares: the messages of ``name``'s ``incarnation`` up to ``offset``, and
    ``sub_offset`` more, which were copied. ``offset`` is a position.
    """

    name: str
    incarnation: int
    offset: int
    sub_offset: int


class Record(NamedTuple):
    """One stream. Positions count bytes, times are in microseconds.

    ``incarnation`` is the number of the batch that created it: no two streams share one, whatever
    their names. Its own messages stand between ``base`` and ``tail``; those before ``base`` are
    its origin's. Nothing before ``low`` is read any more, and its own rows up to ``trimmed`` are
    deleted. ``references`` counts the forks that share its messages; a ``deleted`` stream is kept
    for them alone. ``look_at`` is the earliest time at which upkeep will look at it, 0 if never;
    ``oldest_at`` is no later than the oldest message read, ``last_start`` is where the newest
    append begins.
    """

    incarnation: int
    config: StreamConfig
    tail: int
    messages: int
    closed: bool
    deleted: bool
    created_at: int
    updated_at: int
    touched_at: int
    last_seq: str | None = None
    references: int = 0
    look_at: int = 0
    base: int = 0
    low: int = 0
    low_messages: int = 0
    trimmed: int = 0
    oldest_at: int = 0
    last_start: int = 0
    origin: Origin | None = None

    def encode(self) -> bytes:
        """The record's bytes."""
        incarnation, config, *rest, origin = self
        return cbor2.dumps(
            [
                incarnation,
                [
                    config.content_type,
                    config.ttl_seconds,
                    config.expires_at,
                    config.closed,
                    config.retention_seconds,
                    config.retention_bytes,
                ],
                *rest,
                None
                if origin is None
                else [origin.name, origin.incarnation, origin.offset, origin.sub_offset],
            ]
        )

    def entry(self, name: str) -> Entry:
        """The entry that keeps it."""
        return Entry(Keyspace.STREAM, stream_key(name), self.encode())

    def expires_at(self, accessed_at: int) -> int | None:
        """When it expires if it was last accessed then; None if it never does."""
        config = self.config
        if config.ttl_seconds is not None:
            return accessed_at + config.ttl_seconds * SECOND
        return config.expires_at

    def trim_due_at(self, now: int) -> int | None:
        """When retention has something to let go of; None if nothing it knows of."""
        config = self.config
        if self.trimmed < self.low and not self.references:
            return now
        if (
            config.retention_bytes is not None
            and self.held > config.retention_bytes
            and self.low < self.last_start
        ):
            return now
        if config.retention_seconds is not None and self.low < self.tail:
            return self.oldest_at + config.retention_seconds * SECOND
        return None

    @property
    def held(self) -> int:
        """Bytes that are retained, shared ones included."""
        return self.tail - self.low


def decode_record(value: bytes) -> Record:
    """The record that ``value`` holds."""
    incarnation, config, *rest, origin = cbor2.loads(value)
    shared = None if origin is None else Origin(*origin)
    return Record._make((incarnation, StreamConfig(*config), *rest, shared))


def stream_key(name: str) -> bytes:
    """The STREAM key of the stream ``name``."""
    return name.encode()


def producer_key(incarnation: int, producer_id: str) -> bytes:
    """The STREAM_PRODUCER key of a stream's producer."""
    return incarnation.to_bytes(8, "big") + producer_id.encode()
