"""Streams over HTTP while writes cannot be had, or many want the same: all or nothing, and said."""

from __future__ import annotations

import pytest
import trio

from exo_stream.limits import Limits
from exo_stream.streams.values import StreamProducer
from tests.stream_http import JSON, TEXT, Caller, offset, open_world


async def test_a_pause_refuses_writes_and_lets_readers_read_and_wait() -> None:
    """Also those of a stream whose time to live would have to be written."""
    async with open_world() as world:
        await world.ask("PUT", "a", b"x", {**TEXT, "stream-ttl": "3600"})
        reader = await world.call()
        await reader.events("a?offset=-1&live=sse")
        assert [(await told(reader)), (await told(reader))] == ["data", "control"]
        await world.platform.pause_ingestion()
        for method, target in [("POST", "a"), ("PUT", "b"), ("DELETE", "a")]:
            refused = await world.ask(method, target, b"y" * (method == "POST"), TEXT)
            assert (refused.status, refused.code) == (503, "UNAVAILABLE")
            assert refused.headers["retry-after"] == "1"
        assert (await world.ask("GET", "a")).body == b"x"
        assert (await world.ask("GET", "a?offset=now&live=long-poll")).status == 204
        world.platform.resume_ingestion()
        assert (await world.ask("POST", "a", b"y", TEXT)).next == offset(2)
        assert await told(reader) == "data"


async def told(reader: Caller) -> str:
    event = await reader.event()
    assert event is not None
    return event.kind


async def test_without_space_appends_are_refused_and_what_frees_is_not() -> None:
    async with open_world(limits=Limits(memory_bytes_max=20_000)) as world:
        await world.ask("PUT", "a", b"x" * 20_000, TEXT)
        numbers = {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
        refused = await world.ask("POST", "a", b"y", {**TEXT, **numbers})
        assert (refused.status, refused.code) == (507, "INSUFFICIENT_STORAGE")
        assert len((await world.ask("GET", "a")).body) == 20_000
        assert (await world.ask("DELETE", "a")).status == 204
        assert (await world.ask("GET", "a")).status == 404


async def test_of_racing_retries_of_a_producer_each_number_lands_once() -> None:
    """Several connections send the same numbers, as fast as they can, and all agree."""
    async with open_world() as world:
        await world.ask("PUT", "a", headers=TEXT)
        statuses: list[int] = []

        async def produce() -> None:
            async with await world.call() as caller:
                for seq in range(20):
                    headers = {
                        **TEXT,
                        "producer-id": "p",
                        "producer-epoch": "0",
                        "producer-seq": str(seq),
                    }
                    answer = await caller.ask("POST", "a", b"%02d," % seq, headers)
                    statuses.append(answer.status)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(produce)
        assert (statuses.count(200), statuses.count(204)) == (20, 60)
        body = (await world.ask("GET", "a")).body
        assert body == b"".join(b"%02d," % seq for seq in range(20))


async def test_of_appends_with_one_seq_at_once_one_lands() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", headers=TEXT)
        statuses: list[int] = []

        async def append() -> None:
            answer = await world.ask("POST", "a", b"x", {**TEXT, "stream-seq": "7"})
            statuses.append(answer.status)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(append)
        assert sorted(statuses) == [204, 409, 409, 409, 409]


@pytest.mark.parametrize(
    "value",
    [b'"\\ud800"', b"1e999999", b"9" * 5_000, b'{"a":1,"a":2}', b"-0.0", b'"\xf4\x8f\xbf\xbf"'],
)
async def test_json_that_no_program_can_hold_comes_back_as_it_was(value: bytes) -> None:
    """It is JSON by its grammar; what it means is between those who write and who read."""
    async with open_world() as world:
        await world.ask("PUT", "a", headers=JSON)
        assert (await world.ask("POST", "a", b"[1, " + value + b"]", JSON)).status == 204
        assert (await world.ask("GET", "a")).body == b"[1," + value + b"]"


@pytest.mark.slow
async def test_a_fork_of_a_hundred_is_freed_from_either_end() -> None:
    async with open_world() as world:
        await world.ask("PUT", "0", b"0,", TEXT)
        for depth in range(1, 101):
            fork = {**TEXT, "stream-forked-from": f"/v1/stream/{depth - 1}"}
            assert (await world.ask("PUT", str(depth), b"%d," % depth, fork)).status == 201
        for depth in range(100):
            assert (await world.ask("DELETE", str(depth))).status == 204
        assert (await world.ask("GET", "50")).code == "GONE"
        whole = (await world.ask("GET", "100")).body
        assert whole == b"".join(b"%d," % depth for depth in range(101))
        again = {**TEXT, "stream-forked-from": "/v1/stream/99"}
        assert (await world.ask("PUT", "100", b"100,", again)).status == 200
        assert (await world.ask("DELETE", "100")).status == 204
        while (await world.ask("GET", "0")).status != 404:  # noqa: ASYNC110  upkeep tells nobody
            await trio.lowlevel.checkpoint()
        producer = StreamProducer("p", 0, 0)
        await world.platform.streams.create_stream("0")
        await world.platform.streams.append_with_producer("0", [b"new"], None, producer)
        assert (await world.ask("GET", "0")).body == b"new"
