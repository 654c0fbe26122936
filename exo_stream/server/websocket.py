"""A WebSocket on our transport: trio-websocket speaks it, and cannot be made to fall over.

Between it and the transport stands a screen that gives it one frame at a time. That is how a ping
behind our Close, two oversize messages in one segment, or a broken frame end as a Close frame
with a code instead of an exception in its reader (DESIGN 8).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, cast

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)

from exo_stream.errors import OverloadedError
from exo_stream.limits import Limits
from exo_stream.logger import log
from exo_stream.protocol import closing
from exo_stream.protocol.closing import Close
from exo_stream.protocol.scanner import CLOSE, PING, FrameScanner, ViolationError, close_frame
from exo_stream.server.budget import Budget, Share
from exo_stream.server.transport import RECEIVE_BYTES, Transport

_CODES_OF_LIBRARY: Final = frozenset({1002, 1007, 1009})
"""With these trio-websocket hangs up, and leaves it to us to say why."""


class Screen:
    """What trio-websocket sees of a transport; it has the methods of ``trio.abc.Stream``.

    Closing it closes nothing: the transport is closed by whoever opened the WebSocket.
    """

    def __init__(
        self, transport: Transport, handshake: bytes, limits: Limits, share: Share
    ) -> None:
        self.verdict: tuple[int, str] | None = None
        self.closing = False
        """Whether a Close of ours is on its way, perhaps behind another frame: no pong any more."""
        self.close_sent = False
        self.close_received = False
        self.pieces = 0
        self._transport = transport
        self._handshake = handshake
        self._scanner = FrameScanner(message_bytes_max=limits.message_bytes_max)
        self._message_seconds_max = limits.message_seconds_max
        self._deadline = -1.0
        self._ended = -1
        self._closed = False
        self._accepted = trio.Event()
        self._share = share

    async def receive_some(self, _max_bytes: int | None = None) -> bytes:
        """The handshake, then a piece at a time; ``b""`` when the conversation is over."""
        if self._closed:
            raise trio.ClosedResourceError
        if self._handshake:
            await trio.lowlevel.checkpoint()
            handshake, self._handshake = self._handshake, b""
            return handshake
        # A frame that reaches wsproto before it has accepted is lost without a word.
        await self._accepted.wait()
        try:
            return await self._next_piece()
        except ViolationError as violation:
            self.verdict = (violation.code, violation.reason)
        except OverloadedError as error:
            self.verdict = (closing.OVERLOADED.code, str(error))
        await trio.lowlevel.checkpoint_if_cancelled()
        return b""

    async def _next_piece(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            piece = self._scanner.next_piece()
            if piece is None:
                data = await self._receive()
                if not data:
                    return b""
                self._scanner.feed(data)
                continue
            self.pieces += 1
            if piece.payload:
                self._share.take(piece.payload)
            if piece.opcode == CLOSE:
                self.close_received = True
                self._transport.refuse_try_send()
            if self._transport.closed:
                return b""
            if piece.opcode != PING or not self.closing:
                # A pong behind our Close would be wrong, and asking for one an exception.
                return piece.data

    async def _receive(self) -> bytes:
        """What arrives, in time if it belongs to a message that has begun."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.close_received:
            return b""
        if self._scanner.is_between_messages:
            return await self._transport.receive_some()
        if self._ended != self._scanner.ended:
            self._ended = self._scanner.ended
            self._deadline = trio.current_time() + self._message_seconds_max
        with trio.move_on_at(self._deadline):
            return await self._transport.receive_some()
        raise ViolationError(1008, "a message did not arrive in time")

    async def send_all(self, data: bytes | bytearray) -> None:
        """Send one frame of trio-websocket's own, or its answer to the handshake."""
        self._accepted.set()
        if data[0] == 0x80 | CLOSE:
            self.close_sent = True
            self._transport.refuse_try_send()
        await self._transport.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for nothing: ``send_all`` does."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Be closed for trio-websocket only: there may be a Close frame to send yet."""
        self._closed = True
        await trio.lowlevel.checkpoint_if_cancelled()


