"""HTTP on the port: bounds, deadlines, smuggling, bodies both ways, and what a drain does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from exo_stream.errors import BatchEvictedError, ConflictError, OverloadedError
from exo_stream.limits import Limits
from exo_stream.protocol.http import Response
from exo_stream.protocol.origin import Visitors
from exo_stream.server.listener import Listener
from exo_stream.server.port import Port
from exo_stream.server.request import BodyWriter, Request
from exo_stream.server.routes import Answer, Streamed, Takeover
from exo_stream.server.transport import Transport

HOST = b"Host: localhost\r\n"
GET = b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n"


async def hello(_: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    return Response(200, (("content-type", "text/plain"),), b"hello\n")


async def echo(request: Request) -> Answer:
    return Response(200, (), await request.read())


async def ignore(_: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    return Response(200, (), b"ignored")


async def conflict(_: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    raise ConflictError(b"k", 3)


async def overloaded(_: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    raise OverloadedError("later")


async def broken(_: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    raise KeyError("a bug")


async def sse(_: Request) -> Answer:
    await trio.lowlevel.checkpoint()

    async def write(writer: BodyWriter) -> None:
        await writer.send(b"data: 1\n\n")
        await writer.send(b"")
        assert not writer.can_have_seat  # a stream in memory has no socket
        assert not writer.try_send(b"data: ", b"2\n\n")

    return Streamed(200, (("content-type", "text/event-stream"),), write)


async def evicted(_: Request) -> Answer:
    await trio.lowlevel.checkpoint()

    async def write(writer: BodyWriter) -> None:
        await writer.send(b"x")
        raise BatchEvictedError(7)

    return Streamed(200, (), write)


def make_port(limits: Limits | None = None) -> Port:
    port = Port(limits or Limits(), Visitors.welcome())
    for method, path, handler in (
        ("GET", "/hello", hello),
        ("POST", "/echo", echo),
        ("POST", "/ignore", ignore),
        ("GET", "/conflict", conflict),
        ("GET", "/overloaded", overloaded),
        ("GET", "/broken", broken),
        ("GET", "/sse", sse),
        ("GET", "/evicted", evicted),
        ("GET", "/below/*", hello),
        ("*", "/below/deeper/*", echo),
    ):
        port.routes.add(method, path, handler)
    return port


class Peer:
    """The other end of a connection that is being served."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._left = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def everything(self) -> bytes:
        """What comes until the end of the stream."""
        data, self._left = self._left, b""
        while piece := await self.stream.receive_some():
            data += bytes(piece)
        return data

    async def response(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """One response with a length."""
        while b"\r\n\r\n" not in self._left:
            piece = await self.stream.receive_some()
            assert piece, self._left
            self._left += bytes(piece)
        text, _, self._left = self._left.partition(b"\r\n\r\n")
        status, *lines = text.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0)) if body else 0
        while len(self._left) < length:
            self._left += bytes(await self.stream.receive_some())
        content, self._left = self._left[:length], self._left[length:]
        return int(status.split()[1]), headers, content


@asynccontextmanager
async def connected(port: Port | None = None) -> AsyncIterator[Peer]:
    listener = Listener(port or make_port())
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve_stream, ours, "test")
        yield Peer(theirs)
        await theirs.aclose()
    assert listener.connections == 0
    assert (port is None) or port.budget.held == 0


async def ask(data: bytes, port: Port | None = None) -> tuple[int, dict[str, str], bytes]:
    async with connected(port) as peer:
        await peer.send(data)
        return await peer.response()


def post(path: str, body: bytes, *extra: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *extra]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


async def test_a_response_has_its_length_a_date_and_the_security_headers() -> None:
    status, headers, body = await ask(GET)

    assert (status, body) == (200, b"hello\n")
    assert headers["content-length"] == "6"
    assert headers["date"].endswith("GMT")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "connection" not in headers


