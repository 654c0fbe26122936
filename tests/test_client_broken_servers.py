"""The client against servers that break the protocol: every caller is told, in bounded time."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
import trio
from trio.testing import MockClock

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
