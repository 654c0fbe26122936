"""Conversations over real sockets: what is asked, what is answered, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed

from exo_stream.limits import KIB, Limits
from exo_stream.model import Cursor
from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.producers import Producer
from exo_stream.protocol import messages as m
from exo_stream.protocol.codec import encode
from exo_stream.protocol.frames import Assembly
from exo_stream.protocol.messages import SUBPROTOCOL
from exo_stream.protocol.origin import Visitors
from exo_stream.selectors import Selector
from exo_stream.server.listener import Listener
from exo_stream.server.serve import open_port
from exo_stream.starts import After, FromSequence, FromSnapshot, Last, Now, Oldest, Since, Start
from exo_stream.storage.hop import in_place
from exo_stream.writes import STEP_ENTRIES_MAX
from tests.test_websocket import HANDSHAKE, Raw, code_of
from tests.wire import Wire, connected, serving


@asynccontextmanager
async def conversing(limits: Limits | None = None) -> AsyncIterator[tuple[Platform, Wire]]:
    """A platform in memory and one client that has been welcomed."""
    with trio.fail_after(30):  # a guard against hanging, never a measure
        async with open_platform(":memory:", limits=limits) as platform:
            async with serving(platform) as (_, _, number), connected(number) as wire:
                await wire.greet()
                yield platform, wire
            assert platform.sources.interest.seats == 0
            assert len(platform.sources.interest) == 0


async def code_at_the_end(wire: Wire) -> int:
    """The code with which the server closes; what it says before does not matter."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await wire.socket.get_message()
    assert closed.value.reason is not None
    return int(closed.value.reason.code)


async def test_the_welcome_tells_the_log_and_the_limits() -> None:
    async with open_platform(":memory:") as platform, serving(platform) as (_, _, number):
        await platform.put_batch([(b"a", b"1")])
        async with connected(number) as wire:
            welcome = await wire.greet()
    assert (welcome.version, welcome.log_id) == (1, platform.log_id)
    assert (welcome.frontier, welcome.oldest) == (1, 1)
    assert welcome.limits["frame_bytes_max"] == Limits().frame_bytes_max


async def test_writes_keep_their_order_and_a_refused_one_spoils_no_other() -> None:
    async with conversing() as (platform, wire):
        for first in range(1, 61, 3):
            await wire.say(
                m.Write(first, puts=((b"k", b"%d" % first),)),
                m.Write(first + 1, puts=((b"x" * 255, b""),)),
                m.Write(first + 2, puts=((b"k", b"%d" % (first + 2)),)),
            )
        answers = [await wire.next_message() for _ in range(60)]
        written = [a for a in answers if isinstance(a, m.Written)]
        refused = [a for a in answers if isinstance(a, m.Failure)]
        assert {a.code for a in refused} == {"limit_exceeded"}
        assert [a.sequence for a in sorted(written, key=lambda a: a.id)] == list(range(1, 41))
        assert await platform.get(b"k") == b"60"


async def test_a_producers_retry_and_a_precondition() -> None:
    async with conversing() as (_, wire):
        producer = Producer(b"p", 1, 1)
        await wire.say(m.Write(1, puts=((b"a", b"1"),), producer=producer))
        assert (await wire.expect(m.Written)).sequence == 1
        await wire.say(m.Write(2, puts=((b"a", b"1"),), producer=producer))
        assert (await wire.expect(m.Written)).sequence == 1
        await wire.say(m.Write(3, deletes=(b"a",), require={b"a": "absent"}))
        failure = await wire.expect(m.Failure)
        assert (failure.id, failure.code, failure.fields["version"]) == (3, "conflict", 1)


async def test_the_gets_of_a_frame_are_answered_at_one_sequence() -> None:
    async with conversing() as (platform, wire):
        await platform.put_batch([(b"a", b"1"), (b"b", b"")])
        await wire.say(
            m.Get(1, b"a"),
            m.GetMany(2, (b"b", b"none", b"b")),
            m.Get(3, b"x" * 300),
            m.Get(4, b"a", min_sequence=9, wait=False),
            m.GetMany(5, (b"a",) * 20_000),
            m.GetMany(6, ()),
        )
        answers = {}
        for _ in range(6):
            message = await wire.next_message()
            assert isinstance(message, m.Value | m.Values | m.Failure)
            answers[message.id] = message
        assert answers[1] == m.Value(1, 1, 1, b"1")
        assert answers[2] == m.Values(2, 1, (b"", None, b""))
        codes = {id_: a.code for id_, a in answers.items() if isinstance(a, m.Failure)}
        assert codes == {3: "limit_exceeded", 4: "not_visible_yet", 5: "limit_exceeded"}
        assert answers[6] == m.Values(6, 1, ())


