"""The port as a whole, on real sockets: health, visitors, limits, hostile bytes, the drain."""

from __future__ import annotations

import errno
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock
from trio_websocket import ConnectionClosed

from exo_stream.errors import InvalidRequestError, OverloadedError, UnavailableError
from exo_stream.limits import Limits
from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.protocol import messages as m
from exo_stream.protocol.http import Response
from exo_stream.protocol.origin import Visitors
from exo_stream.server.budget import Budget
from exo_stream.server.health import Health
from exo_stream.server.listener import Listener
from exo_stream.server.port import Port
from exo_stream.server.request import BodyWriter, Request
from exo_stream.server.routes import Answer, Streamed
from exo_stream.server.serve import serve
from tests.test_websocket import HANDSHAKE, frame
from tests.wire import connected, serving

T = TypeVar("T")


@asynccontextmanager
async def open_port_on(
    limits: Limits | None = None, visitors: Visitors | None = None
) -> AsyncIterator[tuple[Platform, Port, int]]:
    with trio.fail_after(240):  # a guard against hanging, never a measure
        async with open_platform(":memory:", limits=limits) as platform:
            async with serving(platform, visitors) as (port, _, number):
                yield platform, port, number


async def exchange(number: int, data: bytes, *, streams: bool = False) -> bytes:
    """Send ``data`` and no more, and read to the end; a stream ends when its reader half-closes."""
    async with await trio.open_tcp_stream("127.0.0.1", number) as stream:
        answer = b""
        try:
            await stream.send_all(data)
            if not streams:
                await stream.send_eof()
            while piece := await stream.receive_some():
                answer += bytes(piece)
        except trio.BrokenResourceError:
            pass
        return answer


async def get(number: int, path: str, *headers: str) -> tuple[int, dict[str, object]]:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "\r\n"]
    head, _, body = (await exchange(number, "\r\n".join(lines).encode())).partition(b"\r\n\r\n")
    value: dict[str, object] = json.loads(body)
    return int(head.split()[1]), value


async def is_well(number: int) -> bool:
    status, _ = await get(number, "/healthz/live")
    async with connected(number) as wire:
        await wire.greet()
    return status == 200


# --- health and visitors ---------------------------------------------------------------------


async def test_health_tells_what_is_well() -> None:
    async with open_port_on() as (platform, _, number):
        for path in ("/health", "/healthz/ready", "/healthz/live"):
            status, value = await get(number, path)
            assert (status, value["status"]) == (200, "ok")
            assert (value["log_id"], value["frontier"]) == (platform.log_id, 0)


async def test_a_draining_port_lives_but_is_not_ready() -> None:
    async with open_platform(":memory:") as platform:
        port = Port(Limits(writer_seconds_max=0), Visitors.welcome())
        Health(platform, port).add_routes()

        async def status_of(path: str) -> tuple[int, dict[str, str]]:
            answer = await port.routes.find("GET", path)(None)  # type: ignore[arg-type]  # it does not look at the request
            assert isinstance(answer, Response)
            return answer.status, json.loads(answer.body)["checks"]

        port.drain()
        assert (await status_of("/healthz/live"))[0] == 200
        status, checks = await status_of("/health")
        assert (status, checks["port"], checks["disk"]) == (503, "it is draining", "ok")


async def test_a_writer_that_is_stuck_in_a_call_is_not_alive(autojump_clock: MockClock) -> None:
    released = trio.Event()

    async def stuck(fn: Callable[[], T], /) -> T:
        if trio.current_time() > 0:
            await released.wait()
        await trio.lowlevel.checkpoint()
        return fn()

    async with open_platform(":memory:", hop=stuck) as platform, trio.open_nursery() as nursery:
        port = Port(Limits(), Visitors.welcome())
        Health(platform, port).add_routes()
        live = port.routes.find("GET", "/healthz/live")
        await trio.sleep(1)
        nursery.start_soon(platform.put_batch, [(b"a", b"1")])
        await trio.sleep(59)
        answer = await live(None)  # type: ignore[arg-type]  # it does not look at the request
        assert isinstance(answer, Response)
        assert answer.status == 200
        await trio.sleep(2)
        answer = await live(None)  # type: ignore[arg-type]  # it does not look at the request
        assert isinstance(answer, Response)
        assert answer.status == 503
        assert b"busy with one call for 61 seconds" in answer.body
        released.set()


