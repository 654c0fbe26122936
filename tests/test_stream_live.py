"""Live reads of streams: long-polls and events, woken together and only by what concerns them."""

from __future__ import annotations

from base64 import b64decode

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from exo_stream.limits import Limits
from exo_stream.protocol.streams.instants import rfc_3339
from exo_stream.server.streams import hub as hub_module
from exo_stream.server.streams.hub import PORTION_BYTES_MAX, Hub
from exo_stream.server.streams.portions import Portion
from exo_stream.server.streams.settings import StreamSettings
from exo_stream.testing import FakeClock
from tests.stream_http import BINARY, JSON, TEXT, Answered, Caller, Event, World, offset, open_world

LONG = StreamSettings(long_poll_seconds=30)


async def following(world: World, target: str) -> Caller:
    caller = await world.call()
    await caller.events(target)
    return caller


async def pair(caller: Caller) -> tuple[str, dict[str, object]]:
    """A data event, and the control event that follows it."""
    data, control = await caller.event(), await caller.event()
    assert data is not None
    assert control is not None
    assert data.kind == "data"
    return data.data, control.control


async def control(caller: Caller) -> dict[str, object]:
    event = await caller.event()
    assert event is not None
    return event.control


def seated(world: World) -> int:
    """How many readers wait in the hub, whatever they wait for."""
    handler = world.port.routes.find("GET", "/v1/stream/a")
    hub: Hub | None = handler.__self__._service._hub  # type: ignore[attr-defined]  # the handler is a method of the routes
    return 0 if hub is None else len(hub)


async def wait_seated(world: World, count: int) -> None:
    while seated(world) != count:  # noqa: ASYNC110  the hub has no event for its tests
        await trio.lowlevel.checkpoint()


async def quiet() -> None:
    """Return when nobody has anything to do."""
    await trio.testing.wait_all_tasks_blocked(0.01)


# --- long-poll -------------------------------------------------------------------------------


async def waiting(world: World, target: str) -> tuple[Caller, int]:
    """A connection whose long-poll is held by the server."""
    before = seated(world)
    caller = await world.call()
    await caller.send("GET", target)
    await wait_seated(world, before + 1)
    return caller, before


async def test_a_long_poll_is_answered_by_the_next_append() -> None:
    async with open_world(LONG) as world:
        await world.ask("PUT", "a", b"old", TEXT)
        caller, _ = await waiting(world, f"a?offset={offset(3)}&live=long-poll")
        await world.ask("POST", "a", b"new", TEXT)
        answer = await caller.answer()
        assert (answer.status, answer.body, answer.next) == (200, b"new", offset(6))
        assert answer.headers["stream-up-to-date"] == "true"
        assert answer.headers["stream-cursor"].isdigit()
        assert seated(world) == 0


@pytest.mark.parametrize("with_data", [False, True])
async def test_a_long_poll_is_answered_by_the_close(with_data: bool) -> None:
    async with open_world(LONG) as world:
        await world.ask("PUT", "a", b"old", TEXT)
        caller, _ = await waiting(world, "a?offset=now&live=long-poll")
        body = b"last" if with_data else b""
        await world.ask("POST", "a", body, {**TEXT, "stream-closed": "true"})
        answer = await caller.answer()
        assert (answer.status, answer.body) == (200 if with_data else 204, body)
        assert answer.headers["stream-closed"] == "true"
        assert answer.next == offset(3 + len(body))
        now = await world.ask("GET", "a?offset=now&live=long-poll")
        assert (now.status, now.headers["stream-closed"]) == (204, "true")
        assert "stream-cursor" not in now.headers


async def test_a_long_poll_of_a_stream_that_is_deleted_is_told_so() -> None:
    async with open_world(LONG) as world:
        await world.ask("PUT", "a", b"old", TEXT)
        caller, _ = await waiting(world, "a?offset=now&live=long-poll")
        await world.ask("DELETE", "a")
        assert (await caller.answer()).code == "NOT_FOUND"


async def test_a_long_poll_whose_time_is_over_says_where_to_go_on() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"old", TEXT)
        first = await world.ask("GET", "a?offset=now&live=long-poll")
        assert (first.status, first.next) == (204, offset(3))
        assert first.headers["stream-up-to-date"] == "true"
        cursor = first.headers["stream-cursor"]
        again = await world.ask("GET", f"a?offset=now&live=long-poll&cursor={cursor}")
        assert int(again.headers["stream-cursor"]) > int(cursor)


