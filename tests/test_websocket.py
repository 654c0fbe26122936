"""WebSockets over our transport: the ways trio-websocket dies, and the codes with which we end."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, memory_stream_pair

from exo_stream.limits import Limits
from exo_stream.protocol import closing
from exo_stream.protocol.closing import Close
from exo_stream.protocol.frames import websocket_head
from exo_stream.protocol.origin import Visitors
from exo_stream.protocol.scanner import close_frame
from exo_stream.protocol.upgrade import check_upgrade, render_upgrade
from exo_stream.server.listener import Listener
from exo_stream.server.port import Port
from exo_stream.server.request import Request
from exo_stream.server.routes import Answer, Takeover
from exo_stream.server.websocket import Converse, WebSocket, run_websocket
from tests.test_scanner import frame as unmasked_frame

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    "GET /ws HTTP/1.1",
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Version: 13",
    KEY,
    "Sec-WebSocket-Protocol: other, shout",
)


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A frame as a client sends it, masked with zeros, which change nothing."""
    return unmasked_frame(opcode, payload, final=final).replace(b"\x01\x02\x03\x04", bytes(4), 1)


async def shout(socket: WebSocket) -> Close:
    """Answer each message in capitals."""
    while (message := await socket.receive()) is not None:
        data = message.upper().encode() if isinstance(message, str) else message.upper()
        await socket.send(websocket_head(len(data)) + data)
        socket.done(len(message))
    return closing.NORMAL


async def deaf(_: WebSocket) -> Close:
    await trio.sleep_forever()
    raise AssertionError


async def hang_up(_: WebSocket) -> Close:
    await trio.lowlevel.checkpoint()
    return closing.DRAINED


async def fail(_: WebSocket) -> Close:
    await trio.lowlevel.checkpoint()
    raise KeyError("a bug")


def make_port(converse: Converse, limits: Limits) -> Port:
    port = Port(limits, Visitors.welcome(origins=["https://listed.example"]))

    async def answer(request: Request) -> Answer:
        await trio.lowlevel.checkpoint()
        check_upgrade(request.head, "shout")
        return Takeover(
            partial(
                run_websocket,
                handshake=render_upgrade(request.head, "shout"),
                converse=converse,
                subprotocol="shout",
                limits=limits,
                budget=port.budget,
            )
        )

    port.routes.add("GET", "/ws", answer)
    return port