class WebSocket:
    """An open WebSocket: whole messages in, whole frames out, and an end with a code."""

    def __init__(
        self, transport: Transport, screen: Screen, connection: WebSocketConnection, share: Share
    ) -> None:
        self.transport = transport
        self._screen = screen
        self._connection = connection
        self._share = share
        self.has_last_word = False
        """Whether we said Close without waiting for the peer's: it may not have read it yet."""

    async def receive(self) -> bytes | str | None:
        """The next message, None when there will be none.

        Its bytes count against the process's budget until they are ``done``.
        """
        try:
            return await self._connection.get_message()
        except ConnectionClosed:
            await trio.lowlevel.checkpoint_if_cancelled()
            return None

    def done(self, size: int) -> None:
        """So many bytes of what was received are no longer held."""
        self._share.give(size)

    async def send(self, frame: bytes) -> None:
        """Send a whole frame, head and all.

        Raises ClosedResourceError behind a Close frame, BrokenResourceError when the peer is
        gone or took it too late.
        """
        if self._screen.close_sent or self._screen.close_received:
            raise trio.ClosedResourceError("the WebSocket is being closed")
        await self.transport.send_all(frame)

    async def close(self, close: Close, reason: str = "") -> None:
        """Say why, if it is not too late, and let the peer say that it heard."""
        screen, closed = self._screen, self._connection.closed
        screen.closing = True
        await trio.lowlevel.checkpoint()
        if screen.close_sent or self.transport.closed:
            return
        if screen.verdict is not None:
            self.has_last_word = True
            await screen.send_all(close_frame(*screen.verdict))
        elif closed is not None and closed.code in _CODES_OF_LIBRARY:
            self.has_last_word = True
            await screen.send_all(close_frame(closed.code, closed.reason or ""))
        elif closed is None:
            await self._connection.aclose(close.code, reason or close.meaning)

    async def keep_alive(self, ping_seconds: float) -> None:
        """Ping whenever nothing came for so long; a ping not answered ends the connection."""
        while True:
            seen = self._screen.pieces
            await trio.sleep(ping_seconds)
            if self._screen.pieces != seen:
                continue
            with trio.move_on_after(ping_seconds) as scope:
                try:
                    await self._connection.ping()
                except ConnectionClosed:
                    return
            if scope.cancelled_caught:
                log.info("ping unanswered")
                lost = closing.PING_TIMEOUT
                self.transport.try_send(close_frame(lost.code, lost.meaning))
                await self.transport.aclose_forcefully()
                return


Converse = Callable[[WebSocket], Awaitable[Close]]
"""Uses a WebSocket until it is over, and answers how it should be closed."""


async def run_websocket(
    transport: Transport,
    handshake: bytes,
    converse: Converse,
    *,
    subprotocol: str | None,
    limits: Limits,
    budget: Budget,
) -> None:
    """Open a WebSocket by a checked handshake, converse, and close it with a code in any case.

    An error that ``converse`` raises leaves in the end; the peer is told ``internal``.
    """
    with budget.open_share() as share:
        async with trio.open_nursery() as nursery:
            screen = Screen(transport, handshake, limits, share)
            with trio.move_on_after(limits.handshake_seconds_max) as opening:
                request = await wrap_server_stream(
                    nursery,
                    # All of a stream that it uses.
                    cast("trio.abc.Stream", screen),
                    max_message_size=limits.message_bytes_max,
                    receive_buffer_size=RECEIVE_BYTES,
                )
                connection = await _accept(request, subprotocol)
            if opening.cancelled_caught:
                raise trio.BrokenResourceError("the handshake took too long")
            socket = WebSocket(transport, screen, connection, share)
            transport.on_partial = partial(nursery.start_soon, transport.flush_quietly)
            nursery.start_soon(socket.keep_alive, limits.ping_seconds)
            await _converse(socket, converse, limits.close_seconds_max)
            nursery.cancel_scope.cancel()
        await transport.linger(limits.close_seconds_max if socket.has_last_word else 0)


async def _accept(request: WebSocketRequest, subprotocol: str | None) -> WebSocketConnection:
    try:
        return await request.accept(subprotocol=subprotocol)
    except ConnectionClosed:
        raise trio.BrokenResourceError("the peer left before the handshake was over") from None


async def _converse(socket: WebSocket, converse: Converse, close_seconds_max: float) -> None:
    close = closing.INTERNAL
    try:
        close = await converse(socket)
    except trio.Cancelled:
        socket.transport.kill()
        raise
    finally:
        with trio.move_on_after(close_seconds_max, shield=True):
            try:
                await socket.close(close)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await trio.lowlevel.checkpoint()
