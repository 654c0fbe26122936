"""The shell round the session machine: what a client asks on one WebSocket, and what it is told.

One task reads. What it hears is done by others: writes by one task that hands over all that came
since its last time, so that they keep their order; the reads of a frame by a task of that frame;
a subscription by a task of its own. Whoever wants to say something goes through ``send``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import trio

from exo_stream.errors import RemoteProtocolError
from exo_stream.limits import Limits
from exo_stream.logger import log
from exo_stream.platform import Platform
from exo_stream.producers import WINDOW
from exo_stream.protocol import closing
from exo_stream.protocol.closing import Close, close_of
from exo_stream.protocol.frames import websocket_head
from exo_stream.protocol.messages import (
    VERSION,
    GoAway,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    SnapshotNext,
    Subscribe,
    Unsubscribe,
    Welcome,
    Write,
)
from exo_stream.protocol.session import Role, Session, State
from exo_stream.server.answers import Answers, Asked
from exo_stream.server.budget import Budget
from exo_stream.server.following import Encode, Following
from exo_stream.server.websocket import WebSocket
from exo_stream.server.writer import Writer

SERVER: Final = "exo-stream/0.1"

FRAMES_IN_HAND_MAX: Final = 64
"""Frames of requests being answered at once; beyond it nothing is read."""

GRACE_SHARE: Final = 0.3
"""The part of the drain that requests in flight are given before the Close."""

_TOLD_LIMITS: Final = (
    "value_bytes_max",
    "batch_entries_max",
    "batch_bytes_max",
    "get_many_keys_max",
    "message_bytes_max",
    "requests_max",
    "subscriptions_max",
    "frame_bytes_max",
)


class Conversation:
    """One client's session, from its hello to the Close."""

    def __init__(
        self, platform: Platform, socket: WebSocket, limits: Limits, budget: Budget, encode: Encode
    ) -> None:
        self.limits = limits
        self.budget = budget
        self.encode = encode
        self.platform = platform
        self.socket = socket
        self.snapshots = platform.sources.snapshots.share()
        self.session = Session(Role.SERVER, limits)
        self._answers = Answers(self)
        self._writer = Writer(self)
        self.turn = trio.Lock()
        """Held by the one subscription that reads for a client who is behind."""
        self._subscriptions: dict[int, Following] = {}
        self._sends: set[trio.CancelScope] = set()
        self._in_hand = 0
        self._in_hand_bytes = 0
        self._room = trio.Event()
        self._leaving = trio.Event()
        self._reading = trio.CancelScope()
        self._close: Close | None = None

    async def run(self) -> Close:
        """Converse until one side has had enough; answer how to close."""
        async with self._answers, trio.open_nursery() as nursery:
            nursery.start_soon(self._writer.run)
            nursery.start_soon(self._go_away)
            try:
                with self._reading:
                    await self._read(nursery)
            except trio.Cancelled:
                # By force: a send under way would otherwise be waited for.
                self.socket.transport.kill()
                raise
            self._settle()
            nursery.cancel_scope.cancel()
        return self._close or closing.NORMAL

    def stop(self, close: Close) -> None:
        """End the conversation with this Close, unless it ends with another one already."""
        self._close = self._close or close
        self._reading.cancel()

    def leave(self) -> None:
        """The server stops: say so, finish what is in hand, then close."""
        self._leaving.set()

    async def send(self, *messages: Message) -> None:
        """Say something, in one frame. A connection that is gone is not an error here."""
        if self.session.state is State.CLOSED:
            # The client has taken its leave while this was being found out.
            await trio.lowlevel.checkpoint()
            return
        frame = self.session.send(*messages)
        await self.send_whole(websocket_head(len(frame)) + frame)

    async def send_whole(self, data: bytes) -> None:
        """Send what has its WebSocket head already.

        A frame that is torn costs the connection, so a send outlives its sender: it ends by the
        send deadline, or by the end of the conversation.
        """
        with trio.CancelScope(shield=True) as scope:
            self._sends.add(scope)
            try:
                await self.socket.send(data)
            except trio.BrokenResourceError:
                self.stop(closing.SLOW_CONSUMER)
            except trio.ClosedResourceError:
                self.stop(closing.NORMAL)
            finally:
                self._sends.discard(scope)
        await trio.lowlevel.checkpoint_if_cancelled()

    def _settle(self) -> None:
        """Sends under way get as long as a Close would; nothing new begins."""
        for following in self._subscriptions.values():
            following.leave_seat()
        deadline = trio.current_time() + self.limits.close_seconds_max
        for scope in self._sends:
            scope.deadline = min(scope.deadline, deadline)

    async def _go_away(self) -> None:
        await self._leaving.wait()
        seconds = self.limits.drain_seconds_max
        await self.send(GoAway(seconds, "the server stops"))
        with trio.move_on_after(seconds * GRACE_SHARE):
            while self._in_hand:
                await self._wait_room()
        self.stop(closing.GOING_AWAY)

    async def _read(self, nursery: trio.Nursery) -> None:
        if not await self._greet():
            return
        while (frame := await self._next_frame()) is not None:
            try:
                heard = self.session.receive(frame)
            except RemoteProtocolError as error:
                self.socket.done(len(frame))
                log.info("client misspoke", reason=str(error))
                self._close = close_of(error)
                return
            if not await self._hear(heard, len(frame), nursery):
                return

    async def _next_frame(self) -> bytes | None:
        """The next frame, when there is room to answer it; None when there will be none."""
        while self._in_hand >= FRAMES_IN_HAND_MAX or (
            self._in_hand_bytes > self.limits.message_bytes_max
        ):
            await self._wait_room()
        message = await self.socket.receive()
        if isinstance(message, str):
            self._close = closing.WRONG_TYPE
            return None
        return message

    async def _wait_room(self) -> None:
        self._room = trio.Event()
        await self._room.wait()

    async def _greet(self) -> bool:
        frame: bytes | None = None
        with trio.move_on_after(self.limits.handshake_seconds_max):
            frame = await self._next_frame()
        if frame is None:
            self._close = self._close or closing.BAD_MESSAGE
            return False
        try:
            [hello, *early] = self.session.receive(frame)
        except RemoteProtocolError as error:
            self._close = close_of(error)
            return False
        self.socket.done(len(frame))
        assert isinstance(hello, Hello), hello
        if early or VERSION not in hello.versions:
            self._close = closing.BAD_MESSAGE if early else closing.WRONG_VERSION
            return False
        await self.send(self._welcome())
        return True

    def _welcome(self) -> Welcome:
        platform = self.platform
        version = platform.sources.reads.engine.version
        frontier = platform.cursor.sequence
        oldest = version.floor if version.floor <= frontier else None
        told = {name: int(getattr(self.limits, name)) for name in _TOLD_LIMITS}
        told["producers"] = 0 if platform.sources.reads.engine.own_sequences else WINDOW
        return Welcome(VERSION, platform.log_id, frontier, oldest, told, SERVER)

    async def _hear(self, heard: list[Message], size: int, nursery: trio.Nursery) -> bool:
        """Have everything of one frame done; False when the client takes its leave."""
        await trio.lowlevel.checkpoint_if_cancelled()
        frame = _InHand(self, size)
        writes: list[Write] = []
        reads: list[Asked] = []
        for message in heard:
            match message:
                case Write():
                    writes.append(message)
                case Subscribe():
                    self._subscribe(message, nursery)
                case Unsubscribe() | SnapshotNext():
                    self._tell(message)
                case Ping():
                    await self.send(Pong(message.nonce))
                case Goodbye():
                    self._close = closing.NORMAL
                    return False
                case Pong():
                    pass
                case _:
                    # The session has seen to it that the client says only what it may.
                    reads.append(cast("Asked", message))
        if writes:
            self._writer.take(writes, frame.take())
        if reads:
            nursery.start_soon(self._answers.answer, reads, frame.take())
        frame.done()
        return True

    def _subscribe(self, request: Subscribe, nursery: trio.Nursery) -> None:
        following = Following(self, request)
        self._subscriptions[request.id] = following
        too_many = len(self._subscriptions) > self.limits.subscriptions_max
        nursery.start_soon(self._follow, following, too_many)

    async def _follow(self, following: Following, too_many: bool) -> None:
        try:
            await following.run(too_many=too_many)
        finally:
            self._subscriptions.pop(following.id, None)

    def _tell(self, message: Unsubscribe | SnapshotNext) -> None:
        following = self._subscriptions.get(message.id)
        if following is None:
            return
        if isinstance(message, Unsubscribe):
            following.cancel()
        else:
            following.page_taken()

    def begin(self, size: int) -> None:
        """A frame of ``size`` bytes is in hand."""
        self._in_hand += 1
        self._in_hand_bytes += size

    def finish(self, size: int) -> None:
        """A frame of ``size`` bytes has been answered."""
        self._in_hand -= 1
        self._in_hand_bytes -= size
        self.socket.done(size)
        self._room.set()


class _InHand:
    """One frame, until everything in it is answered."""

    def __init__(self, conversation: Conversation, size: int) -> None:
        self._conversation = conversation
        self._size = size
        self._parts = 1
        conversation.begin(size)

    def take(self) -> Callable[[], None]:
        """What must be called when one more part of the frame is answered."""
        self._parts += 1
        return self.done

    def done(self) -> None:
        """One part of the frame is answered."""
        self._parts -= 1
        if not self._parts:
            self._conversation.finish(self._size)
