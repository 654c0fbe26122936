"""A write batch: puts, deletions and events that depend on nothing, kept all or none."""

from __future__ import annotations

from exo_stream.canonical.changes import Changes, CommitInfo, Operation
from exo_stream.canonical.ranges import over
from exo_stream.canonical.state import check_event, check_key, check_value
from exo_stream.canonical.writers import Writers
from exo_stream.errors import LimitExceededError
from exo_stream.pause import Pause


class WriteBatch:
    """Collected at leisure, committed once. It reads nothing, so nothing can be in conflict."""

    def __init__(self, writers: Writers, pause: Pause) -> None:
        self._writers = writers
        self._pause = pause
        self._operations: list[Operation] = []
        self._events: list[bytes] = []
        self._bytes = 0
        self._committed = False

    def __len__(self) -> int:
        return len(self._operations) + len(self._events)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return not len(self)

    def put(self, key: bytes, value: bytes) -> None:
        """Write a value."""
        check_key(key, "put")
        check_value(value, "put")
        self._grow(len(key) + len(value))
        self._operations.append((key, value))

    def delete(self, key: bytes) -> None:
        """Delete a key, present or not."""
        check_key(key, "delete")
        self._grow(len(key))
        self._operations.append((key, None))

    def append_event(self, event: bytes) -> None:
        """Append an event; its id is known when the batch has committed."""
        check_event(event, "append_event")
        self._grow(len(event))
        self._events.append(event)

    async def commit(self) -> CommitInfo:
        """Keep all of it, as one batch; returns when it is durable. It can be committed once."""
        if self._committed:
            raise over("batch")
        self._committed = True
        with self._pause.writer():
            await self._writers.check_open()
            return await self._writers.decide(Changes(self._operations, self._events))

    def _grow(self, size: int) -> None:
        if self._committed:
            raise over("batch")
        limits = self._writers.ground.sources.limits
        if self._bytes + size > limits.batch_bytes_max:
            raise LimitExceededError("batch_bytes_max", limits.batch_bytes_max, self._bytes + size)
        if len(self) + 2 > limits.batch_entries_max:  # this one, and the record
            raise LimitExceededError("batch_entries_max", limits.batch_entries_max, len(self) + 2)
        self._bytes += size
