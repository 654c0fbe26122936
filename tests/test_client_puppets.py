"""The client against servers that say what is seldom said."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.client import Client, connect
from exo_stream.errors import OverloadedError, UnavailableError
from exo_stream.feed import CaughtUp, FellBehind, Heartbeat, Progress
from exo_stream.limits import Limits
from exo_stream.model import Cursor
from exo_stream.protocol import messages as m
from exo_stream.protocol.failures import ServerError
from exo_stream.starts import After
from tests.network import URL, Puppet, connected_over, network_of, puppets
from tests.wire_examples import BATCH, LOG_ID

CURSOR = Cursor(LOG_ID, 6)
BATCH_CURSOR = Cursor(LOG_ID, BATCH.sequence)


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


def playing(play: Any) -> Any:
    """A puppet that welcomes first and keeps the connection open at the end."""

    async def whole(puppet: Puppet) -> None:
        await puppet.greet()
        await play(puppet)
        await trio.sleep_forever()

    return whole


async def asked(client: Client, call: Any, results: list[Any]) -> None:
    results.append(await call(client))


async def test_an_answer_that_the_server_is_closing_is_none_and_the_call_is_made_again(
    clock: MockClock,
) -> None:
    async def stops(puppet: Puppet) -> None:
        write = await puppet.hear(m.Write)
        numbers.append(write.producer)
        await puppet.say(m.Failure(write.id, "platform_closed", "it stopped", True))

    async def goes_on(puppet: Puppet) -> None:
        write = await puppet.hear(m.Write)
        numbers.append(write.producer)
        await puppet.say(m.Written(write.id, 10))

    numbers: list[Any] = []
    async with network_of(puppets(playing(stops), playing(goes_on))) as network:
        async with connected_over(network) as client:
            assert await client.put_batch([(b"k", b"v")]) == 10

    assert numbers[0] == numbers[1]
    assert len(numbers[0].id) == 16


async def test_an_error_of_a_newer_server_keeps_its_code(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        get = await puppet.hear(m.Get)
        await puppet.say(m.Failure(get.id, "quota_exceeded", "no more today", True))

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network) as client:
            with pytest.raises(ServerError, match="no more today") as caught:
                await client.get(b"k")

    assert caught.value.code == "quota_exceeded"


async def test_a_close_that_says_stop_is_not_tried_again(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        await puppet.hear(m.Get)
        await puppet.websocket.aclose(4400, "against the protocol")

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network) as client:
            with pytest.raises(UnavailableError, match="4400"):
                await client.get(b"k")

        assert len(network.cables) == 1


async def test_a_request_that_kills_every_connection_is_not_tried_for_ever(
    clock: MockClock,
) -> None:
    async def play(puppet: Puppet) -> None:
        await puppet.hear(m.Get)
        await trio.aclose_forcefully(puppet.websocket._stream)

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network, attempts_max=4) as client:
            with pytest.raises(UnavailableError):
                await client.get(b"k")

        assert len(network.cables) == 4


async def test_a_server_that_says_nothing_any_more_is_left(clock: MockClock) -> None:
    async def falls_silent(puppet: Puppet) -> None:
        await puppet.hear(m.Get)
        pinged.append(await puppet.hear(m.Ping))

    async def answers(puppet: Puppet) -> None:
        get = await puppet.hear(m.Get)
        await puppet.say(m.Value(get.id, 9, 1, b"v"))

    pinged: list[m.Ping] = []
    async with network_of(puppets(playing(falls_silent), playing(answers))) as network:
        async with connected_over(network) as client:
            with trio.fail_after(120):
                assert await client.get(b"k") == b"v"

    assert pinged


async def test_a_server_that_answers_pings_is_kept_and_gets_answers_to_its_own(
    clock: MockClock,
) -> None:
    async def play(puppet: Puppet) -> None:
        for _ in range(3):
            ping = await puppet.hear(m.Ping)
            await puppet.say(m.Pong(ping.nonce), m.Ping(7))
            assert (await puppet.hear(m.Pong)).nonce == 7
        get = await puppet.hear(m.Get)
        await puppet.say(m.Value(get.id, 9, 1, b"v"))

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network) as client:
            await trio.sleep(120)
            assert await client.get(b"k") == b"v"

        assert len(network.cables) == 1


class Stuck(trio.abc.Stream):
    """A stream that nothing gets through any more, once it is told so."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.is_stuck = False
        self._stream = stream

    async def send_all(self, data: Any) -> None:
        if self.is_stuck:
            await trio.sleep_forever()
        await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> Any:
        return await self._stream.receive_some(max_bytes)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_server_that_takes_nothing_is_left(clock: MockClock) -> None:
    async def answers(puppet: Puppet) -> None:
        get = await puppet.hear(m.Get)
        await puppet.say(m.Value(get.id, 9, 1, b"v"))

    async with network_of(puppets(playing(answers))) as network:
        stuck: list[Stuck] = []

        async def dial(address: Any) -> trio.abc.Stream:
            stuck.append(Stuck(await network.dial(address)))
            return stuck[-1]

        async with connect(URL, dial=dial) as client:
            stuck[0].is_stuck = True
            with trio.fail_after(60):
                assert await client.get(b"k") == b"v"
            began = trio.current_time()
            stuck[1].is_stuck = True

        assert len(stuck) == 2
        assert trio.current_time() - began <= Limits().close_seconds_max, "nor is it waited for"


