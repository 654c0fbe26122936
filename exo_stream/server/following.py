"""One subscription of a connection: it pulls, or has a seat that the fan-out writes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, assert_never

import trio

from exo_stream import feed
from exo_stream.errors import ExoStreamError, LimitExceededError
from exo_stream.interest import Seat
from exo_stream.model import Entry
from exo_stream.payload import EncodedBatch
from exo_stream.protocol import closing
from exo_stream.protocol import messages as m
from exo_stream.protocol.failures import failure
from exo_stream.protocol.frames import HEAD_BYTES_MAX, SharedBody, runs, split
from exo_stream.server.budget import Share
from exo_stream.subscription import Delivered, Pulled, Subscription

if TYPE_CHECKING:
    from exo_stream.server.conversation import Conversation

Encode = Callable[[Sequence[EncodedBatch]], Sequence[SharedBody]]

_ROW_BYTES = 16
"""What a row of a snapshot page takes on the wire beside its key and value."""


def encoder(frame_bytes_max: int) -> Encode:
    """The function that every seat of a port shares, so that a frame is encoded once for all."""

    def encode(batches: Sequence[EncodedBatch]) -> list[SharedBody]:
        return split([(b.sequence, b.committed_at, b.payload) for b in batches], frame_bytes_max)

    return encode


class Following:
    """One subscription, from its request to ``Unsubscribed`` or a ``Failure``."""

    def __init__(self, conversation: Conversation, request: m.Subscribe) -> None:
        self.id = request.id
        self._conversation = conversation
        self._request = request
        self._scope = trio.CancelScope()
        self._subscription = Subscription(
            conversation.platform.sources,
            request.selector,
            heartbeat_seconds=request.heartbeat,
            snapshots=conversation.snapshots,
        )
        self._seat: Seat[SharedBody] | None = None
        self._pages_ahead = 0
        self._page_taken = trio.Event()

    def cancel(self) -> None:
        """End it: from here on the fan-out writes nothing; ``Unsubscribed`` comes last."""
        self.leave_seat()
        self._scope.cancel()

    def page_taken(self) -> None:
        """The client has room for one more page of a snapshot."""
        self._pages_ahead = max(0, self._pages_ahead - 1)
        self._page_taken.set()

    def leave_seat(self) -> None:
        """Give the seat up, if there is one, and go on behind what it took."""
        seat, self._seat = self._seat, None
        if seat is not None:
            self._subscription.leave_seat(seat)

    async def run(self, *, too_many: bool) -> None:
        """Deliver until it is cancelled or cannot go on; say so at its end."""
        end: m.Message = m.Unsubscribed(self.id)
        try:
            if too_many:
                bound = self._conversation.limits.subscriptions_max
                raise LimitExceededError("subscriptions_max", bound, bound + 1)
            # Outside the scope: a subscription that is ended before it began has begun first.
            cursor = await self._subscription.start(self._request.start)
            await self._conversation.send(m.Subscribed(self.id, cursor))
            with self._scope:
                while True:
                    await self._step()
        except ExoStreamError as error:
            end = failure(self.id, error)
        finally:
            self.leave_seat()
            self._subscription.close()
        await self._conversation.send(end)

    async def _step(self) -> None:
        conversation, subscription = self._conversation, self._subscription
        if not subscription.following:
            await self._wait_pages_taken()
            # One at a time, or the subscriptions of a client that does not read would each hold
            # a page of its own. And none sleeps in its turn, or the others would sleep with it.
            async with conversation.turn:
                await self._pull_page()
        elif conversation.socket.transport.has_socket:
            await self._sit()
        else:
            await self._deliver(await subscription.pull())

    async def _pull_page(self) -> None:
        """Pull, and send what came; what it holds meanwhile is counted before it is read."""
        limits = self._conversation.limits
        with self._conversation.budget.open_share() as share:
            if self._subscription.holds_page:
                await share.wait_take(limits.page_bytes_max + limits.frame_bytes_max)
            pulled = await self._subscription.pull_ready()
            if isinstance(pulled, Delivered):
                await self._deliver_batches(pulled.batches, share)
            elif pulled is not None:
                await self._deliver(pulled)

    async def _wait_pages_taken(self) -> None:
        # Not while holding the turn: a slow snapshot must not keep the others from theirs.
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._pages_ahead >= m.SNAPSHOT_PAGES_MAX:
            self._page_taken = trio.Event()
            await self._page_taken.wait()

    async def _sit(self) -> None:
        """Leave the work to the fan-out until the seat is lost or it is time to say something."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._seat = self._subscription.take_seat(self._conversation.encode, self._try_send)
        lost = self._seat.lost
        with trio.move_on_after(self._subscription.patience_seconds):
            await lost.wait()
        self.leave_seat()
        if lost.is_set():
            return
        report = self._subscription.report()
        if report is not None:
            await self._deliver(report)

    def _try_send(self, body: SharedBody) -> bool:
        return self._conversation.socket.transport.try_send(body.websocket_head(self.id), body.body)

    async def _deliver(self, pulled: Pulled) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        conversation = self._conversation
        match pulled:
            case Delivered(batches):
                with conversation.budget.open_share() as share:
                    await self._deliver_batches(batches, share)
            case feed.SnapshotPage(entries=entries):
                for rows in runs(entries, _entry_bytes, conversation.limits.frame_bytes_max):
                    self._pages_ahead += 1
                    await conversation.send(m.Snapshot(self.id, tuple(rows)))
            case feed.FellBehind() if self._request.slow == "disconnect":
                conversation.stop(closing.SLOW_CONSUMER)
                await trio.lowlevel.checkpoint()
            case _:
                await conversation.send(self._message(pulled))

    async def _deliver_batches(self, batches: Sequence[EncodedBatch], share: Share) -> None:
        """One frame after the other; only the one being sent is held encoded.

        What ``share`` holds already covers the page and its frames. To take more while holding
        that could leave all who send waiting for one another.
        """
        conversation = self._conversation
        await trio.lowlevel.checkpoint_if_cancelled()
        covered = share.held > 0
        for some in runs(batches, _batch_bytes, conversation.limits.frame_bytes_max):
            size = 0 if covered else sum(map(_batch_bytes, some))
            await share.wait_take(size)
            for body in conversation.encode(some):
                await conversation.send_whole(body.websocket_head(self.id) + body.body)
            share.give(size)

    def _message(
        self,
        pulled: feed.SnapshotBegin
        | feed.SnapshotEnd
        | feed.CaughtUp
        | feed.FellBehind
        | feed.Progress
        | feed.Heartbeat,
    ) -> m.Message:
        match pulled:
            case feed.SnapshotBegin(sequence):
                return m.SnapshotBegin(self.id, sequence)
            case feed.SnapshotEnd(cursor):
                return m.SnapshotEnd(self.id, cursor)
            case feed.CaughtUp(cursor):
                return m.CaughtUp(self.id, cursor)
            case feed.FellBehind(cursor, behind):
                return m.FellBehind(self.id, cursor, behind)
            case feed.Progress(cursor):
                return m.Progress(self.id, cursor)
            case feed.Heartbeat(frontier):
                return m.Heartbeat(self.id, frontier)
            case _:
                assert_never(pulled)


def _batch_bytes(batch: EncodedBatch) -> int:
    return len(batch.payload) + HEAD_BYTES_MAX


def _entry_bytes(entry: Entry) -> int:
    return len(entry.key) + len(entry.value or b"") + _ROW_BYTES