async def test_a_get_waits_for_its_sequence_and_nobody_waits_for_it() -> None:
    async with conversing() as (platform, wire):
        await wire.say(m.Get(1, b"a", min_sequence=1), m.Info(2))
        assert (await wire.expect(m.Information)).frontier == 0
        await platform.put_batch([(b"a", b"1")])
        assert await wire.next_message() == m.Value(1, 1, 1, b"1")


async def test_large_values_come_in_several_frames() -> None:
    async with conversing(Limits(frame_bytes_max=100 * KIB)) as (platform, wire):
        await platform.put_batch([(b"%d" % n, b"x" * 80 * KIB) for n in range(4)])
        await wire.say(*(m.Get(n + 1, b"%d" % n) for n in range(4)))
        for _ in range(4):
            frame = await wire.socket.get_message()
            assert isinstance(frame, bytes)
            assert len(frame) < 100 * KIB
            [value] = wire.session.receive(frame)
            assert isinstance(value, m.Value)


async def test_gets_whose_values_are_too_much_together_are_looked_up_one_by_one() -> None:
    limits = Limits(frame_bytes_max=100 * KIB, get_many_bytes_max=200 * KIB)
    async with conversing(limits) as (platform, wire):
        await platform.put_batch([(b"%d" % n, b"x" * 80 * KIB) for n in range(6)])
        await wire.say(
            *(m.Get(n + 1, b"%d" % n) for n in range(6)),
            m.GetMany(7, (b"0", b"1", b"2")),
            m.GetMany(8, (b"0", b"1", b"0")),
        )
        answers = [await wire.next_message() for _ in range(8)]
        assert [a.id for a in answers if isinstance(a, m.Value)] == [1, 2, 3, 4, 5, 6]
        assert [a.fields["limit"] for a in answers if isinstance(a, m.Failure)] == [
            "get_many_bytes_max"
        ]
        assert [a.id for a in answers if isinstance(a, m.Values)] == [8]


async def test_a_scan_is_read_in_pages_until_it_ends_or_is_closed() -> None:
    limits = Limits(page_rows_max=10, frame_bytes_max=4 * KIB, snapshots_max=1)
    async with conversing(limits) as (platform, wire):
        pairs = [(b"%03d" % n, b"x" * 700) for n in range(25)]
        await platform.put_batch(pairs)
        await wire.say(m.Scan(1, b"001", b"021"))
        rows = await wire.expect(m.Rows)
        found = list(rows.rows)
        await platform.put_batch([(b"0015", b"later")])
        id_ = 1
        while rows.more:
            id_ += 1
            await wire.say(m.ScanNext(id_, 1))
            rows = await wire.expect(m.Rows)
            assert (rows.id, rows.sequence) == (id_, 1)
            found += rows.rows
        assert found == pairs[1:22]

        await wire.say(m.ScanNext(id_ + 1, 1))
        assert (await wire.expect(m.Failure)).code == "invalid_request"
        await wire.say(m.Scan(id_ + 2, limit=3, forward=False))
        rows = await wire.expect(m.Rows)
        assert ([key for key, _ in rows.rows], rows.more) == ([b"024", b"023", b"022"], False)

        await wire.say(m.Scan(id_ + 3))
        assert (await wire.expect(m.Rows)).more
        await wire.say(m.Scan(id_ + 4))
        assert (await wire.expect(m.Failure)).code == "snapshot_expired"
        await wire.say(m.ScanClose(id_ + 3), m.ScanClose(id_ + 3))
        await wire.say(m.Ping(1))
        await wire.expect(m.Pong)
        await wire.say(m.Scan(id_ + 5))
        assert (await wire.expect(m.Rows)).more  # and is let go of with the connection


@pytest.mark.slow
@pytest.mark.parametrize("handle", ["platform", "wire"])
async def test_others_have_their_turn_while_a_large_write_is_checked(handle: str) -> None:
    async with conversing() as (platform, wire), trio.open_nursery() as nursery:
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while platform.cursor.sequence == 0:
                turns += 1
                await trio.lowlevel.checkpoint()

        if handle == "wire":
            puts = tuple((b"%d" % number, b"") for number in range(10 * STEP_ENTRIES_MAX))
            await wire.say(m.Write(1, puts, (), {}, None))
            nursery.start_soon(take_turns)
            assert (await wire.expect(m.Written)).sequence == 1
        else:
            nursery.start_soon(take_turns)
            await platform.write(deletes=[b"%d" % n for n in range(10 * STEP_ENTRIES_MAX)])
        assert turns > 10
        batch = await platform.get_batch(1)
        assert batch is not None
        assert len(batch.entries) == 10 * STEP_ENTRIES_MAX