async def test_what_happens_to_other_streams_answers_no_long_poll() -> None:
    async with open_world(LONG) as world:
        for name in ("a", "ab", "a/b"):
            await world.ask("PUT", name, headers=TEXT)
        caller, _ = await waiting(world, "a?offset=now&live=long-poll")
        await quiet()
        reads = count_reads(world)
        await world.ask("POST", "ab", b"x", TEXT)
        await world.ask("POST", "a/b", b"x", TEXT)
        await world.ask("POST", "a", b"mine", TEXT)
        assert (await caller.answer()).body == b"mine"
        assert len(reads) == 1


def count_reads(world: World) -> list[str]:
    """The names of streams as they are read from now on."""
    names: list[str] = []
    streams = world.platform.streams
    read = streams.read

    async def counted(name: str, *args: object, **options: object) -> object:
        names.append(name)
        return await read(name, *args, **options)  # type: ignore[arg-type]  # handed on as they came

    streams.read = counted  # type: ignore[method-assign, assignment]  # notes what is read
    return names


async def test_many_long_polls_are_answered_by_one_read() -> None:
    async with open_world(LONG) as world:
        await world.ask("PUT", "a", headers=TEXT)
        callers = []
        for _ in range(20):
            caller, _ = await waiting(world, "a?offset=now&live=long-poll")
            callers.append(caller)
        await quiet()
        reads = count_reads(world)
        await world.ask("POST", "a", b"news", TEXT)
        answers: list[Answered] = [await caller.answer() for caller in callers]
        assert {answer.body for answer in answers} == {b"news"}
        assert reads == ["a"]


async def test_a_waiting_client_that_vanishes_leaves_nothing_behind() -> None:
    async with open_world(LONG) as world:
        await world.ask("PUT", "a", headers=TEXT)
        caller, _ = await waiting(world, "a?offset=now&live=long-poll")
        sse = await following(world, "a?offset=now&live=sse")
        await control(sse)
        await wait_seated(world, 2)
        for gone in (caller, sse):
            await trio.aclose_forcefully(gone.stream)
        await wait_seated(world, 0)
        assert (await world.ask("POST", "a", b"x", TEXT)).status == 204


# --- events ----------------------------------------------------------------------------------


async def test_events_tell_what_is_there_and_then_what_comes() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"one\r\ntwo", TEXT)
        caller = await following(world, "a?offset=-1&live=sse")
        data, told = await pair(caller)
        assert data == "one\ntwo"
        assert told["streamNextOffset"] == offset(8)
        assert told["upToDate"] is True
        await wait_seated(world, 1)
        await world.ask("POST", "a", b"three", TEXT)
        data, told = await pair(caller)
        assert (data, told["streamNextOffset"]) == ("three", offset(13))
        await world.ask("POST", "a", b"end", {**TEXT, "stream-closed": "true"})
        data, told = await pair(caller)
        assert data == "end"
        assert told == {
            "streamNextOffset": offset(16),
            "upToDate": True,
            "streamClosed": True,
        }
        assert await caller.event() is None
        assert (await caller.ask("HEAD", "a")).status == 200  # the connection goes on


async def test_events_of_a_closed_stream_from_now_are_one() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"x", {**TEXT, "stream-closed": "true"})
        caller = await following(world, "a?offset=now&live=sse")
        told = await control(caller)
        assert told == {"streamNextOffset": offset(1), "upToDate": True, "streamClosed": True}
        assert await caller.event() is None


@pytest.mark.slow
async def test_one_read_and_one_encoding_serve_all_readers_of_events() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", headers=JSON)
        callers = [await following(world, "a?offset=now&live=sse") for _ in range(130)]
        for caller in callers:
            await control(caller)
        await wait_seated(world, 130)
        await world.ask("POST", "a", b"0", JSON)  # whoever sat down late reads once more
        for caller in callers:
            await pair(caller)
        await quiet()
        reads = count_reads(world)
        await world.ask("POST", "a", b'{"n":1}', JSON)
        for caller in callers:
            data, told = await pair(caller)
            assert (data, told["streamNextOffset"]) == ('[{"n":1}]', offset(8))
        assert reads == ["a"]


