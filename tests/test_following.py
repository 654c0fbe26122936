"""Subscriptions on a connection: without a socket to write to, too slow, and at their ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
import trio
from trio.testing import MemorySendStream, MockClock, memory_stream_pair, wait_all_tasks_blocked

from exo_stream.limits import KIB, Limits
from exo_stream.model import Cursor
from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.protocol import messages as m
from exo_stream.protocol.codec import encode
from exo_stream.protocol.messages import SUBPROTOCOL
from exo_stream.protocol.origin import Visitors
from exo_stream.protocol.session import Role, Session
from exo_stream.server.listener import Listener
from exo_stream.server.port import Port
from exo_stream.server.serve import open_port
from exo_stream.starts import After, Now
from exo_stream.storage.hop import in_place
from tests.test_websocket import HANDSHAKE, Raw, code_of, frame

K = TypeVar("K", bound=m.Message)


class Client:
    """The client's end, without a socket: what the server sends is read when the test says so."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.session = Session(Role.CLIENT, Limits())
        self.heard: list[m.Message] = []

    async def say(self, *messages: m.Message) -> None:
        await self.raw.send(frame(2, self.session.send(*messages)))

    async def expect(self, kind: type[K]) -> K:
        while not self.heard:
            head = await self.raw.read(2)
            assert head[0] == 0x82, head
            width = {126: 2, 127: 8}.get(head[1], 0)
            size = int.from_bytes(await self.raw.read(width), "big") if width else head[1]
            self.heard += self.session.receive(await self.raw.read(size))
        message = self.heard.pop(0)
        assert isinstance(message, kind), message
        return message


@asynccontextmanager
async def conversing(
    limits: Limits | None = None,
) -> AsyncIterator[tuple[Platform, Port, Client, MemorySendStream]]:
    """A platform under a mock clock, and a client that has been welcomed."""
    async with open_platform(":memory:", hop=in_place, limits=limits) as platform:
        port = open_port(platform, Visitors.welcome())
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Listener(port).serve_stream, ours, "test")
            raw = Raw(theirs)
            await raw.shake_hands(
                *("GET /v1/ws HTTP/1.1", *HANDSHAKE[1:-1]),
                f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
            )
            client = Client(raw)
            await client.say(m.Hello((1,), "in memory"))
            await client.expect(m.Welcome)
            assert isinstance(ours.send_stream, MemorySendStream)
            yield platform, port, client, ours.send_stream
            await theirs.aclose()
        assert port.budget.held == 0
        assert len(platform.sources.interest) == 0


def gated(sending: MemorySendStream) -> trio.Event:
    """Have nothing get through until the event is set."""
    goes_on, deliver = trio.Event(), sending.send_all_hook
    assert deliver is not None

    async def wait() -> None:
        await goes_on.wait()
        await deliver()

    sending.send_all_hook = wait
    return goes_on


async def never() -> None:
    await trio.sleep_forever()


async def test_without_a_socket_everything_is_pulled(autojump_clock: MockClock) -> None:
    async with conversing() as (platform, _, client, _):
        await client.say(m.Subscribe(1, Now()))
        await client.expect(m.Subscribed)
        await client.expect(m.CaughtUp)
        for number in range(3):
            await platform.put_batch([(b"k", b"%d" % number)])
            [batch] = (await client.expect(m.Batches)).batches
            assert batch.sequence == number + 1
        assert platform.sources.interest.seats == 0
        assert (await client.expect(m.Heartbeat)).frontier == 3


async def test_who_does_not_take_a_frame_in_time_is_cut(autojump_clock: MockClock) -> None:
    async with conversing() as (platform, port, client, sending):
        await client.say(m.Subscribe(1, Now()))
        await client.expect(m.Subscribed)
        await client.expect(m.CaughtUp)
        sending.send_all_hook = never
        await platform.put_batch([(b"k", b"v")])
        await wait_all_tasks_blocked()
        [transport] = port.transports
        assert transport.bytes_held > 0
        began = trio.current_time()
        assert await client.raw.rest() != b"never read"
        assert trio.current_time() - began <= 14
        await wait_all_tasks_blocked()
        assert not port.transports


async def test_what_is_being_sent_at_the_end_gets_no_longer_than_a_close(
    autojump_clock: MockClock,
) -> None:
    async with conversing() as (platform, port, client, sending):
        await client.say(m.Subscribe(1, Now()))
        await client.expect(m.Subscribed)
        await client.expect(m.CaughtUp)
        sending.send_all_hook = never
        await platform.put_batch([(b"k", b"v")])
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await client.raw.send(frame(2, b"no message"))
        await client.raw.rest()
        assert trio.current_time() - began <= port.limits.close_seconds_max


