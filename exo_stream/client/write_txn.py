"""A write transaction from afar: nothing is held at the server, and its commit is judged there.

What it reads are versions of keys. All of them hold at one sequence, at every moment: a value that
is newer than what was read before is taken only when that has been looked at again. So its body
never sees two states mixed, though no snapshot is held for it; and a client that dies in the
middle leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Self

import trio

from exo_stream.canonical.changes import Changes, CommitInfo, Operation, PreflightResult
from exo_stream.canonical.contexts import encode_event
from exo_stream.canonical.ranges import over
from exo_stream.canonical.state import check_event, check_key, check_value
from exo_stream.client.event_iter import read_events
from exo_stream.client.link import Link
from exo_stream.client.state_calls import commit, read_state
from exo_stream.client.state_ranges import RemoteSnapshot, RemoteStateIter
from exo_stream.errors import (
    InvalidRequestError,
    InvalidStateError,
    LimitExceededError,
    TransactionConflictError,
)
from exo_stream.protocol import canonical_messages as c

LOOKS_MAX: Final = 8
"""How often a key is read anew while others are being written, before that is a conflict."""


class RemoteWriteTxn:
    """An optimistic transaction: reads see its own writes, ``commit`` keeps all of it or none.

    It takes no slot and blocks nobody. If something that it has read was written meanwhile, a read
    or the commit raises TransactionConflictError and nothing was changed: run it again, as
    ``transact`` does. Left without ``commit`` it has aborted.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._open = False
        self._entered = False
        self._operations: list[Operation] = []
        self._own: dict[bytes, bytes | None] = {}
        self._events: list[bytes] = []
        self._first_event_id: int | None = None
        self._reads: dict[bytes, int] = {}
        self._seen: dict[bytes, bytes | None] = {}
        self._at = 0
        """The sequence at which everything holds that was read, if anything was."""
        self._store_version: int | None = None
        self._snapshots: list[RemoteSnapshot] = []
        self._looking = trio.Lock()
        self._bytes = 0

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open:
            self.abort()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def begin(self) -> None:
        """What entering its block does: it can be done once."""
        if self._entered:
            raise over("write transaction")
        self._entered = self._open = True

    def abort(self) -> None:
        """Undo everything: there is nothing but what it has collected."""
        self._check_open()
        self._open = False
        for snapshot in self._snapshots:
            snapshot.close()

    async def commit(self) -> CommitInfo:
        """Keep everything, as one batch; returns when it is durable, and says what was done.

        The transaction is over, whatever becomes of it. If the connection is lost it is sent
        again under its number and takes effect once; OutcomeUnknownError if that was in vain.
        """
        self._check_open()
        self.abort()
        changes = Changes(
            self._operations,
            self._events,
            self._reads,
            store_version=self._store_version,
            first_event_id=self._first_event_id,
        )
        return await commit(self._link, changes)

    async def preflight(self) -> PreflightResult:
        """Whether what it has read is still so: what ``commit`` would be refused for now."""
        self._check_open()
        changed = await self._changed_since()
        errors = [f"key {key!r} has changed since it was read" for key in changed]
        return PreflightResult(not errors, tuple(errors)).with_keys(self._reads, self._own)

    async def get_state(self, key: bytes) -> bytes | None:
        """The key's value, None if it is absent; what this transaction has written first."""
        self._check_open()
        check_key(key, "get_state")
        await trio.lowlevel.checkpoint_if_cancelled()
        if key in self._own:
            return self._own[key]
        # One after the other: two on their way at once could not be held against one another.
        async with self._looking:
            if key not in self._seen:
                found = await self._read(key)
                self._check_open()
                self._reads[key], self._seen[key] = found
        return self._seen[key]

    async def exists(self, key: bytes) -> bool:
        """Whether the key is there."""
        return await self.get_state(key) is not None

    def put_state(self, key: bytes, value: bytes) -> None:
        """Write a value. Raises KeyTooLargeError or ValueTooLargeError, and changes nothing."""
        self._check_open()
        check_key(key, "put_state")
        check_value(value, "put_state")
        self._write(key, value)

    def del_state(self, key: bytes) -> None:
        """Delete a key, present or not."""
        self._check_open()
        check_key(key, "del_state")
        self._write(key, None)

    async def iter_state(self) -> RemoteStateIter:
        """Every pair of the state in key order, with what this transaction has written so far.

        The transaction is then in conflict with every other that commits meanwhile.
        """
        self._check_open()
        async with self._looking:
            snapshot = await self._whole_state()
        return RemoteStateIter(
            self._link, b"", None, snapshot=snapshot, own=self._own, check=self._check_open
        )

    async def append_event(self, event: bytes) -> int:
        """Append one event; its id, which holds unless another event is committed meanwhile.

        That is a conflict then. Who needs no id uses ``log_bytes``.
        """
        first, _ = await self._append([event], "append_event")
        return first

    async def append_events(self, events: Sequence[bytes]) -> tuple[int, int]:
        """Append several events; the first and the last of their ids, which follow one another."""
        if not isinstance(events, list | tuple):
            raise InvalidRequestError("events are a list or a tuple of bytes")
        if not events:
            raise InvalidStateError("there is no event to append")
        return await self._append(events, "append_events")

    def log_bytes(self, event: bytes) -> None:
        """Append an event. Its id is known when the transaction has committed."""
        self._check_open()
        check_event(event, "log")
        self._grow(len(event), 1)
        self._events.append(event)

    def log(self, event_type: str, payload: object) -> None:
        """Append the event ``type:json``. Its id is known when the transaction has committed."""
        self.log_bytes(encode_event(event_type, payload))

    def log_many(self, events: Iterable[tuple[str, object]]) -> None:
        """Append several events."""
        for event in [encode_event(event_type, payload) for event_type, payload in events]:
            self.log_bytes(event)

    # --- inside -----------------------------------------------------------------------------------

    async def _whole_state(self) -> RemoteSnapshot:
        snapshot = RemoteSnapshot(self._link)
        await snapshot.open()
        if not self._open:
            snapshot.close()
            raise over("write transaction")
        self._snapshots.append(snapshot)
        opened = snapshot.opened
        if self._store_version is None:
            await self._hold_at(snapshot)
        elif opened.changed != self._store_version:
            raise TransactionConflictError(b"", self._store_version, opened.changed)
        self._store_version = opened.changed
        return snapshot

    async def _append(self, events: Sequence[bytes], context: str) -> tuple[int, int]:
        self._check_open()
        for event in events:
            check_event(event, context)
        if self._first_event_id is None:
            first_event_id = (await read_events(self._link, 0, 0)).next_event_id
            self._check_open()
            self._first_event_id = first_event_id
        await trio.lowlevel.checkpoint_if_cancelled()
        self._grow(sum(map(len, events)), len(events))
        first = self._first_event_id + len(self._events)
        self._events += events
        return first, first + len(events) - 1

    async def _read(self, key: bytes) -> tuple[int, bytes | None]:
        """The key's version and value at a sequence at which all that was read before holds."""
        at = 0
        for _ in range(LOOKS_MAX):
            reply = await self._ask([key], values=True)
            [(at, value)] = reply.values
            if not self._reads and self._store_version is None:
                self._at = reply.sequence
                return at, value
            if reply.changed <= self._at or 0 < at <= self._at:
                # Nothing was committed since; or not this key.
                return at, value
            if self._store_version is not None:
                raise TransactionConflictError(b"", self._store_version, reply.changed)
            if await self._moved_on(key, at):
                return at, value
        raise TransactionConflictError(key, at, at)

    async def _moved_on(self, key: bytes, version: int) -> bool:
        """Whether all that was read holds now too, together with ``key`` at ``version``."""
        reply = await self._ask([*self._reads, key], values=False)
        *before, (found, _) = reply.values
        for (read, expected), (now, _) in zip(self._reads.items(), before, strict=True):
            if now != expected:
                raise TransactionConflictError(read, expected, now)
        if found != version:
            return False
        self._at = reply.sequence
        return True

    async def _hold_at(self, snapshot: RemoteSnapshot) -> None:
        """See to it that all that was read holds in a snapshot."""
        await trio.lowlevel.checkpoint_if_cancelled()
        reads = tuple(self._reads.items())
        if reads:
            reply = await self._ask([key for key, _ in reads], values=False, snapshot=snapshot)
            for (key, expected), (found, _) in zip(reads, reply.values, strict=True):
                if found != expected:
                    raise TransactionConflictError(key, expected, found)
        self._check_open()
        self._at = snapshot.opened.sequence

    async def _changed_since(self) -> list[bytes]:
        reads = tuple(self._reads.items())
        reply = await self._ask([key for key, _ in reads], values=False)
        self._check_open()
        found = zip(reads, reply.values, strict=True)
        return [key for (key, expected), (now, _) in found if now != expected]

    async def _ask(
        self, keys: Sequence[bytes], *, values: bool, snapshot: RemoteSnapshot | None = None
    ) -> c.StateValues:
        return await read_state(self._link, keys, values=values, snapshot=snapshot)

    def _write(self, key: bytes, value: bytes | None) -> None:
        self._grow(len(key) + len(value or b""), 1)
        self._operations.append((key, value))
        self._own[key] = value

    def _grow(self, size: int, entries: int) -> None:
        limits = self._link.limits
        if self._bytes + size > limits.batch_bytes_max:
            raise LimitExceededError("batch_bytes_max", limits.batch_bytes_max, self._bytes + size)
        count = len(self._operations) + len(self._events) + entries
        if count >= limits.batch_entries_max:  # one is for the record
            raise LimitExceededError("batch_entries_max", limits.batch_entries_max, count + 1)
        self._bytes += size

    def _check_open(self) -> None:
        if not self._open:
            raise over("write transaction")
