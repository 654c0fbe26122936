"""What a client puts into one frame: never more than the server takes."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.client.connection import NOTES_HELD_MAX
from exo_stream.errors import LimitExceededError, UnavailableError
from exo_stream.limits import KIB, Limits
from exo_stream.opening import open_platform
from exo_stream.producers import Producer
from exo_stream.protocol import messages as m
from exo_stream.storage.hop import in_place
from exo_stream.writes import Requirement
from tests.network import Puppet, connected_over, network_of, networked, puppets
from tests.test_client_puppets import playing


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


async def test_the_largest_write_that_is_let_through_arrives_and_one_larger_is_refused(
    clock: MockClock,
) -> None:
    limits = Limits(message_bytes_max=64 * KIB)
    async with open_platform(":memory:", limits=limits, hop=in_place) as platform:
        async with networked(platform) as network, connected_over(network) as client:
            refused = 0
            for size in range(64 * KIB - 2048, 64 * KIB, 64):
                producer = Producer(b"p" * 64, 1 << 40, 1 << 40 | size)
                try:
                    await client.write(puts=[(b"k" * 254, b"v" * size)], producer=producer)
                except LimitExceededError:
                    refused += 1
            for count in range(200, 300, 4):
                require: dict[bytes, Requirement] = {
                    b"%0250d" % number: "absent" for number in range(count)
                }
                try:
                    await client.write(puts=[(b"k", b"v")], require=require)
                except LimitExceededError:
                    refused += 1
            assert 0 < refused < 57
            assert len(network.cables) == 1


async def test_what_travels_together_keeps_to_the_limit_of_the_welcome(clock: MockClock) -> None:
    limits = Limits(message_bytes_max=16 * KIB)
    async with open_platform(":memory:", limits=limits, hop=in_place) as platform:
        async with networked(platform) as network, connected_over(network) as client:
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(client.put_batch, [(b"%d" % number, bytes(2000))])
            assert await client.current_sequence() == 100
            assert len(network.cables) == 1


async def test_more_notes_than_a_frame_holds_travel_in_several(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        get = await puppet.hear(m.Get)
        for _ in range(3):
            await puppet.say(*[m.Ping(nonce) for nonce in range(2_000)])
        for _ in range(3):
            for nonce in range(2_000):
                assert (await puppet.hear(m.Pong)).nonce == nonce
        await puppet.say(m.Value(get.id, 9, 1, b"v"))

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network) as client:
            assert await client.get(b"k") == b"v"

        assert len(network.cables) == 1


async def test_a_server_that_pings_and_does_not_listen_is_left(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        await puppet.hear(m.Get)
        await trio.sleep(1)
        await puppet.say(m.Ping(1))

    async with network_of(puppets(playing(play))) as network:
        async with connected_over(network, attempts_max=1) as client:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def unheard() -> None:
                    with pytest.raises(UnavailableError, match="pings"):
                        await client.get(b"k")

                await wait_all_tasks_blocked()
                connection = client._link.connection
                assert connection is not None
                connection.notes += [m.Pong(0)] * NOTES_HELD_MAX
