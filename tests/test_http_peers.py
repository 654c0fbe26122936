"""Peers of the HTTP port that wait, drip, stop reading, leave, or are too many; and the drain."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MemorySendStream, MockClock, memory_stream_pair, wait_all_tasks_blocked

from exo_stream.limits import Limits
from exo_stream.protocol.http import json_response
from exo_stream.server.listener import Listener
from exo_stream.server.request import BodyWriter, Request
from exo_stream.server.routes import Answer, Streamed
from tests.test_server_http import GET, HOST, Peer, connected, make_port, post


async def seconds_until_closed(peer: Peer) -> tuple[float, bytes]:
    began = trio.current_time()
    data = await peer.everything()
    return trio.current_time() - began, data


async def test_a_peer_that_says_nothing_is_closed(autojump_clock: MockClock) -> None:
    async with connected() as peer:
        seconds, data = await seconds_until_closed(peer)
    assert 5 <= seconds <= 9
    assert data == b""


async def test_a_head_that_drips_is_closed(autojump_clock: MockClock) -> None:
    async with connected() as peer:

        async def drip() -> None:
            for byte in GET * 10:
                await trio.sleep(0.5)
                try:
                    await peer.send(bytes([byte]))
                except trio.BrokenResourceError:
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            seconds, data = await seconds_until_closed(peer)
    assert seconds <= 9
    assert data.startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_kept_for_a_while(autojump_clock: MockClock) -> None:
    async with connected() as peer:
        await peer.send(GET)
        await peer.response()
        await trio.sleep(59)
        await peer.send(GET)
        await peer.response()
        seconds, data = await seconds_until_closed(peer)
    assert (60 <= seconds <= 64, data) == (True, b"")


async def test_a_body_that_drips_is_refused(autojump_clock: MockClock) -> None:
    async with connected() as peer:
        await peer.send(post("/echo", b"abc")[:-1])
        seconds, data = await seconds_until_closed(peer)
    assert 30 <= seconds <= 34
    assert data.startswith(b"HTTP/1.1 408 ")


async def test_a_peer_that_leaves_ends_a_stream_and_a_long_poll() -> None:
    port, ended = make_port(), []

    async def forever(_: Request) -> Answer:
        await trio.lowlevel.checkpoint()

        async def write(_: BodyWriter) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append("stream")

        return Streamed(200, (), write)

    async def poll(request: Request) -> Answer:
        try:
            async with request.watched():
                await trio.sleep_forever()
        finally:
            ended.append("poll")
        raise AssertionError

    port.routes.add("GET", "/forever", forever)
    port.routes.add("GET", "/poll", poll)
    for path in (b"/forever", b"/poll"):
        async with connected(port) as peer:
            await peer.send(GET.replace(b"/hello", path))
            await wait_all_tasks_blocked()
    assert ended == ["stream", "poll"]


async def test_requests_sent_during_a_long_poll_are_answered_behind_it() -> None:
    port, enough = make_port(), trio.Event()

    async def poll(request: Request) -> Answer:
        async with request.watched():
            await enough.wait()
        return json_response(200, "polled")

    port.routes.add("GET", "/poll", poll)
    async with connected(port) as peer:
        await peer.send(GET.replace(b"/hello", b"/poll"))
        await peer.send(GET)
        await wait_all_tasks_blocked()
        enough.set()
        assert (await peer.response())[2] == b'"polled"\n'
        assert (await peer.response())[2] == b"hello\n"


async def test_a_reader_that_stops_is_cut_after_the_send_deadline(
    autojump_clock: MockClock,
) -> None:
    port = make_port()
    ours, theirs = memory_stream_pair()
    assert isinstance(ours.send_stream, MemorySendStream)

    async def never(_: object = None) -> None:
        await trio.sleep_forever()

    ours.send_stream.send_all_hook = never  # the peer's window is closed
    await theirs.send_all(GET)
    await Listener(port).serve_stream(ours, "test")
    assert 10 <= trio.current_time() <= 14


async def never() -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("asked", "takes"),
    [
        pytest.param(GET.replace(HOST, HOST + b"Connection: close\r\n"), True, id="the last"),
        pytest.param(post("/ignore", b"abc")[:-1], True, id="whose body nobody wants"),
        pytest.param(b"GET /broken HTTP/1.1\r\n" + HOST + b"\r\n", True, id="that met a bug"),
        pytest.param(b"GET /broken HTTP/1.1\r\n" + HOST + b"\r\n", False, id="taking nothing"),
    ],
)
async def test_a_peer_that_does_not_leave_is_not_waited_for_when_all_is_said(
    asked: bytes, takes: bool, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()
    assert isinstance(ours.send_stream, MemorySendStream)
    if not takes:
        ours.send_stream.send_all_hook = never
    await theirs.send_all(asked)
    with capture_logs():
        await Listener(make_port()).serve_stream(ours, "test")
    assert trio.current_time() <= 2 * Limits().close_seconds_max + 1


class NobodyComes:
    """A socket that no connection comes from."""

    def __init__(self) -> None:
        self.socket = SimpleNamespace(close=lambda: None)

    async def accept(self) -> trio.abc.Stream:
        return await trio.sleep_forever()


async def test_a_drain_does_not_wait_for_an_answer_that_never_comes(
    autojump_clock: MockClock,
) -> None:
    async def forever(_: Request) -> Answer:
        return await trio.sleep_forever()

    port = make_port()
    port.routes.add("GET", "/forever", forever)
    listener = Listener(port)
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.run, [cast("trio.SocketListener", NobodyComes())])
        await wait_all_tasks_blocked()
        assert port.tasks is not None
        port.tasks.start_soon(listener.serve_stream, ours, "test")
        await theirs.send_all(b"GET /forever HTTP/1.1\r\n" + HOST + b"\r\n")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == port.limits.drain_seconds_max


async def test_a_drain_ends_an_idle_connection_at_once_and_a_busy_one_behind_its_answer() -> None:
    port, enough = make_port(), trio.Event()

    async def slow(_: Request) -> Answer:
        await enough.wait()
        return json_response(200, "slow")

    port.routes.add("GET", "/slow", slow)
    async with connected(port) as idle, connected(port) as busy:
        await idle.send(GET)
        await idle.response()
        await busy.send(GET.replace(b"/hello", b"/slow"))
        await wait_all_tasks_blocked()
        port.drain()
        assert await idle.everything() == b""
        enough.set()
        status, headers, _ = await busy.response()
        assert (status, headers["connection"]) == (200, "close")
        assert await busy.everything() == b""
    async with connected(port) as late:
        assert await late.everything() == b""


async def test_a_stream_whose_reader_has_gone_is_broken_off() -> None:
    port = make_port()
    async with connected(port) as peer:
        await peer.send(GET.replace(b"/hello", b"/sse"))
        await peer.stream.aclose()