class Raw:
    """The client's end of a connection, byte by byte."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream

    async def send(self, *frames: bytes) -> None:
        """Send all of it in one segment."""
        await self.stream.send_all(b"".join(frames))

    async def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await self.stream.receive_some(size - len(data))
            assert piece, data
            data += bytes(piece)
        return data

    async def rest(self) -> bytes:
        data = b""
        while piece := await self.stream.receive_some():
            data += bytes(piece)
        return data

    async def shake_hands(self, *lines: str) -> bytes:
        await self.send("\r\n".join([*(lines or HANDSHAKE), "\r\n"]).encode("latin-1"))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await self.read(1)
        return answer


@asynccontextmanager
async def connection(
    converse: Converse = shout, limits: Limits | None = None
) -> AsyncIterator[Raw]:
    port = make_port(converse, limits or Limits())
    listener = Listener(port)
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve_stream, ours, "test")
        yield Raw(theirs)
        await theirs.aclose()
    assert listener.connections == 0
    assert port.budget.held == 0


@asynccontextmanager
async def websocket(converse: Converse = shout, limits: Limits | None = None) -> AsyncIterator[Raw]:
    async with connection(converse, limits) as raw:
        answer = await raw.shake_hands()
        assert answer.startswith(b"HTTP/1.1 101 ")
        yield raw


def code_of(closing_frame: bytes) -> int:
    """The code of the one Close frame that these bytes are."""
    assert closing_frame[0] == 0x88, closing_frame
    assert len(closing_frame) == 2 + closing_frame[1], closing_frame
    code: int = struct.unpack("!H", closing_frame[2:4])[0]
    return code


async def test_the_one_subprotocol_is_chosen_and_no_extension() -> None:
    async with connection() as raw:
        answer = await raw.shake_hands(*HANDSHAKE, "Sec-WebSocket-Extensions: permessage-deflate")
    assert b"Sec-WebSocket-Protocol: shout\r\n" in answer
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
    assert b"Extensions" not in answer


async def test_messages_come_whole_and_go_whole() -> None:
    async with websocket() as raw:
        await raw.send(frame(2, b"abc"), frame(1, b"d", final=False), frame(0, b"e"))
        assert await raw.read(9) == b"\x82\x03ABC\x82\x02DE"


async def test_what_follows_the_handshake_in_one_segment_is_not_lost() -> None:
    async with connection() as raw:
        await raw.send("\r\n".join([*HANDSHAKE, "\r\n"]).encode(), frame(2, b"early"))
        answer = b""
        while not answer.endswith(b"EARLY"):
            answer += await raw.read(1)


async def test_a_ping_is_answered_and_a_pong_ignored() -> None:
    async with websocket() as raw:
        await raw.send(frame(0xA, b"?"), frame(9, b"!"))
        assert await raw.read(3) == b"\x8a\x01!"


async def test_a_close_is_answered_with_its_code() -> None:
    async with websocket() as raw:
        await raw.send(frame(8, struct.pack("!H", 4000) + b"bye"))
        assert code_of(await raw.rest()) == 4000


# --- the handshake ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ("Host: \xff", 400),
        ("Host: ", 421),
        ("Sec-WebSocket-Protocol: \xe4", 400),
        ("Sec-WebSocket-Extensions: \xe4", 400),
        ("Connection: Upgrade, \xe4", 400),
        ("Sec-WebSocket-Protocol: other", 400),
        ("Sec-WebSocket-Version: 8", 426),
        ("Sec-WebSocket-Key: short", 400),
        ("Sec-WebSocket-Key: \u00e4", 400),
        ("Sec-WebSocket-Key: bm90IHNpeHRlZW4gYnl0ZXM=", 400),
        ("Upgrade: h2c", 426),
        ("Connection: close", 426),
        ("Content-Length: 3", 400),
        ("POST /ws HTTP/1.1", 405),
        ("GET /ws HTTP/1.0", 400),
    ],
)
async def test_a_handshake_that_is_none_is_refused(changed: str, status: int) -> None:
    name = changed.split(":", maxsplit=1)[0] if ":" in changed else "GET "
    kept = [line for line in HANDSHAKE if not line.startswith(name)]
    lines = [changed, *kept] if name == "GET " else [*kept, changed]
    with capture_logs() as logs:
        async with connection() as raw:
            answer = await raw.shake_hands(*lines)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert not [entry for entry in logs if entry["log_level"] == "error"]


@pytest.mark.parametrize("left_out", HANDSHAKE[1:])
async def test_a_handshake_without_one_of_its_headers_is_refused(left_out: str) -> None:
    async with connection() as raw:
        answer = await raw.shake_hands(*(line for line in HANDSHAKE if line != left_out))
    assert answer[9:12] in {b"400", b"426"}


async def test_a_host_that_would_break_an_idna_decoder_does_no_harm() -> None:
    async with connection() as raw:
        await raw.shake_hands(*HANDSHAKE[:1], "Host: [::1]:80", *HANDSHAKE[2:])
    async with connection() as raw:
        await raw.shake_hands(*HANDSHAKE[:1], "Host: a..b" + "c" * 300, *HANDSHAKE[2:])


async def test_garbage_and_a_peer_that_is_gone_at_once_do_no_harm() -> None:
    with capture_logs() as logs:
        async with connection() as raw:
            await raw.send(b"\x00garbage\r\n\r\n")
            await raw.stream.aclose()
    assert not [entry for entry in logs if entry["log_level"] == "error"]


async def test_a_peer_that_leaves_in_the_handshake_does_no_harm() -> None:
    with capture_logs() as logs:
        async with connection() as raw:
            await raw.send("\r\n".join([*HANDSHAKE, "\r\n"]).encode())
            await raw.stream.aclose()
    assert not [entry for entry in logs if entry["log_level"] == "error"]


# --- frames that kill ------------------------------------------------------------------------


async def test_a_ping_behind_our_close_is_not_answered_and_kills_nothing() -> None:
    with capture_logs() as logs:
        async with websocket(hang_up) as raw:
            length = len(close_frame(closing.DRAINED.code, closing.DRAINED.meaning))
            assert code_of(await raw.read(length)) == closing.DRAINED.code
            await raw.send(frame(9, b"late"), frame(2, b"later"))
            await raw.send(frame(9, b"latest"), frame(8, struct.pack("!H", 4001)))
            assert await raw.rest() == b""
    assert logs == []


@pytest.mark.parametrize(
    "frames",
    [
        [frame(2, b"x" * 1001), frame(2, b"y" * 1001)],
        [frame(2, b"x" * 1001), frame(9)],
        [frame(2, b"x" * 600, final=False), frame(9), frame(0, b"x" * 600), frame(9)],
    ],
)
async def test_messages_too_large_end_with_1009_whatever_follows(frames: list[bytes]) -> None:
    with capture_logs() as logs:
        async with websocket(limits=Limits(message_bytes_max=1000)) as raw:
            await raw.send(*frames)
            assert code_of((await raw.rest()).removeprefix(b"\x8a\x00")) == 1009
    assert logs == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"\xc2\x80" + bytes(4), 1002, id="reserved bit"),
        pytest.param(b"\x82\x01a", 1002, id="unmasked"),
        pytest.param(b"\x83\x80" + bytes(4), 1002, id="opcode"),
        pytest.param(frame(1, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(frame(1, b"\xe4", final=False) + frame(0), 1007, id="cut UTF-8"),
        pytest.param(frame(8, struct.pack("!H", 1005)), 1002, id="close code 1005"),
        pytest.param(frame(8, struct.pack("!H", 65535)), 1002, id="close code 65535"),
        pytest.param(frame(8, b"\x03"), 1002, id="half a close code"),
        pytest.param(frame(8, struct.pack("!H", 1000) + b"\xff"), 1007, id="close reason"),
        pytest.param(frame(0, b"a"), 1002, id="continuation of nothing"),
    ],
)
async def test_a_broken_frame_ends_with_its_code_behind_what_was_in_order(
    data: bytes, code: int
) -> None:
    with capture_logs() as logs:
        async with websocket() as raw:
            await raw.send(frame(2, b"ok"))
            assert await raw.read(4) == b"\x82\x02OK"
            await raw.send(data)
            assert code_of(await raw.rest()) == code
    assert logs == []


async def test_a_conversation_that_fails_is_closed_as_internal_and_logged() -> None:
    with capture_logs() as logs:
        async with websocket(fail) as raw:
            length = len(close_frame(4500, closing.INTERNAL.meaning))
            assert code_of(await raw.read(length)) == 4500
            await raw.send(frame(8, struct.pack("!H", 4500)))
            assert await raw.rest() == b""
    assert [entry["event"] for entry in logs] == ["connection failed"]


async def test_more_bytes_than_the_process_may_hold_end_with_overloaded() -> None:
    async with websocket(shout, Limits(in_flight_bytes_max=100)) as raw:
        await raw.send(frame(2, b"x" * 101))
        assert code_of(await raw.rest()) == closing.OVERLOADED.code


# --- deadlines -------------------------------------------------------------------------------


async def test_a_message_that_drips_ends_with_1008(autojump_clock: MockClock) -> None:
    async with websocket(limits=Limits(ping_seconds=1000)) as raw:
        await raw.send(frame(2, b"x", final=False), frame(9))
        assert await raw.read(2) == b"\x8a\x00"
        began = trio.current_time()
        assert code_of(await raw.rest()) == 1008
    assert 30 <= trio.current_time() - began <= 34


async def test_a_busy_connection_is_not_taken_for_one_message(autojump_clock: MockClock) -> None:
    async with websocket(limits=Limits(ping_seconds=1000)) as raw:
        data = frame(2, b"x")
        await raw.send(data[:-1])
        for _ in range(10):
            await trio.sleep(20)
            await raw.send(data[-1:] + data[:-1])
            assert await raw.read(3) == b"\x82\x01X"


async def test_a_quiet_peer_is_pinged_and_one_that_does_not_answer_is_cut(
    autojump_clock: MockClock,
) -> None:
    with capture_logs() as logs:
        async with websocket() as raw:
            head, size = await raw.read(2)
            assert head == 0x89
            assert trio.current_time() == pytest.approx(20, abs=1)
            await raw.send(frame(0xA, await raw.read(size)))
            await raw.read(2 + size)
            assert trio.current_time() == pytest.approx(40, abs=1)
            assert await raw.rest() == b""
    assert [entry["event"] for entry in logs] == ["ping unanswered"]
    assert trio.current_time() == pytest.approx(60, abs=1)


async def test_a_peer_that_does_not_answer_our_close_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    async with websocket(hang_up) as raw:
        assert code_of(await raw.rest()) == closing.DRAINED.code
        assert trio.current_time() <= 4


async def test_cancelled_by_force_it_leaves_nothing_behind() -> None:
    port = make_port(deaf, Limits())
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Listener(port).serve_stream, ours, "test")
        await Raw(theirs).shake_hands()
        nursery.cancel_scope.cancel()
    assert port.budget.held == 0
    assert not port.transports