async def test_requests_follow_one_another_also_without_waiting_for_the_answers() -> None:
    async with connected() as peer:
        await peer.send(GET)
        assert (await peer.response())[0] == 200

        await peer.send(GET + post("/echo", b"abc") + GET)
        assert [(await peer.response())[2] for _ in range(3)] == [b"hello\n", b"abc", b"hello\n"]


async def test_a_head_may_come_byte_by_byte() -> None:
    async with connected() as peer:
        for byte in post("/echo", b"ab"):
            await peer.send(bytes([byte]))
        assert (await peer.response())[2] == b"ab"


async def test_head_answers_like_get_without_the_body() -> None:
    async with connected() as peer:
        await peer.send(GET.replace(b"GET", b"HEAD") + GET)
        status, headers, _ = await peer.response(body=False)
        assert (status, headers["content-length"]) == (200, "6")
        assert (await peer.response())[2] == b"hello\n"


async def test_a_chunked_body_is_read_and_a_streamed_response_is_chunked() -> None:
    async with connected() as peer:
        await peer.send(
            b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
        )
        assert (await peer.response())[2] == b"abcde"

        await peer.send(b"GET /sse HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        answer = await peer.everything()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"


async def test_a_streamed_response_to_http_1_0_ends_with_the_connection() -> None:
    async with connected() as peer:
        await peer.send(b"GET /sse HTTP/1.0\r\n\r\n")
        head, _, body = (await peer.everything()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == b"data: 1\n\n"


async def test_http_1_0_keeps_the_connection_only_if_it_asks() -> None:
    async with connected() as peer:
        await peer.send(b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await peer.response())[1]["connection"] == "keep-alive"
        await peer.send(b"GET /hello HTTP/1.0\r\n\r\n")
        assert b"connection: close" in await peer.everything()


async def test_the_head_of_a_stream_is_answered_without_its_body() -> None:
    async with connected() as peer:
        await peer.send(b"HEAD /sse HTTP/1.1\r\n" + HOST + b"\r\n" + GET)
        assert (await peer.response(body=False))[0] == 200
        assert (await peer.response())[2] == b"hello\n"


async def test_a_stream_that_fails_is_cut_without_its_end() -> None:
    async with connected() as peer:
        await peer.send(b"GET /evicted HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await peer.everything()).endswith(b"1\r\nx\r\n")


async def test_a_body_is_asked_for_with_100_continue_when_somebody_wants_it() -> None:
    async with connected() as peer:
        head, body = post("/echo", b"abc", "Expect: 100-continue").split(b"\r\n\r\n")
        await peer.send(head + b"\r\n\r\n")
        assert await peer.response() == (100, {}, b"")
        await peer.send(body)
        assert (await peer.response())[2] == b"abc"

        await peer.send(post("/ignore", b"abc", "Expect: 100-continue")[:-3])
        assert b"connection: close" in await peer.everything()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "invalid_request"),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        (b"GET /hello HTTP/2.0\r\n" + HOST + b"\r\n", 505, "unsupported"),
        (b"GET /hello HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "invalid_request"),
        (b"GET /hello HTTP/1.1\r\nHost: a\xff\r\n\r\n", 400, "invalid_request"),
        (b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n", 404, "invalid_request"),
        (b"PUT /hello HTTP/1.1\r\n" + HOST + b"\r\n", 405, "invalid_request"),
        (b"GET /conflict HTTP/1.1\r\n" + HOST + b"\r\n", 409, "conflict"),
        (b"GET /overloaded HTTP/1.1\r\n" + HOST + b"\r\n", 503, "overloaded"),
        (b"GET /broken HTTP/1.1\r\n" + HOST + b"\r\n", 500, "internal"),
        (post("/echo", b"", "Expect: miracles"), 417, "invalid_request"),
        (b"GET /hello HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 101 + b"\r\n", 431, "limit_exceeded"),
        (b"GET /hello HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 17_000, 431, "limit_exceeded"),
        (b"GET /" + b"a" * 17_000, 431, "limit_exceeded"),
    ],
)
async def test_what_is_not_served_is_a_problem_with_a_code(
    data: bytes, status: int, code: str
) -> None:
    got, headers, body = await ask(data)

    assert got == status
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"]
    assert problem["detail"]


CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 3\r\n" + CHUNKED,
        CHUNKED + b"Content-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        CHUNKED + CHUNKED,
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: chunked\r\n folded\r\n",
        b"Host: localhost\r\n",
        b"Content-Length: 3\n",
        b"A: \x00\r\n",
        b"A: b\rContent-Length: 3\r\n",
    ],
)
async def test_what_two_readers_could_understand_differently_is_refused(headers: bytes) -> None:
    async with connected() as peer:
        await peer.send(b"POST /echo HTTP/1.1\r\n" + HOST + headers + b"\r\n0\r\n\r\n" + GET)
        answer = await peer.everything()
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.split()[1] in {b"400", b"501"}


async def test_a_bad_request_is_answered_behind_those_before_it() -> None:
    async with connected() as peer:
        await peer.send(GET + b"nonsense\r\n\r\n")
        assert (await peer.response())[0] == 200
        assert (await peer.response())[0] == 400


async def test_a_body_announced_too_large_is_refused_before_it_is_sent() -> None:
    port = make_port(Limits(body_bytes_max=10))
    async with connected(port) as peer:
        await peer.send(post("/echo", b"x" * 11, "Expect: 100-continue")[:-11])
        status, _, body = await peer.response()
    assert (status, json.loads(body)["code"]) == (413, "limit_exceeded")


async def test_a_body_that_grows_too_large_is_refused_and_the_answer_arrives() -> None:
    port = make_port(Limits(body_bytes_max=10))
    async with connected(port) as peer:
        await peer.send(
            b"POST /echo HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n" + b"6\r\nabcdef\r\n" * 2
        )
        status, headers, _ = await peer.response()
        assert (status, headers["connection"]) == (413, "close")
        assert await peer.everything() == b""


async def test_the_process_budget_refuses_bodies_beyond_it() -> None:
    port = make_port(Limits(in_flight_bytes_max=10))
    status, _, body = await ask(post("/echo", b"x" * 11), port)
    assert (status, json.loads(body)["code"]) == (503, "overloaded")
    assert port.budget.held == 0


async def test_an_unread_body_is_read_away_and_the_connection_kept() -> None:
    async with connected() as peer:
        await peer.send(post("/ignore", b"x" * 1000) + GET)
        assert (await peer.response())[2] == b"ignored"
        assert (await peer.response())[2] == b"hello\n"


async def test_an_unread_body_that_is_large_costs_the_connection() -> None:
    async with connected() as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, post("/ignore", b"x" * 1_000_000))
            answer = await peer.response()
        assert (answer[1]["connection"], answer[2]) == ("close", b"ignored")


async def test_below_a_path_the_longest_route_answers() -> None:
    assert (await ask(GET.replace(b"/hello", b"/below/a/b?c")))[2] == b"hello\n"
    assert (await ask(post("/below/deeper/a", b"abc")))[2] == b"abc"


async def test_an_upgrade_nobody_knows_is_answered_and_the_connection_closed() -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    _, headers, body = await ask(GET[:-2] + upgrade)
    assert (headers["connection"], body) == ("close", b"hello\n")


async def test_a_takeover_gets_the_transport_and_what_followed_the_head() -> None:
    port = make_port()

    async def take(_: Request) -> Answer:
        await trio.lowlevel.checkpoint()

        async def run(transport: Transport) -> None:
            while data := await transport.receive_some():
                await transport.send_all(data.upper())

        return Takeover(run)

    port.routes.add("GET", "/take", take)
    async with connected(port) as peer:
        upgrade = b"Connection: Upgrade\r\nUpgrade: shout\r\n\r\nabc"
        await peer.send(b"GET /take HTTP/1.1\r\n" + HOST + upgrade)
        await wait_all_tasks_blocked()
        await peer.send(b"def")
        await peer.stream.send_eof()
        assert await peer.everything() == b"ABCDEF"