async def test_a_character_that_comes_in_two_appends_is_one_in_events() -> None:
    async with open_world() as world:
        euro = "€".encode()
        await world.ask("PUT", "a", b"x" + euro[:1], TEXT)
        caller = await following(world, "a?offset=-1&live=sse")
        data, told = await pair(caller)
        assert (data, told["streamNextOffset"]) == ("x", offset(1))
        await wait_seated(world, 1)
        await world.ask("POST", "a", euro[1:2], TEXT)
        await world.ask("POST", "a", euro[2:] + b"y", TEXT)
        data, told = await pair(caller)
        assert (data, told["streamNextOffset"]) == ("€y", offset(5))
        await world.ask("POST", "a", euro[:2], {**TEXT, "stream-closed": "true"})
        data, told = await pair(caller)
        assert (data, told["streamClosed"]) == ("\ufffd", True)


async def test_bytes_travel_in_base64_and_the_head_says_so() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", bytes(range(256)), BINARY)
        async with await world.call() as caller:
            await caller.send("GET", "a?offset=-1&live=sse")
            _, headers = await caller.head()
            assert headers["stream-sse-data-encoding"] == "base64"
        caller = await following(world, "a?offset=-1&live=sse")
        data, _ = await pair(caller)
        assert b64decode(data) == bytes(range(256))


async def test_a_long_backlog_comes_in_portions() -> None:
    async with open_world() as world:
        body = b"x" * (2 * PORTION_BYTES_MAX + 5)
        await world.ask("PUT", "a", body, TEXT)
        caller = await following(world, "a?offset=-1&live=sse")
        got, up_to_date = "", []
        while len(got) < len(body):
            data, told = await pair(caller)
            got += data
            up_to_date.append("upToDate" in told)
        assert got.encode() == body
        assert up_to_date == [False, False, True]


async def test_an_append_larger_than_a_seat_takes_is_read_by_each_reader() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", headers=TEXT)
        callers = [await following(world, "a?offset=now&live=sse") for _ in range(3)]
        for caller in callers:
            await control(caller)
        await wait_seated(world, 3)
        await world.ask("POST", "a", b"y" * 100_000, TEXT)
        for caller in callers:
            data, told = await pair(caller)
            assert (len(data), told["streamNextOffset"]) == (100_000, offset(100_000))
        await wait_seated(world, 3)


async def test_a_connection_of_events_ends_when_its_time_is_over() -> None:
    settings = StreamSettings(sse_seconds=0.2, keep_alive_seconds=0.05)
    async with open_world(settings) as world:
        await world.ask("PUT", "a", headers={**TEXT, "stream-ttl": "1000"})
        caller = await following(world, "a?offset=now&live=sse")
        await control(caller)
        assert await caller.event() is None  # comments came before it
        assert (await caller.ask("HEAD", "a")).status == 200


async def test_a_reader_is_kept_company_while_nothing_happens() -> None:
    async with open_world(StreamSettings(keep_alive_seconds=0.01)) as world:
        await world.ask("PUT", "a", headers=TEXT)
        async with await world.call() as caller:
            await caller.send("GET", "a?offset=now&live=sse")
            await caller.head()
            heard = b""
            while heard.count(b":\n\n") < 3:
                heard += bytes(await caller.stream.receive_some())
            await world.ask("POST", "a", b"x", TEXT)
            while b"data:x" not in heard:
                heard += bytes(await caller.stream.receive_some())


async def test_events_end_when_the_stream_is_deleted() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", headers=TEXT)
        caller = await following(world, "a?offset=now&live=sse")
        await control(caller)
        await wait_seated(world, 1)
        await world.ask("DELETE", "a")
        assert await caller.event() is None


async def test_events_end_when_the_stream_expires_and_not_while_it_is_kept_alive() -> None:
    settings, clock = StreamSettings(keep_alive_seconds=0.05), FakeClock()
    async with open_world(settings, clock=clock) as world:
        soon = rfc_3339(clock() + 60_000_000)
        await world.ask("PUT", "a", headers={**TEXT, "stream-expires-at": soon})
        await world.ask("PUT", "b", headers={**TEXT, "stream-ttl": "1000"})
        kept = await following(world, "b?offset=now&live=sse")
        caller = await following(world, "a?offset=now&live=sse")
        await control(caller)
        await control(kept)
        clock.advance(60)
        assert await caller.event() is None
        await world.ask("POST", "b", b"still there", TEXT)
        assert (await pair(kept))[0] == "still there"


async def test_a_client_ahead_of_our_cursor_is_told_a_later_one() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", headers=TEXT)
        for mine in ("99999999999", "1", "x"):
            caller = await following(world, f"a?offset=now&live=sse&cursor={mine}")
            cursor = (await control(caller))["streamCursor"]
            assert isinstance(cursor, str)
            if mine.isdigit():
                assert int(cursor) > int(mine)


