"""A client of the store's own API over any stream: it sends whatever a test wants to be sent."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeVar

import h11
import trio
from google.protobuf.message import Message
from trio.testing import memory_stream_pair

from exo_stream import Platform
from exo_stream.nursery import nursery_unseen
from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.compression import compressed, decompressed
from exo_stream.protocol.connect.envelope import COMPRESSED, END_STREAM, HEAD_BYTES, enveloped
from exo_stream.protocol.connect.failure import TYPE_PREFIX, CallError, Code
from exo_stream.protocol.connect.generated import error_details_pb2, query_pb2
from exo_stream.protocol.origin import Visitors
from exo_stream.server.listener import Listener
from exo_stream.server.port import Port
from exo_stream.server.serve import open_port

M = TypeVar("M", bound=Message)
Dial = Callable[[], Awaitable[trio.abc.Stream]]
Headers = Mapping[str, str]

MIB: Final = 1 << 20
_CODES: Final = {str(code): code for code in Code}
_DETAILS: Final = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.RetryInfo,
        error_details_pb2.BadRequest,
        query_pb2.Detail,
    )
}


class HttpAnswer(NamedTuple):
    """An answer, its body whole."""

    status: int
    headers: dict[str, str]
    body: bytes


class Exchange:
    """One request on a connection, and its answer as it comes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def send(self, method: str, target: str, headers: Headers, body: bytes) -> None:
        """Ask; a body is sent with its length, unless the headers say otherwise."""
        own = {"host": "localhost", "content-length": str(len(body)), **headers}
        request = h11.Request(method=method, target=target, headers=list(own.items()))
        await self._send(request)
        if body:
            await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            await self.stream.send_all(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        event = await self._next()
        assert isinstance(event, h11.Response), event
        return event.status_code, {name.decode(): v.decode() for name, v in event.headers}

    async def piece(self) -> bytes:
        """A piece of the body, empty at its end."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def rest(self) -> bytes:
        """What is left of the body."""
        pieces: list[bytes] = []
        while piece := await self.piece():
            pieces.append(piece)
        return b"".join(pieces)

    def next_exchange(self) -> None:
        """Let another request follow on this connection."""
        self._http.start_next_cycle()

    async def _next(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self.stream.receive_some()))
        return event


class Frames:
    """The messages of a streamed answer; ``metadata`` once its end has come.

    ``compressed`` counts those that came so.
    """

    def __init__(self, exchange: Exchange, codec: Codec, headers: Headers) -> None:
        self.headers = headers
        self.metadata: dict[str, list[str]] = {}
        self.compressed = 0
        self._exchange = exchange
        self._codec = codec
        self._left = b""

    async def next(self, kind: type[M]) -> M | None:
        """The next message, None at the end. Raises the CallError that the end tells."""
        flags, data = await self.envelope()
        if flags & COMPRESSED:
            self.compressed += 1
            encoding = self.headers["connect-content-encoding"]
            data = b"".join(decompressed(encoding, data, 256 * MIB))
        if flags & END_STREAM:
            end = json.loads(data)
            self.metadata = end.get("metadata", {})
            if "error" in end:
                raise error_of(end["error"])
            assert await self._exchange.rest() == b""
            return None
        return self._codec.decode(data, kind, 10_000_000)

    async def all(self, kind: type[M]) -> list[M]:
        """Every message until the end."""
        found: list[M] = []
        while (message := await self.next(kind)) is not None:
            found.append(message)
        return found

    async def envelope(self) -> tuple[int, bytes]:
        """The next envelope as it came."""
        head = await self._take(HEAD_BYTES)
        return head[0], await self._take(int.from_bytes(head[1:], "big"))

    async def _take(self, size: int) -> bytes:
        while len(self._left) < size:
            piece = await self._exchange.piece()
            assert piece, "the body ends in an envelope"
            self._left += piece
        taken, self._left = self._left[:size], self._left[size:]
        return taken


class Caller:
    """Calls methods, each on a connection of its own."""

    def __init__(
        self, dial: Dial, codec: Codec = Codec.PROTO, *, encoding: str = "", **headers: str
    ) -> None:
        self.dial = dial
        self.codec = codec
        self.encoding = encoding
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    async def http(
        self, method: str, target: str, headers: Headers | None = None, body: bytes = b""
    ) -> HttpAnswer:
        """Any request at all, and its answer."""
        async with self.exchange() as exchange:
            await exchange.send(method, target, headers or {}, body)
            status, told = await exchange.head()
            return HttpAnswer(status, told, await exchange.rest())

    @asynccontextmanager
    async def exchange(self) -> AsyncIterator[Exchange]:
        """A connection."""
        stream = await self.dial()
        try:
            yield Exchange(stream)
        finally:
            await trio.aclose_forcefully(stream)

    async def unary(self, method: str, message: Message, kind: type[M]) -> tuple[M, Headers]:
        """Call a unary method. Raises the CallError that it answers."""
        headers = {"content-type": f"application/{self.codec.value}", **self.headers}
        body = self.codec.encode(message)
        if self.encoding:
            headers |= {"content-encoding": self.encoding, "accept-encoding": self.encoding}
            body = b"".join(compressed(self.encoding, body))
        answer = await self.http("POST", f"/{method}", headers, body)
        return self.decode(answer, kind), answer.headers

    def decode(self, answer: HttpAnswer, kind: type[M]) -> M:
        """The message of a unary answer. Raises the CallError that it is."""
        if answer.status != 200:
            assert answer.headers["content-type"] == "application/json", answer
            error = error_of(json.loads(answer.body), answer.status)
            raise error
        body, encoding = answer.body, answer.headers.get("content-encoding")
        if encoding is not None:
            body = b"".join(decompressed(encoding, body, 256 * MIB))
        assert answer.headers["content-type"] == f"application/{self.codec.value}"
        return self.codec.decode(body, kind, 10_000_000)

    @asynccontextmanager
    async def stream(
        self, method: str, message: Message, headers: Headers | None = None
    ) -> AsyncIterator[Frames]:
        """Call a method that streams; the connection lasts as long as the block."""
        told = {"content-type": f"application/connect+{self.codec.value}", **self.headers}
        data, flags = self.codec.encode(message), 0
        if self.encoding:
            told |= {
                "connect-content-encoding": self.encoding,
                "connect-accept-encoding": self.encoding,
            }
            data, flags = b"".join(compressed(self.encoding, data)), COMPRESSED
        async with self.exchange() as exchange:
            await exchange.send("POST", f"/{method}", {**told, **(headers or {})},
                                enveloped(data, flags))  # fmt: skip
            status, answered = await exchange.head()
            assert status == 200, (status, answered, await exchange.rest())
            assert answered["content-type"] == told["content-type"]
            yield Frames(exchange, self.codec, answered)


def error_of(value: dict[str, Any], status: int = 0) -> CallError:
    """The error that JSON tells; each detail stands there twice, under both names."""
    details = value.get("details", [])
    bare, prefixed = details[::2], details[1::2]
    for one, other in zip(bare, prefixed, strict=True):
        assert other == {**one, "type": TYPE_PREFIX + one["type"]}
        assert "=" not in one["value"]
    error = CallError(
        _CODES[value["code"]],
        value["message"],
        [_DETAILS[one["type"]].FromString(b64decode(one["value"] + "==")) for one in bare],
    )
    if status:
        error.status = status
    return error


def info_of(error: CallError) -> error_details_pb2.ErrorInfo:
    """The detail that tells errors apart."""
    [info] = [one for one in error.details if isinstance(one, error_details_pb2.ErrorInfo)]
    return info


@asynccontextmanager
async def served(
    platform: Platform, visitors: Visitors | None = None
) -> AsyncIterator[tuple[Port, Dial]]:
    """The platform on a port, and how to reach it without a socket."""
    port = open_port(platform, visitors or Visitors.welcome())
    listener = Listener(port)
    with nursery_unseen() as own:
        async with trio.open_nursery() as nursery:

            async def dial() -> trio.abc.Stream:
                near, far = memory_stream_pair()
                nursery.start_soon(listener.serve_stream, far, "memory")
                await trio.lowlevel.checkpoint()
                return near

            with own:
                yield port, dial
            nursery.cancel_scope.cancel()
    assert port.budget.held == 0


def over_tcp(url: str) -> Dial:
    """How to reach the server whose address ``serve`` told."""
    host, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")

    async def dial() -> trio.abc.Stream:
        return await trio.open_tcp_stream(host, int(port))

    return dial
