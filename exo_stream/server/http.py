"""One HTTP connection: requests in, responses out, each under its bounds and its deadlines."""

from __future__ import annotations

from functools import partial
from typing import Final

import trio

from exo_stream.errors import ExoStreamError, LimitExceededError
from exo_stream.logger import log
from exo_stream.protocol.http import (
    EndOfBody,
    Head,
    Headers,
    RefusedError,
    Response,
    framing,
    problem,
    problem_of,
    render_head,
)
from exo_stream.server.port import Port
from exo_stream.server.request import BodyWriter, Inbound, Request
from exo_stream.server.routes import Answer, Streamed, Takeover
from exo_stream.server.transport import Transport

_DRAIN_BYTES_MAX: Final = 65_536
"""So much of a body that nobody wanted is read to keep a connection; beyond it, it is closed."""


_AT_ONCE_BYTES_MAX: Final = 65_536
"""A larger answer is never copied for the part of it that the kernel does not take."""


class HttpConnection:
    """The requests of one connection, one after the other."""

    def __init__(self, transport: Transport, port: Port, remote: str) -> None:
        self._transport = transport
        self._port = port
        self._limits = port.limits
        self._remote = remote
        self._inbound = Inbound(transport, port.limits)
        self._idle = trio.CancelScope()
        self._keep_alive = True
        self._version = "1.1"
        self._head_sent = False

    async def serve(self, nursery: trio.Nursery) -> None:
        """Answer requests until one side has had enough, or something else takes over.

        ``nursery`` is this connection's own, for what must run beside an answer.
        """
        self._inbound.nursery = nursery
        self._transport.on_partial = partial(nursery.start_soon, self._transport.flush_quietly)
        with self._port.told_to_leave(self._leave):
            takeover = await self._serve_requests()
        if takeover is None:
            await self._transport.linger(self._limits.close_seconds_max)
        else:
            self._head_sent = True
            self._transport.replay(self._inbound.rest)
            await takeover.run(self._transport)

    async def apologise(self) -> None:
        """After an error nobody expected: say so, if the response has not begun."""
        if self._head_sent or self._transport.closed:
            await trio.lowlevel.checkpoint()
            return
        self._keep_alive = False
        await self._send(problem(500, "internal", "an error of ours; it was logged"))
        await self._transport.linger(self._limits.close_seconds_max)

    def _leave(self) -> None:
        self._keep_alive = False
        self._idle.cancel()

    async def _serve_requests(self) -> Takeover | None:
        deadline = trio.current_time() + self._limits.head_seconds_max
        if not await self._next_request(self._limits.head_seconds_max):
            return None
        while True:
            self._head_sent = False
            try:
                head = await self._next_head(deadline)
            except RefusedError as refused:
                self._keep_alive = False
                await self._send(refused.response)
                return None
            if head is None:
                return None
            takeover = await self._exchange(head)
            if takeover is not None:
                return takeover
            if not await self._next_request(self._limits.keep_alive_seconds_max):
                return None
            deadline = trio.current_time() + self._limits.head_seconds_max

    async def _next_request(self, seconds: float) -> bool:
        """Wait for the first bytes of a request: False if there will be none."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._keep_alive:
            return False
        if not self._inbound.idle:
            await trio.lowlevel.checkpoint()  # whoever sends many at once is one of many
            return True
        with trio.move_on_after(seconds) as self._idle:
            return await self._inbound.wait_bytes()
        return False

    async def _next_head(self, deadline: float) -> Head | None:
        """The next head, ``None`` if the peer left before it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        # Most heads come whole, and need no deadline.
        event = self._inbound.next_now()
        if event is None:
            with trio.move_on_at(deadline) as scope:
                event = await self._inbound.next_event()
            if scope.cancelled_caught:
                raise RefusedError(408, "invalid_request", "the head did not arrive in time")
        assert event is None or isinstance(event, Head | EndOfBody), event
        if isinstance(event, EndOfBody):
            # That of a request without a body, whose handler had no reason to ask for it.
            return await self._next_head(deadline)
        return event

    async def _exchange(self, head: Head) -> Takeover | None:
        """Answer one request, and see that the next one can follow or that the peer knows."""
        self._keep_alive &= head.keep_alive and not head.upgrades
        self._version = head.version
        with self._port.budget.open_share() as share:
            request = Request(head, self._remote, self._inbound, share)
            answer = await self._ask(request)
            if isinstance(answer, Takeover):
                return answer
            if not request.finished and request.read_now() is None:
                await self._settle(request)
            if isinstance(answer, Streamed):
                await self._stream(answer, head)
            else:
                await self._send(answer, with_body=head.method != "HEAD")
        return None

    async def _ask(self, request: Request) -> Answer:
        """The handler's answer, or the problem that stands in its way."""
        try:
            self._check(request.head)
            handler = self._port.routes.find(request.head.method, request.head.path)
            return await handler(request)
        except RefusedError as refused:
            problem = refused.response
        except ExoStreamError as error:
            problem = problem_of(error)
        await trio.lowlevel.checkpoint()
        return problem

    def _check(self, head: Head) -> None:
        host = head.header("host")
        if host is None and head.version == "1.1":
            raise RefusedError(400, "invalid_request", "there is no Host header")
        if host is not None and not self._port.visitors.knows_host(host):
            raise RefusedError(421, "invalid_request", "this server does not go by that name")
        if (head.header("expect") or "100-continue").lower() != "100-continue":
            raise RefusedError(417, "invalid_request", "only 100-continue can be expected")

    async def _settle(self, request: Request) -> None:
        """Read the little that is left of a body, or give the connection up after the answer."""
        if request.continues or request.failed:
            # What comes next may be that body or another request: nobody can tell.
            self._keep_alive = False
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        left = _DRAIN_BYTES_MAX
        with trio.move_on_after(self._limits.close_seconds_max):
            try:
                while left > 0 and (piece := await request.receive()):
                    left -= len(piece)
            except (RefusedError, LimitExceededError):
                await trio.lowlevel.checkpoint()
        self._keep_alive &= request.finished

    async def _send(self, response: Response, *, with_body: bool = True) -> None:
        ends = framing(response.status, len(response.body), self._version)
        head = self._render(response.status, response.headers + ends)
        self._head_sent = True
        data = head + response.body if with_body else head
        # Whoever asked has yielded once already, and most answers fit into the kernel's buffer.
        if len(data) > _AT_ONCE_BYTES_MAX or not self._transport.try_send(data):
            await self._transport.send_all(data)
        elif self._transport.bytes_held:
            await self._transport.flush()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _stream(self, response: Streamed, head: Head) -> None:
        ends = framing(response.status, None, head.version)
        self._keep_alive &= head.version == "1.1"
        self._head_sent = True
        await self._transport.send_all(self._render(response.status, response.headers + ends))
        if head.method == "HEAD":
            return
        writer = BodyWriter(self._transport, chunked=head.version == "1.1")
        try:
            async with self._inbound.watched():
                await response.write(writer)
        except ExoStreamError as error:
            # The head is out; only a body without its end can still say that something failed.
            log.info("stream broken", remote=self._remote, code=error.code)
            raise trio.BrokenResourceError("the stream ended early") from error
        await writer.finish()

    def _render(self, status: int, headers: Headers) -> bytes:
        own: Headers = (("date", self._port.date()),)
        if not self._keep_alive:
            own += (("connection", "close"),)
        elif self._version == "1.0":
            own += (("connection", "keep-alive"),)
        return render_head(status, headers + own)
