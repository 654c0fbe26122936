"""What one connection asks beside puts: gets together, scans kept open, the requests of faces."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Self, assert_never

import trio

from exo_stream.errors import (
    ExoStreamError,
    InvalidRequestError,
    LimitExceededError,
    NotVisibleYetError,
)
from exo_stream.model import VersionedValue
from exo_stream.payload import encode_entries
from exo_stream.protocol.canonical_messages import (
    CanonicalRequest,
    ReadEvents,
    ReadState,
    ScanState,
)
from exo_stream.protocol.failures import failure
from exo_stream.protocol.frames import batches_body, runs
from exo_stream.protocol.messages import (
    DeliveredBatch,
    FieldValue,
    Found,
    Get,
    GetBatch,
    GetMany,
    Info,
    Information,
    Message,
    Pair,
    Part,
    PartBody,
    Prune,
    Pruned,
    Rows,
    Scan,
    ScanClose,
    ScanNext,
    Value,
    Values,
)
from exo_stream.protocol.policies import (
    GetRetention,
    PolicyRequest,
    PrunePolicies,
    SetRetention,
)
from exo_stream.protocol.projection_messages import ProjectionRequest, ReadDeadLetters
from exo_stream.protocol.reductions import Reduce
from exo_stream.protocol.stream_messages import ListStreams, ReadStream, StreamRequest
from exo_stream.scan import Scan as StoreScan
from exo_stream.scan import bounds
from exo_stream.server import canonical_answers, projection_answers, stream_answers
from exo_stream.server.budget import Share
from exo_stream.server.canonical_answers import CanonicalAnswers
from exo_stream.server.policies import answered
from exo_stream.server.reductions import reduced
from exo_stream.server.transport import RECEIVE_BYTES

if TYPE_CHECKING:
    from exo_stream.server.conversation import Conversation

StoreRequest = Get | GetMany | Scan | ScanNext | ScanClose | Reduce | GetBatch | Info | Prune
FaceRequest = StreamRequest | CanonicalRequest | ProjectionRequest
Asked = StoreRequest | PolicyRequest | FaceRequest
PageRequest = ReadStream | ListStreams | ReadState | ScanState | ReadEvents | ReadDeadLetters
"""The requests of faces that are answered with a page."""

Done = Callable[[], None]

_ROW_BYTES = 16
"""What a row takes on the wire beside its key and its value, at most."""


class Answers:
    """Answers requests; each frame's in one task, its gets with one look at the table."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._platform = conversation.platform
        self._limits = conversation.limits
        self._scans: dict[int, StoreScan] = {}
        self._canonical = CanonicalAnswers(
            conversation.platform, conversation.snapshots, conversation.limits
        )
        self._reducing = trio.Lock()
        """Held by the one reduce of this client, so that others have their turn."""
        self._turn = trio.Lock()
        """Held by the one that reads and sends a page or a batch: a client that asks for many and
        does not read what it is sent would have them all held for it."""

    async def answer(self, asked: Sequence[Asked], done: Done) -> None:
        """Answer the requests of one frame, then call ``done``."""
        gets: defaultdict[tuple[int, bool], list[Get | GetMany]] = defaultdict(list)
        others: list[Asked] = []
        for request in asked:
            if isinstance(request, Get | GetMany):
                gets[request.min_sequence, request.wait].append(request)
            else:
                others.append(request)
        try:
            async with trio.open_nursery() as nursery:
                for same in gets.values():
                    nursery.start_soon(self._get, same)
                for request in others:
                    nursery.start_soon(self._answer, request)
        finally:
            done()

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self

    async def __aexit__(self, *_: object) -> None:
        for scan_id in tuple(self._scans):
            self._close_scan(scan_id)
        self._canonical.close_all()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _get(self, asked: Sequence[Get | GetMany]) -> None:
        """Answer gets that want the same sequence, all at one."""
        await trio.lowlevel.checkpoint_if_cancelled()
        bound = self._limits.get_many_keys_max
        replies: list[Message] = []
        fitting: list[Get | GetMany] = []
        for request in asked:
            count = _key_count(request)
            if count > bound:
                error = LimitExceededError("get_many_keys_max", bound, count)
                replies.append(failure(request.id, error))
            else:
                fitting.append(request)
        try:
            await self._wait_visible(asked[0].min_sequence, wait=asked[0].wait)
        except ExoStreamError as error:
            replies += [failure(request.id, error) for request in fitting]
            fitting = []
        async with self._turn:
            with self._conversation.budget.open_share() as share:
                # As many at once as ask for no more keys together than one may.
                await self._get_in_turn(deque(runs(fitting, _key_count, bound)), replies, share)

    async def _get_in_turn(
        self, waiting: deque[list[Get | GetMany]], replies: list[Message], share: Share
    ) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while waiting:
            run = waiting.popleft()
            try:
                replies += await self._look_up(run, share)
            except ExoStreamError as error:
                if len(run) > 1:
                    # Neither may one bad key spoil its neighbours' answers, nor may values that
                    # are too much together.
                    waiting.extendleft([one] for one in reversed(run))
                    continue
                replies.append(failure(run[0].id, error))
            if sum(map(_size, replies)) >= self._limits.frame_bytes_max:
                await self._send_in_frames(replies, share)
                replies = []
        if replies:
            await self._send_in_frames(replies, share)

    async def _look_up(self, asked: Sequence[Get | GetMany], share: Share) -> list[Message]:
        keys = [key for request in asked for key in _keys(request)]
        entries = await self._entries(keys, share)
        found = iter(entries)
        sequence = entries[0].sequence if entries else self._platform.cursor.sequence
        return [self._sendable(_reply(r, sequence, [next(found) for _ in _keys(r)])) for r in asked]

    async def _entries(self, keys: Sequence[bytes], share: Share) -> list[VersionedValue]:
        """The entries; more than a frame of values is counted before it is read."""
        if not share.held:
            try:
                return await self._platform.get_entries(
                    keys, bytes_max=self._limits.frame_bytes_max
                )
            except LimitExceededError:
                await share.wait_take(
                    self._limits.get_many_bytes_max + self._limits.message_bytes_max
                )
        return await self._platform.get_entries(keys)

    def _sendable(self, reply: Value | Values) -> Message:
        # A client that keeps to the same bound would hang up on a larger message.
        bound, size = self._limits.message_bytes_max, _size(reply)
        if size > bound:
            return failure(reply.id, LimitExceededError("message_bytes_max", bound, size))
        return reply

    async def _wait_visible(self, min_sequence: int, *, wait: bool) -> None:
        """Wait for a sequence to become visible, for as long as a query may take."""
        frontier = self._platform.sources.frontier
        await trio.lowlevel.checkpoint_if_cancelled()
        if min_sequence <= frontier.visible:
            return
        if wait:
            with trio.move_on_after(self._limits.query_seconds_max):
                await frontier.wait_visible(min_sequence)
                return
        raise NotVisibleYetError(frontier.visible, min_sequence)

    async def _send_in_frames(self, replies: Sequence[Message], share: Share) -> None:
        """Say it in one frame, or in more if that would be a large one.

        What ``share`` holds covers them: to take more while holding it could leave all who
        answer waiting for one another.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        for frame in runs(replies, _size, self._limits.frame_bytes_max):
            await self._send_counted(frame, 0 if share.held else sum(map(_size, frame)))

    async def _send_counted(self, messages: Sequence[Message], size: int) -> None:
        if size < RECEIVE_BYTES:
            await self._conversation.send(*messages)
            return
        with self._conversation.budget.open_share() as share:
            await share.wait_take(size)
            await self._conversation.send(*messages)

    async def _answer(self, request: Asked) -> None:
        try:
            if isinstance(request, PageRequest):
                async with self._turn:
                    await self._answer_face(request)
            elif isinstance(request, FaceRequest):
                await self._answer_face(request)
            else:
                await self._answer_store(request)
        except ExoStreamError as error:
            if isinstance(request, ScanClose):
                raise
            await self._conversation.send(failure(request.id, error))

    async def _answer_store(self, request: StoreRequest | PolicyRequest) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        send = self._conversation.send
        match request:
            case Scan():
                await self._open_scan(request)
            case ScanNext():
                await self._next_rows(request.id, request.scan)
            case ScanClose():
                self._close_scan(request.scan)
                self._canonical.close(request.scan)
            case Reduce():
                await self._reduce(request)
            case GetBatch():
                async with self._turn:
                    await self._get_batch(request)
            case Info():
                await send(await self._information(request.id))
            case Prune():
                count = await self._platform.prune_batch_log(request.cutoff_exclusive)
                await send(Pruned(request.id, count))
            case PrunePolicies() | SetRetention() | GetRetention():
                await send(await answered(self._platform, request))
            case Get() | GetMany():
                raise AssertionError(request)
            case _:
                assert_never(request)

    async def _reduce(self, request: Reduce) -> None:
        await self._wait_visible(request.min_sequence, wait=request.wait)
        # Not in the turn of pages: gets that come after it are not to wait for a long one.
        async with self._reducing:
            answer, size = await reduced(self._platform, request)
            await self._send_counted([answer], size)

    async def _answer_face(self, request: FaceRequest) -> None:
        reply, size = await self._found(request)
        await self._send_counted([reply], size)

    async def _found(self, request: FaceRequest) -> tuple[Message, int]:
        """The answer, and about how many bytes it has on the wire."""
        frame_bytes = self._limits.frame_bytes_max
        if isinstance(request, StreamRequest):
            streams = self._platform.streams
            about = await stream_answers.answered(streams, request, frame_bytes=frame_bytes)
            return about, stream_answers.size_of(about)
        if isinstance(request, CanonicalRequest):
            state = await self._canonical.answered(request)
            return state, canonical_answers.size_of(state)
        projections = await projection_answers.answered(
            self._platform.canonical, request, frame_bytes=frame_bytes
        )
        return projections, projection_answers.size_of(projections)

    async def _open_scan(self, request: Scan) -> None:
        await self._wait_visible(request.min_sequence, wait=request.wait)
        sources = self._platform.sources
        low, high = bounds(request.start, request.end)
        scan = StoreScan(
            sources.reads,
            self._conversation.snapshots,
            low,
            high,
            forward=request.forward,
            limit=request.limit,
        )
        async with self._turn:
            rows = await scan.first_page(self._limits.frame_bytes_max)
            if not scan.is_read:
                self._scans[request.id] = scan
            await self._send_rows(request.id, scan, rows)

    async def _next_rows(self, id_: int, scan_id: int) -> None:
        async with self._turn:
            scan = self._scans.get(scan_id)
            if scan is None:
                raise InvalidRequestError(f"no scan {scan_id} is open")
            is_over = True
            try:
                rows = await scan.next_page(self._limits.frame_bytes_max)
                is_over = scan.is_read
            finally:
                if is_over:
                    self._close_scan(scan_id)
            await self._send_rows(id_, scan, rows or [])

    async def _send_rows(self, id_: int, scan: StoreScan, rows: Sequence[Pair]) -> None:
        size = sum(len(key) + len(value) for key, value in rows)
        answer = Rows(id_, scan.sequence, tuple(rows), not scan.is_read)
        await self._send_counted([answer], size)

    def _close_scan(self, scan_id: int) -> None:
        scan = self._scans.pop(scan_id, None)
        if scan is not None:
            scan.close()

    async def _get_batch(self, request: GetBatch) -> None:
        batch = await self._platform.get_batch(request.sequence)
        if batch is None:
            await self._conversation.send(Found(request.id, None))
            return
        payload = encode_entries(batch.entries)
        room = self._limits.frame_bytes_max
        if len(payload) <= room:
            delivered = DeliveredBatch(batch.sequence, batch.committed_at, batch.entries)
            await self._conversation.send(Found(request.id, delivered))
            return
        body = batches_body([(batch.sequence, batch.committed_at, payload)])
        with self._conversation.budget.open_share() as share:
            await share.wait_take(len(body))
            for offset in range(0, len(body), room):
                part = PartBody(len(body), offset, body[offset : offset + room])
                await self._conversation.send(Part(request.id, part))

    async def _information(self, id_: int) -> Information:
        info = await self._platform.info()
        sizes: dict[str, FieldValue] = {
            "subscribers": info.subscribers,
            "retention_problem": info.retention_problem,
        }
        sizes.update(asdict(info.sizes))
        sizes.update(asdict(info.statistics))
        return Information(id_, info.log_id, info.frontier, info.oldest, sizes)


def _keys(request: Get | GetMany) -> Sequence[bytes]:
    return request.keys if isinstance(request, GetMany) else (request.key,)


def _key_count(request: Get | GetMany) -> int:
    return len(_keys(request))


def _reply(
    request: Get | GetMany, sequence: int, found: Sequence[VersionedValue]
) -> Value | Values:
    if isinstance(request, Get):
        [entry] = found
        return Value(request.id, sequence, entry.version, entry.value)
    return Values(request.id, sequence, tuple(entry.value for entry in found))


def _size(reply: Message) -> int:
    match reply:
        case Value(value=value):
            return _ROW_BYTES + len(value or b"")
        case Values(values=values):
            return sum(_ROW_BYTES + len(value or b"") for value in values)
        case _:
            return 256