@pytest.mark.slow
async def test_a_reader_that_stops_reading_is_evicted_and_costs_nobody_anything() -> None:
    async with open_world(limits=Limits(send_seconds_max=1)) as world:
        await world.ask("PUT", "a", headers=BINARY)
        stuck = await following(world, "a?offset=now&live=sse")
        reader = await following(world, "a?offset=now&live=sse")
        await control(stuck)
        await control(reader)
        await wait_seated(world, 2)
        transports = len(world.port.transports)
        for _ in range(200):
            await world.ask("POST", "a", b"z" * 40_000, BINARY)
            data, _told = await pair(reader)
            assert len(data) > 50_000
        while len(world.port.transports) >= transports:  # noqa: ASYNC110  neither has the port
            await trio.lowlevel.checkpoint()
        held = sum(transport.bytes_held for transport in world.port.transports)
        assert held < 1_000_000


async def test_readers_leave_when_the_server_drains() -> None:
    with trio.fail_after(60):
        async with open_world(LONG) as world:
            await world.ask("PUT", "a", headers=TEXT)
            sse = await following(world, "a?offset=now&live=sse")
            await control(sse)
            await wait_seated(world, 1)
            poll, _ = await waiting(world, "a?offset=now&live=long-poll")
            await wait_seated(world, 2)
            world.port.drain()
            assert await sse.event() is None
            assert (await poll.answer()).status == 204


# --- several streams over one connection -----------------------------------------------------


async def test_one_connection_follows_several_streams() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"x", TEXT)
        await world.ask("PUT", "b%20c", b"[1]", JSON)
        caller = await following(world, "/v1/streams?from=-1:a&from=now:b%20c")
        events = [await caller.event() for _ in range(3)]
        assert events[0] == Event("data", "x", "a")
        assert events[1] is not None
        assert events[1].control["stream"] == "a"
        assert events[2] is not None
        assert (events[2].control["stream"], events[2].control["upToDate"]) == ("b c", True)
        await wait_seated(world, 2)
        await world.ask("POST", "b%20c", b"2", JSON)
        assert await caller.event() == Event("data", "[2]", "b%20c")
        assert (await control(caller))["streamNextOffset"] == offset(2)
        await world.ask("DELETE", "a")
        assert await control(caller) == {"stream": "a", "streamGone": True}
        await world.ask("POST", "b%20c", headers={"stream-closed": "true"})
        assert (await control(caller))["streamClosed"] is True
        assert await caller.event() is None


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "BAD_REQUEST"),
        ("from=a", "BAD_REQUEST"),
        ("from=x:a", "INVALID_OFFSET"),
        ("from=-1:a&from=now:a", "BAD_REQUEST"),
        ("from=-1:a&from=-1:a", "BAD_REQUEST"),
        ("from=-1:../a", "INVALID_STREAM_NAME"),
        ("from=-1:", "INVALID_STREAM_NAME"),
        ("&".join(f"from=-1:{number}" for number in range(257)), "BAD_REQUEST"),
        ("from=-1:none&other=1", "NOT_FOUND"),
    ],
)
async def test_several_streams_must_be_named_well(query: str, code: str) -> None:
    async with open_world() as world:
        assert (await world.ask("GET", f"/v1/streams?{query}")).code == code


# --- what may go wrong -----------------------------------------------------------------------


async def test_a_channel_that_fails_sends_its_readers_to_read_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", headers=TEXT)
        caller = await following(world, "a?offset=now&live=sse")
        await control(caller)
        await wait_seated(world, 1)
        failed: list[int] = []

        def fail_once(*args: object) -> Portion:
            monkeypatch.undo()
            failed.append(1)
            raise ValueError("a bug")

        monkeypatch.setattr(hub_module, "Portion", fail_once)
        with capture_logs() as logs:
            await world.ask("POST", "a", b"x", TEXT)
            assert (await pair(caller))[0] == "x"
        assert failed == [1]
        assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
            "channel failed"
        ]


async def test_a_subscription_in_the_program_sees_what_comes_over_http() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"x", TEXT)
        async with world.platform.streams.subscribe("a") as feed:
            assert (await anext(feed)).body == b"x"
            await world.ask("POST", "a", b"y", TEXT)
            assert (await anext(feed)).body == b"y"