async def test_after_goaway_requests_wait_for_the_next_server_and_answers_still_come(
    clock: MockClock,
) -> None:
    async def leaves(puppet: Puppet) -> None:
        first = await puppet.hear(m.Get)
        await puppet.say(m.GoAway(5, "the server stops"))
        await trio.sleep(1)
        await puppet.say(m.Value(first.id, 9, 1, b"first"))
        await puppet.hear(m.Get)
        raise AssertionError("asked after goaway")

    async def follows(puppet: Puppet) -> None:
        get = await puppet.hear(m.Get)
        assert get.key == b"second"
        await puppet.say(m.Value(get.id, 9, 1, b"second"))

    async with network_of(puppets(playing(leaves), playing(follows))) as network:
        async with connected_over(network) as client, trio.open_nursery() as nursery:
            results: list[Any] = []
            nursery.start_soon(asked, client, lambda c: c.get(b"first"), results)
            await trio.sleep(0.5)
            with trio.fail_after(60):
                assert await client.get(b"second") == b"second"
            assert results == [b"first"]


async def test_a_feed_hands_over_everything_a_server_may_say(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        subscribe = await puppet.hear(m.Subscribe)
        assert (subscribe.slow, subscribe.heartbeat) == ("disconnect", 3)
        id_ = subscribe.id
        await puppet.say(m.Subscribed(id_, CURSOR))
        await puppet.say(
            m.Batches(id_, (BATCH,)),
            m.CaughtUp(id_, BATCH_CURSOR),
            m.FellBehind(id_, BATCH_CURSOR, 3),
            m.Progress(id_, BATCH_CURSOR),
            m.Heartbeat(id_, 9),
            m.Failure(id_, "overloaded", "later", True),
        )

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network) as client:
            async with client.subscribe(slow="disconnect", heartbeat_seconds=3) as feed:
                assert feed.cursor == CURSOR
                batch = await feed.__anext__()
                assert feed.cursor == CURSOR
                assert batch.entries == BATCH.entries
                messages = feed.messages()
                assert await messages.__anext__() == CaughtUp(BATCH_CURSOR)
                assert feed.cursor == BATCH_CURSOR
                assert await messages.__anext__() == FellBehind(BATCH_CURSOR, 3)
                assert await messages.__anext__() == Progress(BATCH_CURSOR)
                assert await messages.__anext__() == Heartbeat(9)
                for _ in range(2):
                    with pytest.raises(OverloadedError, match="later"):
                        await messages.__anext__()


async def test_a_feed_that_is_refused_says_so_on_entering(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        subscribe = await puppet.hear(m.Subscribe)
        await puppet.say(m.Failure(subscribe.id, "overloaded", "later", True))

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network) as client:
            with pytest.raises(OverloadedError):
                async with client.subscribe():
                    raise AssertionError


