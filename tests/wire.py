"""A WebSocket client that is nothing but the wire: it speaks what a test tells it to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from exo_stream.limits import Limits
from exo_stream.platform import Platform
from exo_stream.protocol.messages import SUBPROTOCOL, Hello, Message, Welcome
from exo_stream.protocol.origin import Visitors
from exo_stream.protocol.session import Role, Session
from exo_stream.server.listener import Listener
from exo_stream.server.port import Port
from exo_stream.server.serve import open_port

M = TypeVar("M")


class Wire:
    """One connection in the role of a client."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.socket = socket
        self.session = Session(Role.CLIENT, Limits())
        self.heard: list[Message] = []

    async def say(self, *messages: Message) -> None:
        await self.socket.send_message(self.session.send(*messages))

    async def next_message(self) -> Message:
        while not self.heard:
            frame = await self.socket.get_message()
            assert isinstance(frame, bytes)
            self.heard += self.session.receive(frame)
        return self.heard.pop(0)

    async def expect(self, kind: type[M]) -> M:
        message = await self.next_message()
        assert isinstance(message, kind), message
        return message

    async def greet(self) -> Welcome:
        await self.say(Hello((1,), "wire"))
        return await self.expect(Welcome)


@asynccontextmanager
async def serving(
    platform: Platform, visitors: Visitors | None = None
) -> AsyncIterator[tuple[Port, Listener, int]]:
    """A port on the loopback, drained at the end."""
    port = open_port(platform, visitors or Visitors.welcome())
    listener = Listener(port)
    sockets = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.run, sockets)
        yield port, listener, sockets[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
    assert listener.connections == 0
    assert port.budget.held == 0


@asynccontextmanager
async def connected(
    port: int, *, subprotocols: tuple[str, ...] = (SUBPROTOCOL,)
) -> AsyncIterator[Wire]:
    """A WebSocket to the port, not greeted yet."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    # trio-websocket leaves a stream open whose server said Close first.
    async with stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(
            nursery,
            stream,
            "127.0.0.1",
            "/v1/ws",
            subprotocols=list(subprotocols),
            max_message_size=1 << 26,
        )
        try:
            yield Wire(socket)
        finally:
            with trio.move_on_after(2, shield=True):
                await socket.aclose()
            nursery.cancel_scope.cancel()
