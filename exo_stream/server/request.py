"""One HTTP request as a handler sees it: its head, its body as a stream, its peer's presence."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from exo_stream.errors import LimitExceededError
from exo_stream.limits import Limits
from exo_stream.protocol.http import (
    CONTINUE,
    LAST_CHUNK,
    EndOfBody,
    Event,
    Head,
    RefusedError,
    RequestParser,
    chunk_head,
)
from exo_stream.server.budget import Share
from exo_stream.server.transport import RECEIVE_BYTES, Transport


class Inbound:
    """What a connection receives, parsed; while a response runs, it may read ahead."""

    def __init__(self, transport: Transport, limits: Limits) -> None:
        self.transport = transport
        self.limits = limits
        self.parser = RequestParser(
            head_bytes_max=limits.head_bytes_max, headers_max=limits.headers_max
        )
        self.nursery: trio.Nursery | None = None
        self._ahead: deque[bytes] = deque()

    async def next_event(self) -> Event | None:
        """The next event, ``None`` at the peer's end of file.

        Raises RefusedError for bytes that are no request.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while (event := self.parser.next_event()) is None:
            data = self._ahead.popleft() if self._ahead else await self.transport.receive_some()
            if not data:
                return None
            self.parser.feed(data)
        return event

    def next_now(self) -> Event | None:
        """The next event of what has been received; ``None`` if more is needed for it.

        Raises RefusedError for bytes that are no request.
        """
        while (event := self.parser.next_event()) is None and self._ahead:
            self.parser.feed(self._ahead.popleft())
        return event

    @property
    def idle(self) -> bool:
        """Whether no part of a next request has arrived."""
        return self.parser.idle and not self._ahead

    @property
    def rest(self) -> bytes:
        """What has been received and not been parsed."""
        return b"".join((self.parser.rest, *self._ahead))

    async def wait_bytes(self) -> bool:
        """Wait for the first bytes of a request: False at the peer's end of file."""
        assert not self._ahead
        self._ahead.append(await self.transport.receive_some())
        return bool(self._ahead[0])

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Inside, the peer's leaving cancels what runs; then BrokenResourceError is raised."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope() as inside:
            watch, done = trio.CancelScope(), trio.Event()
            assert self.nursery is not None
            self.nursery.start_soon(self._watch, inside, watch, done)
            try:
                yield
            finally:
                watch.cancel()
                # Two tasks cannot read one socket: the watcher must be out of it. It is at once.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await done.wait()
        if inside.cancelled_caught:
            raise trio.BrokenResourceError("the peer left")
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _watch(
        self, inside: trio.CancelScope, watch: trio.CancelScope, done: trio.Event
    ) -> None:
        size = 0
        try:
            with watch:
                while size < RECEIVE_BYTES:
                    data = await self.transport.receive_some()
                    if not data:
                        inside.cancel()
                        break
                    size += len(data)
                    self._ahead.append(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            inside.cancel()
        finally:
            done.set()
        await trio.lowlevel.checkpoint_if_cancelled()


class Request:
    """One request. Its body is read at most once, by ``receive`` or by ``read``."""

    def __init__(self, head: Head, remote: str, inbound: Inbound, share: Share) -> None:
        self.head = head
        self.remote = remote
        self._inbound = inbound
        self._share = share
        self._received = 0
        self._deadline = trio.current_time() + inbound.limits.body_seconds_max
        self._expects = (
            head.version == "1.1" and head.has_body and head.header("expect") is not None
        )
        self.bytes_max = inbound.limits.body_bytes_max
        """A larger body is refused: before it is sent, where its head tells."""
        self.finished = False
        """Whether the whole body has been received."""
        self.failed = False
        """Whether it never will be: it is too large, too late, or no HTTP."""

    @property
    def continues(self) -> bool:
        """Whether the peer waits to be told that it may send its body."""
        return self._expects

    def read_now(self) -> bytes | None:
        """The whole body if it came with its head, as most do, held as ``read`` holds it; or None,
        and nothing has changed.
        """
        if self.finished or self._expects or self.failed or self._received:
            return None
        if self.head.length is None or self.head.length > self.bytes_max:
            return None
        body = self._inbound.parser.whole_body()
        if body is not None:
            self.finished = True
            self._received = len(body)
            self._share.take(len(body))
        return body

    async def receive(self) -> bytes:
        """The next piece of the body, ``b""`` at its end.

        Raises LimitExceededError beyond ``bytes_max``, RefusedError when it is late or no
        HTTP, BrokenResourceError when the peer left in the middle.
        """
        if self.finished:
            await trio.lowlevel.checkpoint()
            return b""
        self.failed = True
        if self.head.length is not None:
            self._check_size(self.head.length)
        if self._expects:
            self._expects = False
            await self._inbound.transport.send_all(CONTINUE)
        with trio.move_on_at(self._deadline) as scope:
            event = await self._inbound.next_event()
        if scope.cancelled_caught:
            raise RefusedError(408, "invalid_request", "the body did not arrive in time")
        piece = self._piece(event)
        self.failed = False
        return piece

    def _piece(self, event: Event | None) -> bytes:
        if event is None:
            raise trio.BrokenResourceError("the peer left in the middle of a body")
        if isinstance(event, EndOfBody):
            self.finished = True
            return b""
        assert isinstance(event, bytes), event
        self._received += len(event)
        self._check_size(self._received)
        return event

    def _check_size(self, size: int) -> None:
        if size > self.bytes_max:
            raise LimitExceededError("body_bytes_max", self.bytes_max, size)

    async def read(self, bytes_max: int | None = None) -> bytes:
        """The whole body, held against the process's budget until the response is sent.

        It may have ``bytes_max``, if told, in place of ``body_bytes_max``. Raises what ``receive``
        raises, and OverloadedError when the budget is used up.
        """
        if bytes_max is not None:
            self.bytes_max = bytes_max
        pieces: list[bytes] = []
        while piece := await self.receive():
            self._share.take(len(piece))
            pieces.append(piece)
        return b"".join(pieces)

    def watched(self) -> AbstractAsyncContextManager[None]:
        """Inside ``async with``, the peer's leaving cancels what runs: for a long poll."""
        return self._inbound.watched()

    def hold(self, size: int) -> None:
        """Count ``size`` bytes more of this exchange, as of a body decompressed or a page.

        Raises OverloadedError when the budget is used up.
        """
        self._share.take(size)

    async def wait_hold(self, size: int) -> None:
        """Count ``size`` bytes more of this exchange as soon as there is room for them."""
        await self._share.wait_take(size)

    def release(self, size: int) -> None:
        """Count ``size`` bytes less."""
        self._share.give(size)

    @property
    def share(self) -> Share:
        """What this exchange holds of the process's budget."""
        return self._share

    @property
    def nursery(self) -> trio.Nursery:
        """The connection's own, for what must run beside the answer."""
        assert self._inbound.nursery is not None
        return self._inbound.nursery


class BodyWriter:
    """Sends the body of one streamed response, in chunks where the peer knows them."""

    def __init__(self, transport: Transport, *, chunked: bool) -> None:
        self._transport = transport
        self._chunked = chunked

    async def send(self, data: bytes) -> None:
        """Send a piece. Raises BrokenResourceError when the peer is gone or too slow."""
        if not data:
            await trio.lowlevel.checkpoint()
        elif self._chunked:
            await self._transport.send_all(b"".join((chunk_head(len(data)), data, b"\r\n")))
        else:
            await self._transport.send_all(data)

    @property
    def can_have_seat(self) -> bool:
        """Whether ``try_send`` can work at all."""
        return self._transport.has_socket

    def try_send(self, head: bytes, body: bytes) -> bool:
        """Send a piece without waiting, as ``Transport.try_send`` does."""
        if not self._chunked:
            return self._transport.try_send(head, body)
        chunk = chunk_head(len(head) + len(body))
        return self._transport.try_send(chunk + head, body, b"\r\n")

    def try_send_encoded(self, chunk: bytes, piece: bytes) -> bool:
        """Send a piece that others are sent too, for whom it was made a chunk already."""
        return self._transport.try_send(chunk if self._chunked else piece)

    async def finish(self) -> None:
        """Say that the body is whole."""
        await self._transport.send_all(LAST_CHUNK if self._chunked else b"")
