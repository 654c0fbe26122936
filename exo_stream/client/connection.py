"""One WebSocket connection to a server: what is asked on it, and who waits for which answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from exo_stream.client.call import Call
from exo_stream.errors import ExoStreamError, RemoteProtocolError, UnavailableError
from exo_stream.limits import MIB, Limits
from exo_stream.producers import WINDOW
from exo_stream.protocol import canonical_messages as c
from exo_stream.protocol import closing, codec
from exo_stream.protocol import messages as m
from exo_stream.protocol.closing import Advice
from exo_stream.protocol.failures import error_of
from exo_stream.protocol.frames import Assembly
from exo_stream.protocol.session import Role, Session, State

CLOSED_BY_SERVER: Final = "platform_closed"
"""The code of an answer that is none: the server stops, and a retry elsewhere or later tells."""

NOTES_HELD_MAX: Final = 8_192
"""What waits to be said beside requests, before a server that pings is thought to be mad."""


class Ending(NamedTuple):
    """Why a connection is over."""

    advice: Advice
    reason: str


class Follower(Protocol):
    """A feed, as its connection sees it. All of it is synchronous but for the waiting."""

    def subscribe(self, id_: int) -> m.Subscribe:
        """The request for what it has not received yet; ``id_`` is its id from here on."""

    def subscribed(self, message: m.Subscribed) -> None:
        """The server has resolved its start."""

    def deliver(self, message: m.Delivery, frame_bytes: int) -> None:
        """Something came under an id it has, or had."""

    def failed(self, id_: int, error: ExoStreamError) -> None:
        """The server has ended a subscription it has, or had."""

    def lost(self) -> None:
        """The connection is over."""

    def fail(self, error: ExoStreamError) -> None:
        """There will be no other connection."""

    @property
    def is_full(self) -> bool:
        """Whether it holds more than it should, and there is something to be done about it."""

    async def make_room(self, seconds: float) -> None:
        """Wait so long for its user to take something, else stop the subscription."""


class Connection:
    """Calls and feeds by the ids they have on this connection, and its one session.

    ``answered`` says whether the server has done anything for anybody here yet: if not, the next
    connection is one more attempt of the same.
    """

    def __init__(
        self,
        number: int,
        websocket: WebSocketConnection,
        limits: Limits,
        *,
        room_seconds_max: float,
        ring: Callable[[], None],
        after_frame: Callable[[], None],
    ) -> None:
        self.number = number
        self.calls: dict[int, Call] = {}
        self.feeds: dict[int, Follower] = {}
        self.notes: list[m.Message] = []
        self.answered = False
        self.leaving = False
        self.ending: Ending | None = None
        self.welcome: m.Welcome | None = None
        self.begun_at = self.heard_at = trio.current_time()
        self._websocket = websocket
        self._session = Session(Role.CLIENT, limits)
        self._limits = limits
        self._room_seconds_max = room_seconds_max
        self._ring = ring
        self._after_frame = after_frame
        self._closing = False
        self._next_id = 0
        self._scope = trio.CancelScope()

    async def greet(self, name: str) -> None:
        """Say hello and hear the welcome. Raises UnavailableError if there is none."""
        with trio.move_on_after(self._limits.handshake_seconds_max), self._ending():
            await self._send(self._session.send(m.Hello((m.VERSION,), name)))
            while self._session.state is State.GREETED:
                for message in await self._receive():
                    self._hear(message, 0)
        if self.welcome is not None and self.welcome.version != m.VERSION:
            raise UnavailableError(f"the server speaks version {self.welcome.version} of it")
        if self.welcome is None:
            why = self.ending.reason if self.ending else "it does not answer"
            raise UnavailableError(f"there is no exo-stream server: {why}")

    @contextmanager
    def hanging_up(self) -> Iterator[None]:
        """Run the body until the connection has ended; ``ending`` then says why."""
        with self._scope:
            yield

    def end(self, advice: Advice, reason: str) -> None:
        """Hang up; the first reason stands."""
        if self.ending is None:
            self.ending = Ending(advice, reason)
        if not self._closing:
            self._scope.cancel()

    def announced(self, name: str, otherwise: int) -> int:
        """The server's limit of this name."""
        assert self.welcome is not None
        theirs = self.welcome.limits.get(name)
        return theirs if isinstance(theirs, int) else otherwise

    @property
    def knows_producers(self) -> bool:
        """Whether a write sent again under its number takes effect once."""
        return self.announced("producers", WINDOW) > 0

    @property
    def room(self) -> int:
        """How many more requests may be in flight."""
        own = self._limits.requests_max
        return min(own, self.announced("requests_max", own)) - len(self._session.requests)

    def next_id(self) -> int:
        """A request id that was never used here."""
        self._next_id += 1
        return self._next_id

    def note(self, message: m.Message) -> None:
        """Say this with the next frame; if there is none, it does not matter any more."""
        self.notes.append(message)
        self._ring()

    async def hear(self) -> None:
        """Read and hand out until the connection ends."""
        with self._ending():
            while True:
                frame = await self._websocket.get_message()
                self.heard_at = trio.current_time()
                for message in self._parse(frame):
                    self._hear(message, len(frame))
                self._after_frame()
                for feed in [feed for feed in self.feeds.values() if feed.is_full]:
                    await feed.make_room(self._room_seconds_max)

    async def speak(self, messages: Sequence[m.Message]) -> None:
        """Send these messages as one frame."""
        with self._ending():
            await self._send(self._session.send(*messages))

    async def close(self) -> None:
        """Say goodbye, if the server still listens, and end."""
        self._closing = True
        with trio.move_on_after(self._limits.close_seconds_max), self._ending():
            await self._send(self._session.send(m.Goodbye()))
            await self._websocket.aclose(closing.NORMAL.code)
        self._scope.cancel()

    async def watch(self) -> None:
        """Ping when the server has been silent; hang up when it stays so."""
        while True:
            await trio.sleep(self._limits.ping_seconds / 2)
            silent_seconds = trio.current_time() - self.heard_at
            if silent_seconds > 2 * self._limits.ping_seconds:
                self.end(Advice.RECONNECT, "the server has fallen silent")
            elif silent_seconds > self._limits.ping_seconds:
                self.note(m.Ping(self._next_id))

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """What ends a connection ends it here, with advice, and raises nothing."""
        try:
            yield
        except ConnectionClosed as closed:
            code = closed.reason.code if closed.reason else closing.LOST.code
            text = (closed.reason.reason if closed.reason else "") or ""
            self.end(closing.advice_on(code), f"the connection was closed ({code}) {text}".strip())
        except RemoteProtocolError as error:
            self.end(Advice.BACK_OFF, f"the server broke the protocol: {error}")

    async def _send(self, frame: bytes) -> None:
        with trio.move_on_after(self._limits.send_seconds_max) as scope:
            await self._websocket.send_message(frame)
        if scope.cancelled_caught:
            # A torn frame: nothing can follow it.
            self.end(Advice.RECONNECT, "the server did not take a frame in time")

    async def _receive(self) -> list[m.Message]:
        return self._parse(await self._websocket.get_message())

    def _parse(self, frame: bytes | str) -> list[m.Message]:
        if isinstance(frame, str):
            raise RemoteProtocolError("a text message")
        return self._session.receive(frame)

    def _hear(self, message: m.Message, frame_bytes: int) -> None:
        match message:
            case m.Welcome():
                self.welcome = message
            case m.Failure():
                self._hear_failure(message)
            case m.Ping(nonce=nonce):
                self._answer_ping(nonce)
            case m.GoAway(after_seconds=seconds, reason=reason):
                self.leaving = True
                self._scope.deadline = trio.current_time() + seconds + self._limits.ping_seconds
                self.ending = Ending(Advice.RECONNECT, f"the server went away: {reason}")
            case m.Unsubscribed(id=id_):
                del self.feeds[id_]
            case m.Part(id=id_) if id_ in self.calls:
                self._hear_part(self.calls[id_], message)
            case m.Subscribed(id=id_):
                self.answered = True
                self.feeds[id_].subscribed(message)
            case _ if isinstance(message, m.Reply):
                self._answer(message)
            case _ if isinstance(message, m.Delivery):
                self.answered = True
                self.feeds[message.id].deliver(message, frame_bytes)
            case _:
                pass

    def _answer_ping(self, nonce: int) -> None:
        if len(self.notes) >= NOTES_HELD_MAX:
            raise RemoteProtocolError("more pings than it takes answers to")
        self.note(m.Pong(nonce))

    def _hear_failure(self, failure: m.Failure) -> None:
        if not failure.id:
            self.end(Advice.STOP, f"it refused: {failure.message}")
            return
        if failure.code == CLOSED_BY_SERVER:
            self.end(Advice.BACK_OFF, failure.message)
            return
        # First of all: it raises if the failure is none, and then nobody has been told yet.
        error = error_of(failure)
        self.answered = True
        feed = self.feeds.pop(failure.id, None)
        if feed is not None:
            feed.failed(failure.id, error)
        else:
            self.calls.pop(failure.id).fail(error)

    def _hear_part(self, call: Call, part: m.Part) -> None:
        if call.assembly is None:
            call.assembly = Assembly(self.part_bytes_max)
        whole = call.assembly.add(part.body)
        if whole is None:
            return
        batches = codec.decode_batches(whole)
        if len(batches) != 1:
            raise RemoteProtocolError("not one batch in the parts of one")
        self._answer(m.Found(part.id, batches[0]))

    @property
    def part_bytes_max(self) -> int:
        """No batch is larger when it is put together from parts."""
        # A batch is measured by its keys and values; each entry adds a few bytes to that.
        return 2 * self.announced("batch_bytes_max", self._limits.batch_bytes_max) + 16 * MIB

    def _answer(self, reply: m.Reply) -> None:
        self.answered = True
        call = self.calls.pop(reply.id)
        if call.abandoned and _is_held(reply):
            self.note(m.ScanClose(reply.id))
        call.set(reply)


def _is_held(reply: m.Reply) -> bool:
    """Whether the server holds a snapshot under the answer's id, which somebody must let go."""
    match reply:
        case m.Rows(more=more):
            return more
        case c.StateRows(id=id_, snapshot=snapshot, resume=resume):
            return id_ == snapshot and resume is not None
        case _:
            return isinstance(reply, c.SnapshotOpened)