async def test_who_falls_behind_is_told_and_catches_up(autojump_clock: MockClock) -> None:
    limits = Limits(tail_batches_max=2)
    async with conversing(limits) as (platform, _, client, sending):
        await _fall_behind(platform, client, sending, "catch_up")
        behind = await client.expect(m.FellBehind)
        assert behind.behind > 2
        found: list[int] = []
        while len(found) < behind.behind:
            found += [b.sequence for b in (await client.expect(m.Batches)).batches]
        assert found == list(range(found[0], 12))
        await client.expect(m.CaughtUp)


async def test_who_falls_behind_is_disconnected_if_it_asked_for_that(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(tail_batches_max=2)
    async with conversing(limits) as (platform, _, client, sending):
        await _fall_behind(platform, client, sending, "disconnect")
        assert code_of(await client.raw.rest()) == 4008


async def _fall_behind(
    platform: Platform, client: Client, sending: MemorySendStream, policy: str
) -> None:
    """Have a subscriber take one batch while ten more are written."""
    await client.say(m.Subscribe(1, Now(), slow=policy))
    await client.expect(m.Subscribed)
    await client.expect(m.CaughtUp)
    goes_on = gated(sending)
    for number in range(11):
        await platform.put_batch([(b"k", b"%d" % number)])
    goes_on.set()
    await client.expect(m.Batches)


async def test_an_eviction_ends_the_subscription_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(tail_batches_max=2, frame_bytes_max=4 * KIB)
    async with conversing(limits) as (platform, _, client, sending):
        await _fall_behind(platform, client, sending, "catch_up")
        behind = await client.expect(m.FellBehind)
        await client.expect(m.Batches)
        await client.expect(m.CaughtUp)
        await platform.prune_batch_log(behind.cursor.sequence + 3)
        after = Cursor(platform.log_id, behind.cursor.sequence)
        await client.say(m.Subscribe(2, After(after)), m.Ping(1))
        await client.expect(m.Pong)
        failure = await client.expect(m.Failure)
        assert (failure.id, failure.code) == (2, "batch_evicted")


async def test_unsubscribing_in_the_middle_of_a_frame_tears_nothing(
    autojump_clock: MockClock,
) -> None:
    async with conversing() as (platform, _, client, sending):
        await client.say(m.Subscribe(1, Now()))
        await client.expect(m.Subscribed)
        await client.expect(m.CaughtUp)
        goes_on = gated(sending)
        await platform.put_batch([(b"k", b"v")])
        await client.say(m.Unsubscribe(1))
        await wait_all_tasks_blocked()
        goes_on.set()
        await client.expect(m.Batches)
        await client.expect(m.Unsubscribed)
        await client.say(m.Ping(1))
        await client.expect(m.Pong)


async def test_a_drain_waits_for_requests_in_hand_but_not_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with conversing() as (platform, port, client, _):
        await client.say(m.Get(1, b"k", min_sequence=1), m.Get(2, b"k", min_sequence=9))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        port.drain()
        await client.expect(m.GoAway)
        await platform.put_batch([(b"k", b"v")])
        assert (await client.expect(m.Value)).value == b"v"
        assert code_of(await client.raw.rest()) == 1001
        assert trio.current_time() - began <= port.limits.drain_seconds_max


async def test_requests_beyond_what_may_be_in_hand_are_not_read(
    autojump_clock: MockClock,
) -> None:
    async with conversing() as (platform, _, client, _):
        for number in range(1, 80):
            await client.say(m.Get(number, b"k", min_sequence=1))
        await wait_all_tasks_blocked()
        await platform.put_batch([(b"k", b"v")])
        answered = {(await client.expect(m.Value)).id for _ in range(79)}
        assert answered == set(range(1, 80))


async def test_a_get_does_not_wait_longer_than_a_query_may_take(
    autojump_clock: MockClock,
) -> None:
    async with conversing() as (_, _, client, _):
        await client.say(m.Get(1, b"k", min_sequence=1))
        assert (await client.expect(m.Failure)).code == "not_visible_yet"
        assert trio.current_time() == pytest.approx(30, abs=1)


async def test_a_large_answer_waits_for_memory_that_another_holds(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(in_flight_bytes_max=200 * KIB)
    async with conversing(limits) as (platform, port, client, _):
        await platform.put_batch([(b"k", b"x" * 100 * KIB)])
        with port.budget.open_share() as share:
            share.take(150 * KIB)
            await client.say(m.Get(1, b"k"))
            await trio.sleep(5)
            assert client.heard == []
        assert (await client.expect(m.Value)).value == b"x" * 100 * KIB


def test_the_tests_speak_as_a_client_does() -> None:
    assert frame(2, encode([m.Ping(1)])).endswith(encode([m.Ping(1)]))
