"""Talking HTTP to the streams of a platform: requests, answers, and events as they come."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

import trio

from exo_stream.limits import Limits
from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.protocol.origin import Visitors
from exo_stream.server.listener import Listener
from exo_stream.server.port import Port
from exo_stream.server.serve import open_port
from exo_stream.server.streams.settings import StreamSettings
from exo_stream.storage.memory_engine import wall_clock
from exo_stream.testing import FakeClock

GUARD_SECONDS: Final = 60
"""A guard against hanging, never a measure."""

TEXT: Final = {"content-type": "text/plain"}
JSON: Final = {"content-type": "application/json"}
BINARY: Final = {"content-type": "application/octet-stream"}

QUICK: Final = StreamSettings(long_poll_seconds=0.05)


def offset(position: int) -> str:
    """The offset with so many bytes before it."""
    return f"{0:016}_{position:016}"


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, whole. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of the problem that it is."""
        assert self.headers["content-type"] == "application/problem+json", self
        told: dict[str, Any] = json.loads(self.body)
        assert told["status"] == self.status
        code: str = told["code"]
        return code

    @property
    def next(self) -> str:
        return self.headers["stream-next-offset"]


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its kind, its data, and its id if it has one."""

    kind: str
    data: str
    id: str = ""

    @property
    def control(self) -> dict[str, Any]:
        """The fields of a control event."""
        assert self.kind == "control", self
        fields: dict[str, Any] = json.loads(self.data)
        return fields


class Caller:
    """One connection."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._left = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.aclose_forcefully(self.stream)

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """The answer to one request; ``target`` is what follows ``/v1/stream/``."""
        await self.send(method, target, body, headers)
        return await self.answer(with_body=method != "HEAD")

    async def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """One request."""
        await self.stream.send_all(request(method, target, body, headers))

    async def answer(self, *, with_body: bool = True) -> Answered:
        """The next answer."""
        status, headers = await self.head()
        length = int(headers.get("content-length", "0")) if with_body else 0
        while len(self._left) < length:
            await self._more()
        body, self._left = self._left[:length], self._left[length:]
        return Answered(status, headers, body)

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and headers of the next answer."""
        head = (await self._until(b"\r\n\r\n")).decode()
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        return int(first.split()[1]), dict(line.split(": ", 1) for line in lines)

    async def events(self, target: str) -> None:
        """Begin to follow: the head has been read, and is one of events."""
        await self.send("GET", target)
        status, headers = await self.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream"), (status, headers)
        assert "content-length" not in headers
        self._events = b""

    async def event(self) -> Event | None:
        """The next event, comments left out; None at the end of the body."""
        while True:
            while b"\n\n" not in self._events:
                size = int(await self._until(b"\r\n"), 16)
                while len(self._left) < size + 2:
                    await self._more()
                self._events += self._left[:size]
                self._left = self._left[size + 2 :]
                if not size:
                    return None
            text, _, self._events = self._events.partition(b"\n\n")
            if not text.startswith(b":"):
                return _event(text.decode())

    async def _until(self, end: bytes) -> bytes:
        while end not in self._left:
            await self._more()
        found, _, self._left = self._left.partition(end)
        return found + end

    async def _more(self) -> None:
        piece = bytes(await self.stream.receive_some())
        assert piece, f"the server hung up after {self._left!r}"
        self._left += piece


@dataclass(frozen=True, slots=True)
class World:
    """A platform that is served."""

    platform: Platform
    port: Port
    number: int
    callers: list[Caller] = field(default_factory=list)

    async def call(self) -> Caller:
        """A connection more; it ends with the world, if not before."""
        caller = Caller(await trio.open_tcp_stream("127.0.0.1", self.number))
        self.callers.append(caller)
        return caller

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """The answer to one request, over a connection of its own."""
        async with await self.call() as caller:
            return await caller.ask(method, target, body, headers)


def request(
    method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """One request; ``target`` is what follows ``/v1/stream/``, or a whole path."""
    path = target if target.startswith("/") else f"/v1/stream/{target}"
    fields = {"host": "localhost", **(headers or {})}
    if body or method in {"PUT", "POST"}:
        fields.setdefault("content-length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


@asynccontextmanager
async def open_world(
    settings: StreamSettings = QUICK,
    *,
    limits: Limits | None = None,
    visitors: Visitors | None = None,
    path: str = ":memory:",
    clock: FakeClock | None = None,
) -> AsyncIterator[World]:
    """A platform, served on a real port; when it ends, nothing of any request is left.

    Streams expire by ``clock``, if there is one.
    """
    with trio.fail_after(GUARD_SECONDS):
        async with (
            open_platform(path, limits=limits, clock=clock or wall_clock) as platform,
            trio.open_nursery() as nursery,
        ):
            port = open_port(platform, visitors or Visitors.welcome(), settings)
            sockets = await trio.open_tcp_listeners(0, host="127.0.0.1")
            listener = Listener(port)
            nursery.start_soon(listener.run, sockets)
            world = World(platform, port, sockets[0].socket.getsockname()[1])
            try:
                yield world
            finally:
                for caller in world.callers:
                    with trio.CancelScope(shield=True):
                        await trio.aclose_forcefully(caller.stream)
                nursery.cancel_scope.cancel()
        assert listener.connections == 0
        assert port.budget.held == 0


def _event(text: str) -> Event:
    fields: dict[str, list[str]] = {}
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    assert set(fields) <= {"event", "data", "id"}, text
    return Event(fields["event"][0], "\n".join(fields["data"]), fields.get("id", [""])[0])