async def test_pages_of_foreign_origins_may_not_connect() -> None:
    visitors = Visitors.welcome(origins=["https://listed.example"])
    async with open_port_on(visitors=visitors) as (_, _, number):
        for origin, status in [
            ("https://evil.example", 403),
            ("null", 403),
            ("http://localhost:1", 403),
            ("https://listed.example", 400),  # the subprotocol is another
            (f"http://127.0.0.1:{number}", 400),
        ]:
            lines = ["GET /v1/ws HTTP/1.1", f"Host: 127.0.0.1:{number}", *HANDSHAKE[2:]]
            head = "\r\n".join([*lines, f"Origin: {origin}", "\r\n"])
            answer = await exchange(number, head.encode())
            assert answer.split()[1] == b"%d" % status, origin


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("LOCALHOST:4437", True),
        ("localhost.", True),
        ("127.0.0.1:80", True),
        ("[::1]:80", True),
        ("10.0.0.1", True),
        ("exo.example:1", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
        (None, False),
    ],
)
def test_hosts_are_names_of_this_machine_addresses_and_those_listed(
    host: str | None, known: bool
) -> None:
    assert Visitors.welcome(["Exo.example"]).knows_host(host) is known
    assert Visitors.welcome(["*"]).knows_host(host) is (host is not None)


def test_origins_are_none_our_own_those_listed_or_all() -> None:
    some = Visitors.welcome(origins=["https://Listed.example/"])
    assert some.knows_origin(None, None)
    assert some.knows_origin("https://listed.example", "localhost")
    assert some.lists("https://LISTED.example")
    assert some.knows_origin("http://localhost:4437", "localhost:4437")
    assert not some.knows_origin("http://localhost:8000", "localhost:4437")
    assert not some.knows_origin("ftp://localhost", "localhost")
    assert not some.knows_origin("http://localhost", None)
    assert Visitors.welcome(origins=["*"]).knows_origin("https://any.example", "localhost")


# --- the entry -------------------------------------------------------------------------------


async def test_a_port_in_use_and_a_port_that_is_none_are_told() -> None:
    async with open_port_on() as (platform, _, number):
        with pytest.raises(UnavailableError, match=f"{number}: it is in use"):
            await serve(platform, port=number)
        with pytest.raises(InvalidRequestError, match="no port 70000"):
            await serve(platform, port=70_000)
        with pytest.raises(UnavailableError, match="cannot listen"):
            await serve(platform, host="host.invalid", port=0)


async def _serve_in(  # noqa: ASYNC114, ASYNC128 - serve says that it started
    scope: trio.CancelScope,
    platform: Platform,
    *,
    task_status: trio.TaskStatus[tuple[str, int]],
) -> None:
    with scope:
        await serve(platform, port=0, task_status=task_status)


async def test_serve_ends_when_it_is_cancelled_and_everybody_was_told() -> None:
    async with open_platform(":memory:") as platform, trio.open_nursery() as nursery:
        serving_scope = trio.CancelScope()

        async def cancel_when(told: trio.Event) -> None:
            await told.wait()
            serving_scope.cancel()

        told = trio.Event()
        nursery.start_soon(cancel_when, told)
        host, number = await nursery.start(_serve_in, serving_scope, platform)
        assert host == "127.0.0.1"
        async with connected(number) as wire:
            await wire.greet()
            told.set()
            await wire.expect(m.GoAway)
            with pytest.raises(ConnectionClosed) as closed:
                await wire.next_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1001


# --- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits", [Limits(connections_per_address_max=2), Limits(connections_max=2)]
)
async def test_connections_are_bounded_for_each_address_and_in_all(limits: Limits) -> None:
    async with open_port_on(limits) as (_, _, number):
        async with connected(number), connected(number):
            assert b" 503 " in await exchange(number, b"")
        assert await is_well(number)


async def test_accepting_goes_on_when_file_descriptors_run_out() -> None:
    class Exhausted:
        """A listening socket whose accept fails twice."""

        def __init__(self) -> None:
            self.errors = [errno.EMFILE, errno.ENFILE]
            self.socket = trio.socket.socket()

        async def accept(self) -> trio.SocketStream:
            if self.errors:
                raise OSError(self.errors.pop(), "no file descriptor left")
            return await trio.sleep_forever()

    port, exhausted = Port(Limits(), Visitors.welcome()), Exhausted()
    with capture_logs() as logs:
        with trio.move_on_after(0.3):
            await Listener(port).run([exhausted])  # type: ignore[list-item]  # as much of a listener as is asked
    assert [entry["event"] for entry in logs] == ["accept postponed"] * 2


async def test_who_waits_for_memory_has_the_slowest_cut() -> None:
    cut: list[int] = []
    budget = Budget(100)

    def relieve() -> None:
        cut.append(budget.held)
        if len(cut) == 2:
            budget.give(80)

    budget.relieve = relieve
    with budget.open_share() as share:
        share.take(80)
        with pytest.raises(OverloadedError):
            share.take(30)
        share._held = 0  # what relieve gives back
        await share.wait_take(30)
        assert (cut, budget.held) == ([80, 80], 30)
        share.give(1000)
        await share.wait_take(1000)  # more than all, when nothing else is held
    assert budget.held == 0


