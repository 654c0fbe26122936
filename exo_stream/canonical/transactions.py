"""Read and write transactions: a snapshot, and a snapshot with one's own changes over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import trio

from exo_stream.canonical.changes import (
    Changes,
    CommitInfo,
    Expected,
    Operation,
    PreflightResult,
    Source,
)
from exo_stream.canonical.events import EventIter, check_ids
from exo_stream.canonical.ranges import StateIter, after_prefix, over
from exo_stream.canonical.state import StateReads, check_event, check_key, check_value
from exo_stream.canonical.writers import Handed, Writers
from exo_stream.errors import InvalidRequestError, InvalidStateError, LimitExceededError
from exo_stream.ground import Ground
from exo_stream.pause import Pause
from exo_stream.snapshots import Snapshot
from exo_stream.storage.engine import Version


class ReadTxn:
    """The store at one sequence: its state, ranges of it, and the events up to it.

    Any number may be open; none of them waits for a writer, a pause or a seal, and none is waited
    for. Held for longer than ``snapshot_seconds_max`` it raises SnapshotExpiredError.
    """

    __slots__ = ("_ground", "_snapshot", "_state")

    def __init__(self, ground: Ground, state: StateReads) -> None:
        self._ground = ground
        self._state = state
        self._snapshot: Snapshot | None = None

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint_if_cancelled()
        assert self._snapshot is None, "a read transaction is entered once"
        sources = self._ground.sources
        self._snapshot = sources.snapshots.lease(sources.reads.engine.version)
        return self

    async def __aexit__(self, *_: object) -> None:
        # No checkpoint, which costs as much as the whole of a read of one key from memory.
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            snapshot.close()

    @property
    def sequence(self) -> int:
        """The sequence number it shows the store at."""
        return self._version().frontier

    def _version(self) -> Version:
        if self._snapshot is None:
            raise over("read transaction")
        return self._snapshot.check()

    async def get_state(self, key: bytes) -> bytes | None:
        """The key's value, None if it is absent."""
        check_key(key, "get_state")
        row = await self._state.row(self._version(), key)
        return None if row is None else row.value

    async def exists(self, key: bytes) -> bool:
        """Whether the key is there."""
        return await self.get_state(key) is not None

    def range(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> StateIter:
        """The pairs with ``start <= key < end`` in key order; to the last if ``end`` is None."""
        reads = self._state.reads
        return StateIter(reads, self._version, start, end, reverse=reverse, limit=limit)

    def scan_prefix(
        self, prefix: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> StateIter:
        """The pairs whose key starts with ``prefix``, in key order."""
        return self.range(prefix, after_prefix(prefix), reverse=reverse, limit=limit)

    async def next_event_id(self) -> int:
        """The id that the first event after this snapshot has."""
        record, _ = await self._state.record(self._version())
        return record.next_event_id

    async def iter_events(self, first: int = 0, end: int | None = None) -> EventIter:
        """The events with ``first <= id < end``, none that this snapshot does not show."""
        check_ids(first, end)
        newest = await self.next_event_id()
        until = newest if end is None else min(end, newest)
        return EventIter(self._ground.sources, self._version, first, until)


class WriteTxn:
    """The one open write transaction: reads see its own writes, and ``commit`` keeps all or none.

    It has the write slot from the beginning of its block to ``commit`` or ``abort``; a block that
    is left without either, by an exception or by cancellation, has aborted. What it reads is
    checked again when its commit is decided: TransactionConflictError if it is no longer so.
    """

    def __init__(self, writers: Writers, pause: Pause) -> None:
        self._writers = writers
        self._pause = pause
        self._entered = False
        self._open = False
        self._snapshot: Snapshot | None = None
        self._operations: list[Operation] = []
        self._own: dict[bytes, bytes | None] = {}
        self._events: list[bytes] = []
        self._first_event_id: int | None = None
        self._reads: dict[bytes, Expected] = {}
        self._built_on: list[Source] = []
        self._store_version: int | None = None
        self._bytes = 0

    async def __aenter__(self) -> Self:
        if self._entered:
            raise over("write transaction")
        self._pause.enter()
        self._entered = True
        try:
            await self._writers.check_open()
            await self._writers.take_slot(trio.lowlevel.current_task().name)
        except BaseException:
            self._pause.leave()
            raise
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open:
            self.abort()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def abort(self) -> None:
        """Undo everything and let the next one in; the event ids it gave are free again."""
        self._check_open()
        self._close()
        self._writers.free_slot()
        self._pause.leave()

    async def commit(self) -> CommitInfo:
        """Keep everything, as one batch; returns when it is durable, and says what was done.

        The transaction is over, whatever becomes of it. Cancelled before its batch was handed
        over it has aborted; later it takes its course.
        """
        self._check_open()
        changes = self.changes()
        self._close()
        next_id = None
        if self._first_event_id is not None:
            next_id = self._first_event_id + len(self._events)
        handed = Handed(changes, self._own, next_id)
        try:
            await self._writers.hand_over(handed)
            return await handed.request.reply.wait()
        finally:
            handed.source.forget_view()
            self._pause.leave()

    def changes(self) -> Changes:
        """What it has read and wants to change, as a value."""
        return Changes(
            self._operations,
            self._events,
            self._reads,
            self._built_on,
            self._store_version,
            self._first_event_id,
        )

    async def preflight(self) -> PreflightResult:
        """Whether what it has read is still so: what ``commit`` would be refused for now.

        Names the keys it has read and those it is going to write.
        """
        self._check_open()
        await trio.lowlevel.checkpoint()
        errors: list[str] = []
        version = self._writers.version
        with self._writers.ground.sources.snapshots.lease(version):
            for key, expected in self._reads.items():
                if isinstance(expected, int):
                    row = await self._writers.state.row(version, key)
                    if (0 if row is None else row.sequence) != expected:
                        errors.append(f"key {key!r} has changed since it was read")
        self._check_open()
        return PreflightResult(not errors, tuple(errors)).with_keys(self._reads, self._own)

    async def get_state(self, key: bytes) -> bytes | None:
        """The key's value, None if it is absent; what this transaction has written first."""
        self._check_open()
        check_key(key, "get_state")
        if key in self._own:
            await trio.lowlevel.checkpoint_if_cancelled()
            return self._own[key]
        version = self._shown()
        handed = self._writers.over(key)
        if handed is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._depend_on(handed.source)
            value = handed.values[key]
            # What was deleted is read as absent, and absent is version 0 wherever it is read.
            self._reads.setdefault(key, 0 if value is None else handed.source)
            return value
        row = await self._writers.state.row(version, key)
        self._check_open()
        self._reads.setdefault(key, 0 if row is None else row.sequence)
        return None if row is None else row.value

    async def exists(self, key: bytes) -> bool:
        """Whether the key is there."""
        return await self.get_state(key) is not None

    def put_state(self, key: bytes, value: bytes) -> None:
        """Write a value. Raises KeyTooLargeError or ValueTooLargeError, and changes nothing."""
        self._check_open()
        check_key(key, "put_state")
        check_value(value, "put_state")
        self._grow(len(key) + len(value), 1)
        self._operations.append((key, value))
        self._own[key] = value

    def del_state(self, key: bytes) -> None:
        """Delete a key, present or not."""
        self._check_open()
        check_key(key, "del_state")
        self._grow(len(key), 1)
        self._operations.append((key, None))
        self._own[key] = None

    async def iter_state(self) -> StateIter:
        """Every pair of the state in key order, with what this transaction has written so far.

        From here to its end no other commit is decided, so that the whole of it holds.
        """
        self._check_open()
        await self._writers.stand_alone()
        await self._writers.settle()
        self._check_open()
        self._show_again()
        version = self._shown()
        _, sequence = await self._writers.state.record(version)
        self._store_version = sequence
        return StateIter(
            self._writers.state.reads, self._version_while_open, b"", None, own=dict(self._own)
        )

    async def append_event(self, event: bytes) -> int:
        """Append one event; its id. Raises ValueTooLargeError, and changes nothing."""
        first, _ = await self._append([event], "append_event")
        return first

    async def append_events(self, events: list[bytes] | tuple[bytes, ...]) -> tuple[int, int]:
        """Append several events; the first and the last of their ids, which follow one another."""
        if not isinstance(events, list | tuple):
            raise InvalidRequestError("events are a list or a tuple of bytes")
        if not events:
            raise InvalidStateError("there is no event to append")
        return await self._append(events, "append_events")

    async def _append(self, events: Sequence[bytes], context: str) -> tuple[int, int]:
        self._check_open()
        for event in events:
            check_event(event, context)
        if self._first_event_id is None:
            self._first_event_id = await self._first_free_id()
            self._check_open()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        self._grow(sum(map(len, events)), len(events))
        first = self._first_event_id + len(self._events)
        self._events += events
        return first, first + len(events) - 1

    async def _first_free_id(self) -> int:
        await self._writers.stand_alone()
        handed = self._writers.last_ids()
        if handed is not None:
            self._depend_on(handed.source)
            assert handed.next_event_id is not None
            return handed.next_event_id  # noqa: ASYNC910  # standing alone is one
        record, _ = await self._writers.state.record(self._writers.version)
        return record.next_event_id

    def _grow(self, size: int, entries: int) -> None:
        limits = self._writers.ground.sources.limits
        if self._bytes + size > limits.batch_bytes_max:
            raise LimitExceededError("batch_bytes_max", limits.batch_bytes_max, self._bytes + size)
        count = len(self._operations) + len(self._events) + entries
        if count >= limits.batch_entries_max:  # one is for the record
            raise LimitExceededError("batch_entries_max", limits.batch_entries_max, count + 1)
        self._bytes += size

    def _depend_on(self, source: Source) -> None:
        if source not in self._built_on:
            self._built_on.append(source)

    def _shown(self) -> Version:
        """The Version it reads at, held from its first read on."""
        if self._snapshot is None:
            self._writers.forget_settled()
            sources = self._writers.ground.sources
            self._snapshot = sources.snapshots.lease(self._writers.version)
        return self._snapshot.check()

    def _show_again(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def _version_while_open(self) -> Version:
        self._check_open()
        return self._shown()

    def _check_open(self) -> None:
        if not self._open:
            raise over("write transaction")

    def _close(self) -> None:
        self._open = False
        self._show_again()
