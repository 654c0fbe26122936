"""Transactions, as one connection asks for them: reads with versions, and one decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar, assert_never

import trio

from exo_stream.canonical.changes import Changes
from exo_stream.canonical.events import event_rows
from exo_stream.canonical.ranges import check_bounds
from exo_stream.canonical.record import RECORD_KEY, read_record
from exo_stream.canonical.state import check_event, check_key, check_value
from exo_stream.errors import InvalidRequestError, LimitExceededError, UnsupportedError
from exo_stream.limits import Limits
from exo_stream.model import SEQUENCE_MAX, Keyspace, Row, row_key
from exo_stream.platform import Platform
from exo_stream.protocol.canonical_messages import (
    CanonicalReply,
    CanonicalRequest,
    Commit,
    Committed,
    EventsRead,
    OpenSnapshot,
    Paused,
    PauseWrites,
    ReadEvents,
    ReadMeta,
    ReadState,
    Resumed,
    ResumeWrites,
    ScanState,
    Seal,
    Sealed,
    SnapshotOpened,
    StateRows,
    StateValue,
    StateValues,
    StoreMeta,
    Unseal,
    Unsealed,
)
from exo_stream.snapshots import Snapshot, SnapshotHolder
from exo_stream.storage.engine import Version

ROW_BYTES: Final = 24
"""What a row takes on the wire beside its key and its value, at most."""

R = TypeVar("R", bound=CanonicalReply)

_LOW: Final = row_key(Keyspace.STATE, b"")
_HIGH: Final = row_key(Keyspace.STATE + 1, b"")
_RECORD: Final = row_key(Keyspace.CANONICAL, RECORD_KEY)


def size_of(reply: CanonicalReply) -> int:
    """About how many bytes the answer has on the wire, never fewer."""
    match reply:
        case StateValues(values=values):
            return sum([ROW_BYTES + len(value or b"") for _, value in values])
        case StateRows(rows=rows):
            return sum([ROW_BYTES + len(key) + len(value or b"") for key, value in rows])
        case EventsRead(events=events):
            return sum([ROW_BYTES + len(event) for event in events])
        case _:
            return 256


class CanonicalAnswers:
    """Answers one connection, and holds its snapshots until it lets go of them."""

    def __init__(self, platform: Platform, holder: SnapshotHolder, limits: Limits) -> None:
        self._platform = platform
        self._canonical = platform.canonical
        self._reads = platform.sources.reads
        self._holder = holder
        self._limits = limits
        self._snapshots: dict[int, Snapshot] = {}

    def close(self, snapshot_id: int) -> None:
        """Let go of a snapshot; of none that is not held."""
        snapshot = self._snapshots.pop(snapshot_id, None)
        if snapshot is not None:
            snapshot.close()

    def close_all(self) -> None:
        """Let go of everything."""
        for snapshot_id in tuple(self._snapshots):
            self.close(snapshot_id)

    async def answered(self, request: CanonicalRequest) -> CanonicalReply:
        """The answer; raises what the canonical store raises."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._reads.engine.own_sequences:
            raise UnsupportedError("this backend has only the nine methods, and no transactions")
        match request:
            case OpenSnapshot() | ReadState() | ScanState() | ReadEvents() | ReadMeta():
                return await self._read(request)
            case Commit():
                return await self._commit(request)
            case Seal(id_):
                return Sealed(id_, await self._canonical.seal())
            case Unseal(id_):
                await self._canonical.unseal()
                return Unsealed(id_)
            case PauseWrites() | ResumeWrites():
                return await self._pause(request)
            case _:
                assert_never(request)

    async def _read(
        self, request: OpenSnapshot | ReadState | ScanState | ReadEvents | ReadMeta
    ) -> CanonicalReply:
        await trio.lowlevel.checkpoint_if_cancelled()
        match request:
            case OpenSnapshot():
                return await self._open(request)
            case ReadState():
                return await self._read_state(request)
            case ScanState():
                return await self._scan(request)
            case ReadEvents():
                return await self._read_events(request)
            case ReadMeta(id_):
                return await self._meta(id_)
            case _:
                assert_never(request)

    async def _open(self, request: OpenSnapshot) -> SnapshotOpened:
        snapshot = self._holder.open()
        try:
            next_event_id, changed = await self._record(snapshot.version)
        except BaseException:
            snapshot.close()
            raise
        self._snapshots[request.id] = snapshot
        return SnapshotOpened(request.id, snapshot.sequence, changed, next_event_id)

    async def _read_state(self, request: ReadState) -> StateValues:
        bound = self._limits.get_many_keys_max
        if len(request.keys) > bound:
            raise LimitExceededError("get_many_keys_max", bound, len(request.keys))
        for key in request.keys:
            check_key(key, "get_state")
        version = self._version(request.snapshot)
        # The record is read last: if it has not changed, neither has anything else.
        rows = await self._reads.rows(
            version,
            [*[_LOW + key for key in request.keys], _RECORD],
            bytes_max=self._limits.message_bytes_max if request.values else None,
            values=request.values,
        )
        values = [
            StateValue(0, None)
            if row is None or row.value is None
            else StateValue(row.sequence, row.value if request.values else b"")
            for row in rows[:-1]
        ]
        reply = StateValues(request.id, version.frontier, _changed(rows[-1]), tuple(values))
        return self._sendable(reply)

    async def _scan(self, request: ScanState) -> StateRows:
        check_bounds(request.start, request.end, request.rows_max)
        id_ = request.snapshot or request.id
        if not request.snapshot:
            self._snapshots[id_] = self._holder.open()
        try:
            reply = await self._page(request, id_, self._snapshots_version(id_))
        except BaseException:
            if not request.snapshot:
                self.close(id_)
            raise
        if not request.snapshot and reply.resume is None:
            self.close(id_)
        return reply

    async def _page(self, request: ScanState, id_: int, version: Version) -> StateRows:
        low = _LOW + request.start
        high = _HIGH if request.end is None else max(low, _LOW + request.end)
        _, changed = await self._record(version)
        rows: Sequence[Row] = ()
        resume = None
        if request.rows_max and low < high:
            page = await self._reads.page(
                version,
                low,
                high,
                rows_max=request.rows_max,
                bytes_max=self._limits.frame_bytes_max,
                forward=not request.reverse,
            )
            rows, resume = page.rows, page.resume
        pairs = tuple(
            [
                (row.key[1:], None if request.keys_only else row.value)
                for row in rows
                if row.value is not None
            ]
        )
        onward = None if resume is None else resume[1:]
        return self._sendable(StateRows(request.id, id_, version.frontier, changed, pairs, onward))

    async def _read_events(self, request: ReadEvents) -> EventsRead:
        version = self._reads.engine.version
        next_event_id, _ = await self._record(version)
        count = min(request.count, self._limits.page_rows_max, next_event_id - request.first)
        events: tuple[bytes, ...] = ()
        if count > 0:
            # An event never changes, so what is visible by now may be read.
            rows = await event_rows(
                self._reads,
                lambda: self._reads.engine.version,
                request.first,
                count,
                bytes_max=self._limits.frame_bytes_max,
            )
            events = tuple([row.value for row in rows if row.value is not None])
        return self._sendable(EventsRead(request.id, request.first, next_event_id, events))

    async def _commit(self, request: Commit) -> Committed:
        self._check(request)
        info = await self._canonical.submit(
            Changes(
                request.operations,
                request.events,
                dict(request.reads),
                store_version=request.store_version,
                first_event_id=request.first_event_id,
            ),
            request.producer,
        )
        return Committed(request.id, *info[:5], info.sequence)

    def _check(self, request: Commit) -> None:
        """What the handles check at the call is checked again: anybody may have sent this."""
        size = 0
        for key, value in request.operations:
            check_key(key, "put_state" if value is not None else "del_state")
            if value is not None:
                check_value(value, "put_state")
            size += len(key) + len(value or b"")
        for event in request.events:
            check_event(event, "append_event")
            size += len(event)
        for key, _ in request.reads:
            check_key(key, "get_state")
        if request.producer is not None:
            request.producer.check()
        if size > self._limits.batch_bytes_max:
            raise LimitExceededError("batch_bytes_max", self._limits.batch_bytes_max, size)
        count = len(request.operations) + len(request.events) + 1  # one is for the record
        for actual in (count, len(request.reads)):
            if actual > self._limits.batch_entries_max:
                bound = self._limits.batch_entries_max
                raise LimitExceededError("batch_entries_max", bound, actual)
        first = request.first_event_id
        if first is not None and first + len(request.events) > SEQUENCE_MAX:
            raise InvalidRequestError("an event id is an unsigned 64-bit integer")

    async def _meta(self, id_: int) -> StoreMeta:
        meta = await self._canonical.meta()
        return StoreMeta(
            id_,
            meta.next_event_id,
            meta.sealed_event_id,
            meta.schema_version,
            meta.created_at,
            meta.updated_at,
            meta.sequence,
            self._canonical.is_paused(),
            self._platform.is_paused(),
        )

    async def _pause(self, request: PauseWrites | ResumeWrites) -> Paused | Resumed:
        pauses = self._canonical.named_pauses
        if request.all_faces:
            pauses = self._canonical.named_pauses_of_all_faces
        if isinstance(request, PauseWrites):
            await pauses.begin(request.name)
            return Paused(request.id)
        await trio.lowlevel.checkpoint()
        ended = pauses.end_all() if request.name is None else pauses.end(request.name)
        return Resumed(request.id, ended)

    def _version(self, snapshot_id: int) -> Version:
        return self._snapshots_version(snapshot_id) if snapshot_id else self._reads.engine.version

    def _snapshots_version(self, snapshot_id: int) -> Version:
        snapshot = self._snapshots.get(snapshot_id)
        if snapshot is None:
            raise InvalidRequestError(f"no snapshot {snapshot_id} is open")
        return snapshot.check()

    async def _record(self, version: Version) -> tuple[int, int]:
        """The next event id at ``version``, and the sequence of the last commit."""
        [row] = await self._reads.rows(version, [_RECORD])
        return read_record(row).next_event_id, _changed(row)

    def _sendable(self, reply: R) -> R:
        # A client that keeps to the same bound would hang up on a larger message.
        bound, size = self._limits.message_bytes_max, size_of(reply)
        if size > bound:
            raise LimitExceededError("message_bytes_max", bound, size)
        return reply


def _changed(row: Row | None) -> int:
    return 0 if row is None else row.sequence
