"""A network in memory between clients and a server: it can be cut, refuse, and be watched."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from exo_stream.client import Client, connect
from exo_stream.client.address import Address
from exo_stream.client.patience import Patience
from exo_stream.client.remote_feed import RemoteFeed
from exo_stream.errors import RemoteProtocolError, UnavailableError
from exo_stream.limits import Limits
from exo_stream.model import Batch
from exo_stream.platform import Platform
from exo_stream.protocol import messages as m
from exo_stream.protocol.messages import SUBPROTOCOL
from exo_stream.protocol.origin import Visitors
from exo_stream.protocol.session import Role, Session
from exo_stream.server.listener import Listener
from exo_stream.server.serve import open_port
from tests.wire_examples import LOG_ID

URL = "ws://127.0.0.1"
Serve = Callable[[trio.abc.Stream], Awaitable[None]]


class Cable(trio.abc.Stream):
    """One end of a connection that breaks after so many bytes, in either direction."""

    def __init__(self, stream: trio.abc.Stream, bytes_max: int | None) -> None:
        self.is_cut = False
        self._stream = stream
        self._bytes_left = bytes_max

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(await self._let_through(bytes(data)))
        await self._break_if_cut()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._let_through(await self._stream.receive_some(max_bytes))
        if not data:
            await self._break_if_cut()
        return data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def cut(self) -> None:
        self.is_cut = True
        await trio.aclose_forcefully(self._stream)

    async def _let_through(self, data: bytes | bytearray) -> bytes | bytearray:
        if self._bytes_left is None or len(data) <= self._bytes_left:
            if self._bytes_left is not None:
                self._bytes_left -= len(data)
            return data
        data, self._bytes_left = data[: self._bytes_left], 0
        self.is_cut = True
        return data

    async def _break_if_cut(self) -> None:
        if self.is_cut:
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("the cable was cut")


class Network:
    """Dials ``serve`` in memory. ``cuts`` are the lengths of the next cables; None is endless."""

    def __init__(self, nursery: trio.Nursery, serve: Serve) -> None:
        self.serve = serve
        self.cuts: deque[int | None] = deque()
        self.cables: list[Cable] = []
        self.is_down = False
        self._nursery = nursery

    async def dial(self, _address: Address) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.is_down:
            raise UnavailableError("the network is down")
        near, far = memory_stream_pair()
        cable = Cable(near, self.cuts.popleft() if self.cuts else None)
        self.cables.append(cable)
        self._nursery.start_soon(self.serve, far)
        return cable

    async def cut(self) -> None:
        """Break what is connected."""
        for cable in self.cables:
            await cable.cut()


def server_of(platform: Platform) -> tuple[Serve, Listener]:
    """The real server, for connections in memory."""
    listener = Listener(open_port(platform, Visitors.welcome()))

    async def serve(stream: trio.abc.Stream) -> None:
        await listener.serve_stream(stream, "memory")

    return serve, listener


@asynccontextmanager
async def networked(platform: Platform) -> AsyncIterator[Network]:
    """A network with the real server on it."""
    serve, _ = server_of(platform)
    async with trio.open_nursery() as nursery:
        yield Network(nursery, serve)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected_over(
    network: Network, *, limits: Limits | None = None, **patience: Any
) -> AsyncIterator[Client]:
    """A client on the network."""
    async with connect(
        URL, dial=network.dial, limits=limits, patience=Patience(**patience)
    ) as client:
        yield client


class Puppet:
    """A server that says what a test tells it to."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self.websocket = websocket
        self.session = Session(Role.SERVER, Limits())
        self._heard: list[m.Message] = []

    async def greet(self, *, version: int = 1) -> None:
        await self.hear(m.Hello)
        await self.say(m.Welcome(version, LOG_ID, frontier=9, oldest=1))

    async def say(self, *messages: m.Message) -> None:
        await self.websocket.send_message(self.session.send(*messages))

    async def hear(self, *kinds: type[Any]) -> Any:
        """The next message of one of these kinds; others are passed over."""
        while True:
            while self._heard:
                message = self._heard.pop(0)
                if isinstance(message, kinds):
                    return message
            frame = await self.websocket.get_message()
            assert isinstance(frame, bytes)
            self._heard += self.session.receive(frame)


Play = Callable[[Puppet], Awaitable[None]]


def puppets(*plays: Play, subprotocol: str | None = SUBPROTOCOL) -> Serve:
    """Servers that play these plays, one for each connection; the last again and again."""
    waiting = list(plays)

    async def serve(stream: trio.abc.Stream) -> None:
        play = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            websocket = await request.accept(subprotocol=subprotocol)
            with suppress(ConnectionClosed):
                await play(Puppet(websocket))
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()

    return serve


async def the_server_is_blamed(
    ask: Callable[[Client], Awaitable[object]],
    request_kind: type[Any],
    reply: Callable[[int], m.Message],
) -> None:
    """Ask a server whose answer to the first request of this kind, by its id, makes no sense."""

    async def play(puppet: Puppet) -> None:
        await puppet.greet()
        asked = await puppet.hear(request_kind)
        await puppet.say(reply(asked.id))
        await trio.sleep_forever()

    async with network_of(puppets(play)) as network, connected_over(network) as client:
        with pytest.raises(RemoteProtocolError):
            await ask(client)


async def log_of(platform: Platform) -> list[tuple[int, list[bytes]]]:
    found = []
    for sequence in range(1, await platform.current_sequence() + 1):
        batch = await platform.get_batch(sequence)
        assert batch is not None
        found.append((sequence, [entry.key for entry in batch.entries]))
    return found


async def next_batch(feed: RemoteFeed) -> Batch:
    batch = await feed.__anext__()
    assert isinstance(batch, Batch)
    return batch


async def puts_at_once(client: Client, count: int) -> list[int]:
    """The sequences of so many puts of different tasks, in no order."""
    sequences: list[int] = []

    async def put(number: int) -> None:
        sequences.append(await client.put_batch([(b"%d" % number, b"v")]))

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(put, number)
    return sequences


@asynccontextmanager
async def network_of(serve: Serve) -> AsyncIterator[Network]:
    async with trio.open_nursery() as nursery:
        yield Network(nursery, serve)
        nursery.cancel_scope.cancel()
