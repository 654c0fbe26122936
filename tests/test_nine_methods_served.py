"""Our client and a server whose backend has only the nine methods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Producer, open_platform
from exo_stream.client import Client
from exo_stream.errors import OutcomeUnknownError, UnsupportedError
from exo_stream.feed import CaughtUp
from exo_stream.limits import Limits
from exo_stream.model import Batch
from exo_stream.protocol import messages as m
from exo_stream.storage.hop import in_place
from tests.network import Puppet, connected_over, network_of, networked, puppets
from tests.nine_methods import NineMethods
from tests.wire_examples import LOG_ID


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


@asynccontextmanager
async def served() -> AsyncIterator[Client]:
    async with open_platform(engine=NineMethods(), log_id=LOG_ID, hop=in_place) as platform:
        async with networked(platform) as network, connected_over(network) as client:
            yield client


@pytest.mark.parametrize("forward", [True, False])
async def test_a_range_of_more_than_a_page_is_scanned_from_afar(
    clock: MockClock, forward: bool
) -> None:
    limits = Limits(page_rows_max=3)
    engine = NineMethods()
    async with (
        open_platform(engine=engine, log_id=LOG_ID, hop=in_place, limits=limits) as platform,
        networked(platform) as network,
        connected_over(network) as client,
    ):
        pairs = [(b"%02d" % number, b"v") for number in range(20)]
        await client.put_batch(pairs)
        expected = pairs if forward else pairs[::-1]
        assert await client.range_scan(forward=forward) == expected
        assert await client.range_scan(limit=11, forward=forward) == expected[:11]
        assert await client.range_scan(forward=forward) == await platform.range_scan(
            forward=forward
        )
        with pytest.raises(UnsupportedError, match="no snapshots"):
            async with client.scan(forward=forward) as rows:
                assert [pair async for pair in rows]


async def test_everything_that_nine_methods_can_do_is_done_from_afar(clock: MockClock) -> None:
    async with served() as client:
        assert await client.put_batch([(b"a", b"1"), (b"b", b"2")]) == 10
        assert await client.delete_batch([b"a"]) == 20
        assert await client.put_batch([(b"c", b"3")]) == 30
        assert await client.get(b"b", min_sequence=30) == b"2"
        assert await client.get_many([b"a", b"c"]) == [(b"a", None), (b"c", b"3")]
        assert await client.range_scan() == [(b"b", b"2"), (b"c", b"3")]
        batch = await client.get_batch(30)
        assert batch is not None
        assert [entry.key for entry in batch.entries] == [b"c"]
        async with client.subscribe() as feed:
            seen = []
            async for message in feed.messages():
                if isinstance(message, CaughtUp):
                    await client.put_batch([(b"d", b"4")])
                if isinstance(message, Batch):
                    seen.append(message.sequence)
                if seen[-1:] == [40]:
                    break
        assert seen == [10, 20, 30, 40]
        assert await client.prune_batch_log(30) == 2
        assert await client.oldest_retained_batch() == 30


async def test_what_they_cannot_do_is_refused_from_afar_too(clock: MockClock) -> None:
    async with served() as client:
        await client.put_batch([(b"a", b"1")])
        with pytest.raises(UnsupportedError, match="producers"):
            await client.write(puts=[(b"a", b"")], producer=Producer(b"p", 0, 0))
        with pytest.raises(UnsupportedError, match="versions"):
            await client.write(puts=[(b"a", b"")], require={b"a": "present"})
        with pytest.raises(UnsupportedError, match="versions"):
            await client.get_entry(b"a")
        with pytest.raises(UnsupportedError, match="either puts"):
            await client.write(puts=[(b"a", b"")], deletes=[b"b"])
        with pytest.raises(UnsupportedError, match="snapshots"):
            async with client.subscribe(snapshot=True):
                raise AssertionError
        assert await client.current_sequence() == 10


async def test_a_write_whose_connection_is_lost_is_not_made_twice(clock: MockClock) -> None:
    async def play(puppet: Puppet) -> None:
        await puppet.hear(m.Hello)
        await puppet.say(m.Welcome(1, LOG_ID, 9, 1, {"producers": 0}))
        write = await puppet.hear(m.Write)
        assert write.producer is None
        writes.append(write)
        await trio.sleep(1)
        await trio.aclose_forcefully(puppet.websocket._stream)

    writes: list[m.Write] = []
    async with network_of(puppets(play)) as network:
        async with connected_over(network) as client:
            with pytest.raises(OutcomeUnknownError, match="may have taken effect"):
                await client.put_batch([(b"k", b"v")])
            await wait_all_tasks_blocked()

    assert len(writes) == 1
