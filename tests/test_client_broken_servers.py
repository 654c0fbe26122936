"""The client against servers that break the protocol: every caller is told, in bounded time."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
import trio
from trio.testing import MockClock

from exo_stream.errors import OutcomeUnknownError, RemoteProtocolError, UnavailableError
from exo_stream.model import Cursor
from exo_stream.protocol import messages as m
from tests.network import Puppet, connected_over, network_of, puppets
from tests.test_client_puppets import CURSOR, playing
from tests.wire_examples import BATCH


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


def without_its_field(id_: int) -> bytes:
    """A failure that does not say what its code promises."""
    return cbor2.dumps([["error", id_, "batch_evicted", "gone", False, {}]])


async def answers(puppet: Puppet) -> None:
    get = await puppet.hear(m.Get)
    await puppet.say(m.Value(get.id, 9, 1, b"v"))


async def test_a_call_whose_error_makes_no_sense_is_made_again(clock: MockClock) -> None:
    async def mumbles(puppet: Puppet) -> None:
        get = await puppet.hear(m.Get)
        await puppet.websocket.send_message(without_its_field(get.id))

    async with network_of(puppets(playing(mumbles), playing(answers))) as network:
        async with connected_over(network) as client:
            with trio.fail_after(60):
                assert await client.get(b"k") == b"v"


async def test_a_feed_whose_error_makes_no_sense_goes_on(clock: MockClock) -> None:
    async def mumbles(puppet: Puppet) -> None:
        subscribe = await puppet.hear(m.Subscribe)
        await puppet.say(m.Subscribed(subscribe.id, CURSOR))
        await puppet.websocket.send_message(without_its_field(subscribe.id))

    async def goes_on(puppet: Puppet) -> None:
        subscribe = await puppet.hear(m.Subscribe)
        await puppet.say(m.Subscribed(subscribe.id, CURSOR), m.Batches(subscribe.id, (BATCH,)))

    async with network_of(puppets(playing(mumbles), playing(goes_on))) as network:
        async with connected_over(network) as client, client.subscribe() as feed:
            with trio.fail_after(60):
                batch: Any = await anext(feed)

    assert batch.cursor == Cursor(CURSOR.log_id, BATCH.sequence)


async def test_a_server_that_breaks_the_protocol_every_time_is_given_up(clock: MockClock) -> None:
    async def answers_and_babbles(puppet: Puppet) -> None:
        subscribe = await puppet.hear(m.Subscribe)
        await puppet.say(m.Subscribed(subscribe.id, CURSOR), m.Snapshot(subscribe.id, ()))

    async with network_of(puppets(playing(answers_and_babbles))) as network:
        async with connected_over(network, attempts_max=4) as client, client.subscribe() as feed:
            with trio.fail_after(600):
                with pytest.raises(UnavailableError, match="a page without a snapshot"):
                    await anext(feed)

        assert len(network.cables) == 4


async def test_one_that_breaks_it_now_and_then_is_not(clock: MockClock) -> None:
    async def answers_and_babbles_later(puppet: Puppet) -> None:
        get = await puppet.hear(m.Get)
        await puppet.say(m.Value(get.id, 9, 1, b"v"))
        await trio.sleep(100)
        await puppet.websocket.send_message(b"nonsense")

    async with network_of(puppets(playing(answers_and_babbles_later))) as network:
        async with connected_over(network, attempts_max=2) as client:
            for _ in range(5):
                assert await client.get(b"k") == b"v"
                await trio.sleep(110)

        assert len(network.cables) == 5


async def test_a_call_that_kills_every_connection_is_told_though_others_are_answered(
    clock: MockClock,
) -> None:
    async def dies_of_a_write(puppet: Puppet) -> None:
        subscribe = await puppet.hear(m.Subscribe)
        await puppet.say(m.Subscribed(subscribe.id, CURSOR))
        await puppet.hear(m.Write)
        await trio.aclose_forcefully(puppet.websocket._stream)

    async with network_of(puppets(playing(dies_of_a_write))) as network:
        async with connected_over(network, attempts_max=4) as client, client.subscribe():
            with trio.fail_after(600):
                with pytest.raises(OutcomeUnknownError, match="connection after connection, 4"):
                    await client.put_batch([(b"k", b"v")])

        assert len(network.cables) <= 5


async def test_values_for_other_keys_than_were_asked_for_are_no_answer(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        asked = await puppet.hear(m.GetMany)
        await puppet.say(m.Values(asked.id, 9, (b"1", b"2", b"3")))

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network) as client:
            with pytest.raises(RemoteProtocolError, match="3 values for 1 keys"):
                await client.get_many([b"k"])