async def test_a_client_may_hold_so_many_snapshots_by_scans_and_subscriptions() -> None:
    limits = Limits(page_rows_max=1, frame_bytes_max=4 * KIB, snapshots_per_connection_max=2)
    async with conversing(limits) as (platform, wire):
        await platform.put_batch([(b"%03d" % n, b"x" * 3_000) for n in range(90)])
        await wire.say(m.Scan(1))
        assert (await wire.expect(m.Rows)).more
        await wire.say(m.Subscribe(2, FromSnapshot()))
        await wire.expect(m.Subscribed)
        await wire.say(m.Scan(3))
        while not isinstance(message := await wire.next_message(), m.Failure):
            pass
        assert (message.id, message.code) == (3, "snapshot_expired")
        async with platform.scan() as mine:  # there is one left for others
            assert (await anext(mine))[0] == b"000"


async def test_a_batch_is_found_whole_or_in_parts() -> None:
    async with conversing(Limits(frame_bytes_max=4 * KIB)) as (platform, wire):
        await platform.write(puts=[(b"a", b"1")], deletes=[b"b"])
        await platform.put_batch([(b"large", b"x" * 10 * KIB)])
        await wire.say(m.GetBatch(1, 1))
        found = await wire.expect(m.Found)
        assert found.batch is not None
        assert [entry.value for entry in found.batch.entries] == [b"1", None]
        await wire.say(m.GetBatch(2, 3))
        assert await wire.next_message() == m.Found(2, None)
        await wire.say(m.GetBatch(3, 2))
        assembly = Assembly(1 << 20)
        whole = None
        while whole is None:
            whole = assembly.add((await wire.expect(m.Part)).body)
        assert len(whole) > 10 * KIB

        await wire.say(m.Prune(4, 2))
        assert await wire.next_message() == m.Pruned(4, 1)
        await wire.say(m.GetBatch(5, 1))
        failure = await wire.expect(m.Failure)
        assert (failure.code, failure.fields) == ("batch_evicted", {"oldest_retained": 2})


async def test_a_subscription_catches_up_and_then_has_a_seat() -> None:
    async with conversing() as (platform, wire):
        await platform.put_batch([(b"a/1", b"1"), (b"b/1", b"1")])
        await wire.say(m.Subscribe(1, selector=Selector(b"a/")))
        assert await wire.next_message() == m.Subscribed(1, Cursor(platform.log_id, 0))
        batches = await wire.expect(m.Batches)
        assert [[e.key for e in b.entries] for b in batches.batches] == [[b"a/1"]]
        assert await wire.next_message() == m.CaughtUp(1, Cursor(platform.log_id, 1))
        await wire.say(m.Ping(1))
        await wire.expect(m.Pong)
        assert platform.sources.interest.seats == 1

        await platform.put_batch([(b"b/2", b"2")])
        await platform.put_batch([(b"a/2", b"2")])
        assert [b.sequence for b in (await wire.expect(m.Batches)).batches] == [3]
        await wire.say(m.Unsubscribe(1))
        assert await wire.next_message() == m.Unsubscribed(1)
        assert platform.sources.interest.seats == 0
        await platform.put_batch([(b"a/3", b"3")])
        await wire.say(m.Unsubscribe(1), m.Ping(2))
        assert await wire.next_message() == m.Pong(2)


@pytest.mark.parametrize(
    ("start", "cursor"),
    [
        (Oldest(), 1),
        (Now(), 4),
        (FromSequence(4), 3),
        (Last(2), 2),
        (Since(0), 1),
        (After(Cursor("", 3)), 3),
    ],
)
async def test_every_start_is_resolved_in_the_reply(start: Start, cursor: int) -> None:
    async with conversing() as (platform, wire):
        for number in range(4):
            await platform.put_batch([(b"k", b"%d" % number)])
        await platform.prune_batch_log(2)
        if isinstance(start, After):
            start = After(replace(start.cursor, log_id=platform.log_id))
        await wire.say(m.Subscribe(1, start))
        assert await wire.next_message() == m.Subscribed(1, Cursor(platform.log_id, cursor))


async def test_a_snapshot_comes_in_frames_and_then_the_batches_after_it() -> None:
    async with conversing(Limits(frame_bytes_max=4 * KIB)) as (platform, wire):
        await platform.put_batch([(b"%03d" % n, b"x" * 1000) for n in range(9)])
        await wire.say(m.Subscribe(1, FromSnapshot()))
        await wire.expect(m.Subscribed)
        assert await wire.next_message() == m.SnapshotBegin(1, 1)
        rows = 0
        while isinstance(message := await wire.next_message(), m.Snapshot):
            assert len(message.rows) <= 4
            rows += len(message.rows)
        assert (message, rows) == (m.SnapshotEnd(1, Cursor(platform.log_id, 1)), 9)
        await wire.expect(m.CaughtUp)


