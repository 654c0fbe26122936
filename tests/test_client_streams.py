"""A client's streams when connections are lost, frames are small, and servers say odd things."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from exo_stream.client import Client
from exo_stream.errors import (
    InvalidRequestError,
    LimitExceededError,
    OutcomeUnknownError,
)
from exo_stream.limits import Limits
from exo_stream.protocol import stream_messages as s
from exo_stream.stream_errors import EmptyAppendError
from exo_stream.streams.offset import Offset
from exo_stream.streams.values import (
    AppendResult,
    ProducerAppendResult,
    StreamConfig,
    StreamProducer,
)
from exo_stream.testing import connected
from tests.network import Network, connected_over, networked, the_server_is_blamed
from tests.worlds import GatedHop, in_memory

TEXT = StreamConfig("text/plain")
SETUP = s.StreamSetup("text/plain")


async def ask_and_lose(hop: GatedHop, network: Network, ask: Callable[[], Awaitable[Any]]) -> Any:
    """What comes of a request whose connection is lost between its COMMIT and its answer."""
    hop.gate, hop.arrived = trio.Event(), trio.Event()
    told: list[Any] = []

    async def tell() -> None:
        try:
            told.append(await ask())
        except OutcomeUnknownError as error:
            told.append(type(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        await hop.arrived.wait()
        await network.cut()
        await trio.testing.wait_all_tasks_blocked()
        hop.gate.set()
    return told[0]


async def test_what_may_be_sent_again_is_and_the_rest_is_unknown(
    autojump_clock: MockClock,
) -> None:
    hop = GatedHop()
    hop.gate.set()
    async with in_memory()(hop=hop) as platform, networked(platform) as network:
        async with connected_over(network) as client:
            streams = client.streams
            await streams.create_stream("s", TEXT)
            producer = StreamProducer("p", 0, 0)

            lost = await ask_and_lose(hop, network, lambda: streams.append("s", b"x"))
            assert lost is OutcomeUnknownError
            again = await ask_and_lose(
                hop,
                network,
                lambda: streams.append_with_producer("s", [b"y"], None, producer),
            )
            assert again == ProducerAppendResult(True, 0, 0, Offset.at(2), closed=False)
            made = await ask_and_lose(
                hop, network, lambda: streams.create_stream_with_data("t", TEXT, [b"z"])
            )
            assert (made.created, made.next_offset) == (False, Offset.at(1))
            closed = await ask_and_lose(hop, network, lambda: streams.close_stream("s"))
            assert closed == AppendResult(Offset.at(2), Offset.at(2), closed=True)
            gone = await ask_and_lose(hop, network, lambda: streams.delete("t"))
            assert gone is OutcomeUnknownError
            assert (await streams.read("s")).body == b"xy"
            assert not await streams.exists("t")


async def test_a_feed_goes_on_over_lost_connections(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            await platform.streams.create_stream("s", TEXT)
            found: list[bytes] = []
            async with trio.open_nursery() as nursery:

                async def follow() -> None:
                    async with client.streams.subscribe("s") as feed:
                        async for page in feed:
                            found.append(page.body)

                nursery.start_soon(follow)
                for data in (b"one", b"two", b"three"):
                    await trio.sleep(30)
                    await network.cut()
                    await platform.streams.append("s", data)
                await trio.sleep(30)
                await platform.put_batch([(b"k", b"v")])
                await network.cut()
                await platform.prune_batch_log(await platform.current_sequence() + 1)
                await platform.streams.append("s", b"end", close=True)
            assert b"".join(found) == b"onetwothreeend"


async def test_a_page_is_a_frame_and_a_larger_value_comes_alone(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(frame_bytes_max=4_096, message_bytes_max=20_000)
    async with in_memory()(limits=limits) as platform, connected(platform) as client:
        await client.streams.create_stream("s", StreamConfig("application/json"))
        values = [b'"%s"' % (b"x" * 1_000)] * 10
        await client.streams.batch_append("s", values)
        await client.streams.append("s", b'"%s"' % (b"y" * 9_000))
        sizes, offset = [], Offset.start()
        while True:
            page = await client.streams.read("s", offset)
            sizes.append(len(page.messages))
            offset = page.next_offset
            if page.up_to_date:
                break
        assert sizes == [4, 4, 2, 1]
        await platform.streams.append("s", b'"%s"' % (b"z" * 30_000))
        with pytest.raises(LimitExceededError):
            await client.streams.read("s", offset)
        heads = []
        after: str | None = ""
        for number in range(5):
            await client.streams.create_stream(f"t{number}")
        while after is not None:
            listed = await client.streams.list_streams("t", after=after)
            heads += [head.name for head in listed.streams]
            after = listed.resume
        assert heads == [f"t{number}" for number in range(5)]


async def test_what_cannot_be_is_refused_before_it_is_sent(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, connected(platform) as client:
        streams = client.streams
        producer = StreamProducer("p", 0, 0)
        for ask, error in (
            (streams.batch_append("s", []), EmptyAppendError),
            (streams.append_with_producer("s", [], None, producer), EmptyAppendError),
            (streams.read("s", bytes_max=0), InvalidRequestError),
            (streams.list_streams(limit=0), InvalidRequestError),
        ):
            with pytest.raises(error):
                await ask
        await streams.create_stream_with_data("s", TEXT, [b"x"])
        page = await streams.read("s", bytes_max=1 << 80)
        assert page.body == b"x"
        with pytest.raises(InvalidRequestError):
            await streams.create_fork("f", "s", offset="-1", sub_offset=1 << 80)


@pytest.mark.parametrize(
    ("ask", "request_kind", "reply"),
    [
        (
            lambda c: c.streams.append("s", b"x"),
            s.AppendStream,
            lambda id_: s.StreamAppended(id_, None, "-1", closed=False),
        ),
        (
            lambda c: c.streams.append_with_producer("s", [b"x"], None, StreamProducer("p", 0, 0)),
            s.AppendStream,
            lambda id_: s.StreamAppended(id_, "-1", "-1", closed=False),
        ),
        (
            lambda c: c.streams.create_stream("s"),
            s.CreateStream,
            lambda id_: s.StreamCreated(id_, True, "nonsense", False, SETUP, 1),
        ),
    ],
    ids=["append", "producer", "create"],
)
async def test_an_answer_that_says_too_little_is_the_server_s_fault(
    autojump_clock: MockClock,
    ask: Callable[[Client], Awaitable[Any]],
    request_kind: type[Any],
    reply: Callable[[int], Any],
) -> None:
    await the_server_is_blamed(ask, request_kind, reply)
