"""store.stream.v1: following the log, and reading one batch of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from exo_stream.feed import CaughtUp, Heartbeat, Progress
from exo_stream.model import Entry
from exo_stream.payload import EncodedBatch
from exo_stream.platform import Platform
from exo_stream.protocol.connect.call import Call
from exo_stream.protocol.connect.generated.stream_pb2 import (
    GetRequest,
    GetResponse,
    SubscribeRequest,
    SubscribeResponse,
)
from exo_stream.protocol.connect.selection import checked_selector, simplest
from exo_stream.scan import PAIR_BYTES
from exo_stream.selectors import StoreSelector
from exo_stream.server.budget import Share
from exo_stream.server.port import Port
from exo_stream.server.request import BodyWriter, Request
from exo_stream.server.store_api.answering import AnyMethod, Method, Piece, Reply, wait_room
from exo_stream.server.store_api.failures import STREAM, batch_not_found
from exo_stream.server.store_api.seating import Seating, seat_of
from exo_stream.starts import FromSequence
from exo_stream.subscription import Delivered, Pulled, Subscription

PROGRESS_HEADER = "x-exo-stream-progress"
"""With it, a stream also has empty frames: how far the log was looked through without a match.

Stock clients of the store skip such frames, and nobody who does not ask gets any.
"""


def checked_subscribe(message: SubscribeRequest) -> tuple[StoreSelector, int]:
    """What is wanted, and from which sequence on; 0 for what is written from now on."""
    selector = checked_selector(message.match_keys, message.value_filters)
    return selector, message.since_sequence_number


def checked_get(message: GetRequest) -> int:
    """The sequence number of the batch that is wanted."""
    return message.sequence_number


class Stream:
    """Answers the stream service."""

    def __init__(self, platform: Platform, port: Port) -> None:
        self._platform = platform
        self._port = port

    def methods(self) -> Mapping[str, AnyMethod]:
        """What it answers, by path."""
        size = self._port.limits.connect_request_bytes_max
        service = "/store.stream.v1.Service"
        return {
            f"{service}/Subscribe": Method(
                SubscribeRequest, checked_subscribe, STREAM, size, stream=self.subscribe
            ),
            f"{service}/Get": Method(
                GetRequest,
                checked_get,
                STREAM,
                size,
                answer=self.get,
                is_safe=True,
                reserve=2 * self._port.limits.page_bytes_max,
            ),
        }

    async def get(self, sequence: int) -> Reply:
        """The whole batch, without deletions."""
        batch = await self._platform.get_batch(sequence)
        if batch is None:
            raise batch_not_found(sequence, self._platform.cursor.sequence)
        entries = [entry for entry in batch.entries if entry.value is not None]

        def build() -> GetResponse:
            message = GetResponse(sequence_number=sequence)
            _add(message, entries)
            return message

        return Reply(Piece(build, _cost(entries)))

    def subscribe(self, asked: tuple[StoreSelector, int], request: Request) -> BatchPieces:
        """The matching batches, until the client leaves."""
        selector, since = asked
        tells_progress = request.head.header(PROGRESS_HEADER) is not None
        return BatchPieces(self._platform, selector, since, tells_progress=tells_progress)


class BatchPieces:
    """The frames of a subscription: one for each batch in which something matches."""

    endless = True

    def __init__(
        self, platform: Platform, selector: StoreSelector, since: int, *, tells_progress: bool
    ) -> None:
        self._sources = platform.sources
        self._subscription = Subscription(platform.sources, simplest(selector))
        self._tells_progress = tells_progress
        self._started = False
        self._seating: Seating | None = None
        # A cursor past the end is live, and what is written from here on is to be delivered.
        newest = self._sources.frontier.visible
        self._start = FromSequence(since if 0 < since <= newest else newest + 1)

    @property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        return {}

    async def next(self, share: Share) -> Sequence[Piece]:
        """What is there; sleeps, holding nothing, when that is nothing."""
        subscription = self._subscription
        if not self._started:
            await subscription.start(self._start)
            self._started = True
        if subscription.following:
            if self._seating is not None:
                return self._told(await self._sit(self._seating))
            return await self._pieces(await subscription.pull(), share)
        if subscription.holds_page:
            await wait_room(share, 2 * self._sources.limits.page_bytes_max)
        pulled = await subscription.pull_ready()
        return [] if pulled is None else await self._pieces(pulled, share)

    async def _pieces(self, pulled: Pulled, share: Share) -> Sequence[Piece]:
        await trio.lowlevel.checkpoint_if_cancelled()
        if isinstance(pulled, Delivered):
            pieces = [piece for batch in pulled.batches if (piece := frame_of(batch)) is not None]
            if not share.held:
                await wait_room(share, sum([piece.cost for piece in pieces]))
            return pieces
        return self._told(pulled)

    def _told(self, pulled: Pulled | None) -> Sequence[Piece]:
        """An empty frame for those who want to know how far it has come."""
        if not self._tells_progress or not isinstance(pulled, CaughtUp | Progress | Heartbeat):
            return []
        sequence = self._subscription.position
        return [Piece(lambda: SubscribeResponse(sequence_number=sequence), 0)]

    async def _sit(self, seating: Seating) -> Progress | Heartbeat | None:
        """Leave the work to the fan-out until the seat is lost or there is something to say."""
        subscription = self._subscription
        seat = subscription.take_seat(seating.encode, seating.try_send)
        try:
            with trio.move_on_after(subscription.patience_seconds):
                await seat.lost.wait()
        finally:
            subscription.leave_seat(seat)
        return None if seat.lost.is_set() else subscription.report()

    def offer_seat(self, call: Call, writer: BodyWriter) -> None:
        """Let the fan-out write to ``writer`` while this stream is at the log's end."""
        self._seating = seat_of(call, frame_of, writer)

    def close(self) -> None:
        """Let go of what the subscription holds."""
        self._subscription.close()


def frame_of(batch: EncodedBatch) -> Piece | None:
    """The frame of a batch; deletions are left out, and a batch of nothing else."""
    sequence = batch.sequence
    pairs = [entry for entry in batch.entries if entry.value is not None]
    if not pairs:
        return None

    def build() -> SubscribeResponse:
        message = SubscribeResponse(sequence_number=sequence)
        _add(message, pairs)
        return message

    return Piece(build, _cost(pairs))


def _add(message: GetResponse | SubscribeResponse, entries: Sequence[Entry]) -> None:
    add = message.entries.add
    for _, key, value in entries:
        assert value is not None
        add(key=key, value=value)


def _cost(entries: Sequence[Entry]) -> int:
    size = sum([len(key) + len(value or b"") for _, key, value in entries])
    return size + PAIR_BYTES * len(entries)
