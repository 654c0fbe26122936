"""The test kit: it stands for threads, disks, clocks and sockets, and behaves as they do."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from exo_stream import open_platform
from exo_stream.errors import ConflictError, StoreError
from exo_stream.testing import MORNING, FakeClock, FaultyHop, connected, in_place


async def test_a_client_and_a_platform_are_connected_without_a_socket() -> None:
    async with open_platform(":memory:", hop=in_place, clock=FakeClock()) as platform:
        async with connected(platform) as client:
            assert await client.put_batch([(b"k", b"v")]) == 1
            assert await platform.get(b"k") == b"v"
            with pytest.raises(ConflictError):
                await client.write(deletes=[b"k"], require={b"k": "absent"})
            async with client.subscribe() as feed:
                assert (await anext(feed)).sequence == 1


async def test_an_error_beside_the_connection_leaves_as_itself() -> None:
    async with open_platform(":memory:", hop=in_place) as platform:
        with pytest.raises(KeyError):
            async with connected(platform):
                raise KeyError


def test_a_clock_stands_still_until_it_is_moved_in_either_direction() -> None:
    clock = FakeClock()
    assert clock() == clock() == MORNING
    clock.advance(1.5)
    assert clock() == MORNING + 1_500_000
    clock.advance(-2)
    assert clock() == MORNING - 500_000


async def test_a_hop_takes_its_time_and_refuses_so_many_transactions(
    autojump_clock: MockClock,
) -> None:
    hop = FaultyHop(failures=2, latency=0.25)
    async with open_platform(":memory:", hop=hop) as platform:
        began = trio.current_time()
        for _ in range(2):
            with pytest.raises(StoreError):
                await platform.put_batch([(b"k", b"v")])
        assert await platform.put_batch([(b"k", b"v")]) == 1
        assert trio.current_time() - began == pytest.approx(0.75)
        assert (hop.failures, hop.commits) == (0, 1)