async def test_a_large_batch_is_delivered_in_parts_also_to_a_seat() -> None:
    async with conversing(Limits(frame_bytes_max=4 * KIB)) as (platform, wire):
        large = [(b"k", b"x" * 20 * KIB)]
        await platform.put_batch(large)
        await wire.say(m.Subscribe(1))
        await wire.expect(m.Subscribed)
        for _ in range(2):
            assembly, whole = Assembly(1 << 20), None
            while whole is None:
                message = await wire.next_message()
                if isinstance(message, m.CaughtUp):
                    await platform.put_batch(large)
                    continue
                assert isinstance(message, m.Part), message
                whole = assembly.add(message.body)
            assert len(whole) > 20 * KIB


async def test_a_subscription_that_cannot_begin_says_why() -> None:
    async with conversing() as (platform, wire):
        await wire.say(
            m.Subscribe(1, After(Cursor("0" * 32, 0))),
            m.Subscribe(2, After(Cursor(platform.log_id, 9))),
            m.Subscribe(3, FromSequence(0)),
        )
        failures = [await wire.expect(m.Failure) for _ in range(3)]
        assert {f.id: f.code for f in failures} == {
            1: "log_mismatch",
            2: "cursor_ahead",
            3: "invalid_request",
        }


async def test_more_subscriptions_than_allowed_are_refused() -> None:
    async with conversing(Limits(subscriptions_max=2)) as (_, wire):
        await wire.say(*(m.Subscribe(n, Now()) for n in (1, 2, 3)))
        kinds = [await wire.next_message() for _ in range(5)]
        assert [k.code for k in kinds if isinstance(k, m.Failure)] == ["limit_exceeded"]


async def test_unsubscribing_at_once_still_says_both() -> None:
    async with conversing() as (_, wire):
        await wire.say(m.Subscribe(1), m.Unsubscribe(1))
        await wire.expect(m.Subscribed)
        assert await wire.next_message() == m.Unsubscribed(1)


@pytest.mark.slow
async def test_a_heartbeat_comes_when_it_was_asked_for() -> None:
    async with conversing() as (_, wire):
        await wire.say(m.Subscribe(1, heartbeat=1))
        await wire.expect(m.Subscribed)
        await wire.expect(m.CaughtUp)
        assert await wire.next_message() == m.Heartbeat(1, 0)


async def test_a_goodbye_closes_the_connection() -> None:
    async with conversing() as (_, wire):
        await wire.say(m.Pong(3), m.Goodbye())
        assert await code_at_the_end(wire) == 1000


async def test_what_was_asked_in_the_frame_of_a_goodbye_is_left_and_breaks_nothing() -> None:
    with capture_logs() as logs:
        async with conversing() as (_, wire):
            await wire.say(m.Ping(4), m.Info(1), m.Goodbye())
            assert await code_at_the_end(wire) == 1000
    assert "connection failed" not in [log["event"] for log in logs]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", 4400),
        (b"\xff", 4400),
        (b"\x80", 4400),
        (b"\x81\x81\x65hello", 4400),
        ("text", 1003),
    ],
)
async def test_what_is_no_message_closes_with_a_code(frame: bytes | str, code: int) -> None:
    async with conversing() as (_, wire):
        await wire.socket.send_message(frame)
        assert await code_at_the_end(wire) == code


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ((m.Hello((2,), "new"),), 4426),
        ((m.Hello((1,), "hasty"), m.Hello((1,), "hasty")), 4400),
        ((m.Ping(1),), 4400),
    ],
)
async def test_a_greeting_that_is_none_closes_with_a_code(
    said: tuple[m.Message, ...], code: int
) -> None:
    async with open_platform(":memory:") as platform, serving(platform) as (_, _, number):
        async with connected(number) as wire:
            await wire.socket.send_message(encode(said))
            assert await code_at_the_end(wire) == code


async def test_a_client_that_says_no_hello_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with open_platform(":memory:", hop=in_place) as platform:
        listener = Listener(open_port(platform, Visitors.welcome()))
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.serve_stream, ours, "test")
            raw = Raw(theirs)
            await raw.shake_hands(
                *("GET /v1/ws HTTP/1.1", *HANDSHAKE[1:-1]), f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"
            )
            assert code_of(await raw.rest()) == 4400
    assert 5 <= trio.current_time() <= 9


async def test_a_drain_says_goaway_and_closes_with_1001() -> None:
    async with open_platform(":memory:") as platform:
        async with serving(platform) as (port, _, number), connected(number) as wire:
            await wire.greet()
            await wire.say(m.Subscribe(1, Now()))
            await wire.expect(m.Subscribed)
            await wire.expect(m.CaughtUp)
            port.drain()
            await wire.expect(m.GoAway)
            assert await code_at_the_end(wire) == 1001
            assert platform.sources.interest.seats == 0