async def test_who_waits_for_memory_is_served_in_the_order_of_coming(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(100)
    served: list[str] = []

    async def wait(name: str, size: int, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await budget.wait_take(size)
            served.append(name)

    budget.take(80)
    async with trio.open_nursery() as nursery:
        scopes = [
            await nursery.start(wait, name, size)
            for name, size in [("large", 90), ("small", 10), ("one more", 15), ("last", 1)]
        ]
        await trio.sleep(1)
        assert served == []  # though the small one would fit
        scopes[2].cancel()
        scopes[0].cancel()
        await trio.sleep(1)
        assert sorted(served) == ["last", "small"]  # there was room for both at once
        assert budget.held == 91


async def test_whoever_is_cancelled_as_its_turn_comes_gives_it_back(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(100)
    budget.take(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.wait_take, 60)
        await trio.sleep(0.1)
        nursery.start_soon(budget.wait_take, 70)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
        budget.give(100)
        assert budget.held == 60
    assert budget.held == 0
    assert not budget._waiting


@dataclass(eq=False)
class Blocked:
    """A transport whose peer takes nothing since then."""

    blocked_since: float | None
    killed: bool = False

    @property
    def closed(self) -> bool:
        return self.killed

    def kill(self) -> None:
        self.killed = True


async def test_the_one_blocked_longest_is_cut_if_it_was_given_time() -> None:
    await trio.lowlevel.checkpoint()
    port, now = Port(Limits(), Visitors.welcome()), trio.current_time()
    port.cut_slowest()
    transports = [Blocked(None), Blocked(now - 5), Blocked(now - 9), Blocked(now)]
    port.transports.update(transports)  # type: ignore[arg-type]  # as much of a transport as is asked
    port.cut_slowest()
    assert [transport.killed for transport in transports] == [False, False, True, False]


async def test_a_stream_is_written_without_waiting_and_what_is_left_follows() -> None:
    written: list[bytes] = []

    async def events(_: Request) -> Answer:
        await trio.lowlevel.checkpoint()

        async def write(writer: BodyWriter) -> None:
            assert writer.can_have_seat
            while writer.try_send(b"data: ", b"x" * 100_000):
                written.append(b"data: " + b"x" * 100_000)
            await writer.send(b"last")

        return Streamed(200, (), write)

    async with open_port_on() as (_, port, number):
        port.routes.add("GET", "/events", events)
        head = b"GET /events HTTP/1.%d\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        for version in (0, 1):
            written.clear()
            answer = await exchange(number, head % version, streams=True)
            body = answer.partition(b"\r\n\r\n")[2]
            chunks = b"".join(b"186a6\r\n%b\r\n" % piece for piece in written)
            whole = chunks + b"4\r\nlast\r\n0\r\n\r\n" if version else b"".join(written) + b"last"
            assert written
            assert body == whole


# --- hostile bytes ---------------------------------------------------------------------------


def hostile_heads(count: int) -> list[bytes]:
    """Random bytes, and requests with some bytes changed."""
    rng = random.Random(7)
    good = "\r\n".join([*HANDSHAKE, "\r\n"]).encode()
    heads = []
    for _ in range(count):
        if rng.random() < 0.3:
            heads.append(rng.randbytes(rng.randrange(200)))
            continue
        data = bytearray(good)
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        heads.append(bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data))
    return heads


def hostile_frames(count: int) -> list[bytes]:
    """Random bytes, and frames with some bytes changed."""
    rng = random.Random(8)
    good = [frame(2, b"\x81\x82dping\x01"), frame(9, b"x"), frame(8, b"\x03\xe8"), frame(1, b"a")]
    frames = []
    for _ in range(count):
        data = bytearray(b"".join(rng.choices(good, k=rng.randrange(1, 4))))
        if rng.random() < 0.3:
            data = bytearray(rng.randbytes(rng.randrange(60)))
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        frames.append(bytes(data))
    return frames


async def attack(number: int, head: bytes, cases: list[bytes]) -> None:
    """Each case on a connection of its own; sixteen at a time; some end with a reset."""
    waiting = list(cases)

    async def one_after_the_other() -> None:
        while waiting:
            case = waiting.pop()
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", number)
                async with stream:
                    await stream.send_all(head + case)
                    if len(waiting) % 5 == 0:
                        reset = struct.pack("ii", 1, 0)
                        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    else:
                        await stream.send_eof()
                        with trio.move_on_after(20):
                            while await stream.receive_some():
                                pass
            except (OSError, trio.BrokenResourceError):
                pass

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(one_after_the_other)


V1 = "\r\n".join(
    [
        "GET /v1/ws HTTP/1.1",
        *HANDSHAKE[1:-1],
        f"Sec-WebSocket-Protocol: {m.SUBPROTOCOL}",
        "\r\n",
    ]
).encode()


@pytest.mark.parametrize("count", [pytest.param(100), pytest.param(5_000, marks=pytest.mark.slow)])
async def test_no_bytes_get_past_their_connection(count: int) -> None:
    """As many heads, and as many frames behind a good one."""
    with capture_logs() as logs:
        async with open_port_on() as (_, port, number):
            await attack(number, b"", hostile_heads(count))
            await attack(number, V1, hostile_frames(count))
            assert await is_well(number)
    assert not port.transports
    assert [entry for entry in logs if entry["log_level"] in {"error", "warning"}] == []