async def test_a_feed_that_hears_nonsense_begins_again_elsewhere(clock: MockClock) -> None:
    async def repeats_itself(puppet: Puppet) -> None:
        subscribe = await puppet.hear(m.Subscribe)
        await puppet.say(m.Subscribed(subscribe.id, CURSOR))
        await puppet.say(m.Batches(subscribe.id, (BATCH,)))
        await puppet.say(m.Batches(subscribe.id, (BATCH,)))

    async def goes_on(puppet: Puppet) -> None:
        subscribe = await puppet.hear(m.Subscribe)
        assert subscribe.start == After(Cursor(LOG_ID, 7))
        await puppet.say(m.Subscribed(subscribe.id, Cursor(LOG_ID, 7)))
        await puppet.say(m.Batches(subscribe.id, (BATCH._replace(sequence=8),)))

    async with network_of(puppets(playing(repeats_itself), playing(goes_on))) as network:
        async with connected_over(network) as client, client.subscribe() as feed:
            seen = [await feed.__anext__(), await feed.__anext__()]

    assert [batch.sequence for batch in seen] == [7, 8]


async def test_late_deliveries_of_a_feed_that_was_left_are_dropped(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        subscribe = await puppet.hear(m.Subscribe)
        await puppet.say(m.Subscribed(subscribe.id, CURSOR))
        end = await puppet.hear(m.Unsubscribe)
        await puppet.say(m.Batches(end.id, (BATCH,)), m.Unsubscribed(end.id))
        get = await puppet.hear(m.Get)
        await puppet.say(m.Value(get.id, 9, 1, b"v"))

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network) as client:
            async with client.subscribe():
                pass
            assert await client.get(b"k") == b"v"


async def test_an_abandoned_scan_is_closed_when_its_answer_comes(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        scan = await puppet.hear(m.Scan)
        await trio.sleep(1)
        await puppet.say(m.Rows(scan.id, 9, ((b"a", b"1"),), more=True))
        closed.append((await puppet.hear(m.ScanClose)).scan == scan.id)

    closed: list[bool] = []
    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network) as client:
            with trio.move_on_after(0.5):
                async with client.scan():
                    raise AssertionError
            await trio.sleep(2)

    assert closed == [True]


async def test_parts_that_hold_more_than_one_batch_break_the_protocol(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        get = await puppet.hear(m.GetBatch)
        await puppet.say(m.Part(get.id, m.PartBody(1, 0, b"\x80")))

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network, attempts_max=1) as client:
            with pytest.raises(UnavailableError, match="not one batch"):
                await client.get_batch(1)


async def test_requests_in_flight_keep_to_the_limits_of_the_welcome(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        await puppet.hear(m.Hello)
        await puppet.say(m.Welcome(1, LOG_ID, 9, 1, {"requests_max": 3}))
        for _ in range(4):
            gets = [await puppet.hear(m.Get) for _ in range(3)]
            await wait_all_tasks_blocked()
            assert len(puppet.session.requests) == 3
            await puppet.say(*[m.Value(get.id, 9, 1, get.key) for get in gets])
        await trio.sleep_forever()

    async with network_of(puppets(play)) as network:
        async with connected_over(network) as client, trio.open_nursery() as nursery:
            results: list[Any] = []
            for number in range(12):
                nursery.start_soon(asked, client, lambda c, n=number: c.get(b"%d" % n), results)

    assert len(results) == 12


async def test_writes_in_flight_are_never_more_than_the_server_remembers(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        first = await puppet.hear(m.Write)
        others = [await puppet.hear(m.Write) for _ in range(255)]
        await wait_all_tasks_blocked()
        assert len(puppet.session.requests) == 256
        await puppet.say(*[m.Written(write.id, write.producer.seq + 10) for write in others])
        await wait_all_tasks_blocked()
        assert len(puppet.session.requests) == 1
        await puppet.say(m.Written(first.id, 9))
        last = [await puppet.hear(m.Write) for _ in range(44)]
        await puppet.say(*[m.Written(write.id, write.producer.seq + 10) for write in last])

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network) as client, trio.open_nursery() as nursery:
            results: list[Any] = []
            for _ in range(300):
                nursery.start_soon(asked, client, lambda c: c.put_batch([(b"k", b"v")]), results)

    assert len(results) == 300
