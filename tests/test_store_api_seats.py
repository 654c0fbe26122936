"""Live seats of the store's own API: who has caught up is written to by the fan-out, on sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio

from exo_stream import Limits, Platform, open_platform
from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.failure import CallError, Code
from exo_stream.protocol.connect.generated import stream_pb2 as stream
from exo_stream.server.serve import serve
from exo_stream.server.store_api.seating import SEAT_BYTES_MAX, seat_encoder
from exo_stream.server.store_api.stream import frame_of
from tests.connect_caller import Caller, Dial, Frames, over_tcp
from tests.store_calls import SUBSCRIBE

MANNERS = [(codec, encoding) for codec in Codec for encoding in ("", "gzip", "zstd")]
LETTERS = stream.SubscribeRequest(match_keys=[{"payload_regex": "^[a-z]"}])


@asynccontextmanager
async def listening(limits: Limits | None = None) -> AsyncIterator[tuple[Platform, Dial]]:
    async with (
        open_platform(":memory:", limits=limits) as platform,
        trio.open_nursery() as nursery,
    ):
        host, port = await nursery.start(partial(serve, platform, port=0))
        yield platform, over_tcp(f"http://{host}:{port}/")
        nursery.cancel_scope.cancel()


async def seated(platform: Platform, count: int) -> None:
    """Wait until so many have a seat: they take it when nothing is left to be read."""
    with trio.fail_after(10):
        while platform.sources.interest.seats != count:  # noqa: ASYNC110 - nobody tells
            await trio.lowlevel.checkpoint()


async def taken(frames: Frames) -> tuple[int, list[bytes]]:
    with trio.fail_after(10):
        frame = await frames.next(stream.SubscribeResponse)
    assert frame is not None
    return frame.sequence_number, [entry.key for entry in frame.entries]


async def test_those_who_have_caught_up_are_written_to_in_every_manner() -> None:
    async with listening() as (platform, dial), AsyncExitStack() as streams:
        feeds = [
            await streams.enter_async_context(
                Caller(dial, codec, encoding=encoding).stream(SUBSCRIBE, LETTERS)
            )
            for codec, encoding in MANNERS
        ]
        await seated(platform, len(MANNERS))
        await platform.put_batch([(b"1", b"no"), (b"a", b"yes" * 1000), (b"b", b"")])
        await platform.delete_batch([b"a"])
        await platform.put_batch([(b"c", b"")])
        for frames in feeds:
            assert await taken(frames) == (1, [b"a", b"b"])
            assert await taken(frames) == (3, [b"c"])
        assert platform.sources.interest.seats == len(MANNERS)


async def test_a_large_batch_costs_the_seat_and_is_delivered_all_the_same() -> None:
    async with listening() as (platform, dial):
        async with Caller(dial).stream(SUBSCRIBE, LETTERS) as frames:
            await seated(platform, 1)
            await platform.put_batch([(b"a", bytes(SEAT_BYTES_MAX))])
            assert await taken(frames) == (1, [b"a"])
            await seated(platform, 1)
            await platform.put_batch([(b"b", b"")])
            assert await taken(frames) == (2, [b"b"])


@pytest.mark.slow  # it waits for a deadline
async def test_a_seat_is_given_up_with_its_stream() -> None:
    async with listening() as (platform, dial):
        async with Caller(dial).stream(SUBSCRIBE, LETTERS, {"connect-timeout-ms": "300"}) as frames:
            await seated(platform, 1)
            with pytest.raises(CallError) as caught:
                await taken(frames)
            assert caught.value.code is Code.DEADLINE_EXCEEDED
        async with Caller(dial).stream(SUBSCRIBE, LETTERS):
            await seated(platform, 1)
        await seated(platform, 0)


@pytest.mark.slow  # a second in which nothing matches
async def test_who_has_a_seat_learns_how_far_the_log_has_come() -> None:
    async with listening(Limits(progress_seconds=1)) as (platform, dial):
        told = {"x-exo-stream-progress": "1"}
        async with Caller(dial).stream(SUBSCRIBE, LETTERS, told) as frames:
            assert await taken(frames) == (0, [])  # caught up
            await seated(platform, 1)
            await platform.put_batch([(b"1", b"no")])
            assert await taken(frames) == (1, [])
            await platform.put_batch([(b"a", b"")])
            assert await taken(frames) == (2, [b"a"])


def test_all_who_are_answered_alike_share_one_encoder() -> None:
    first = seat_encoder(frame_of, Codec.PROTO, "gzip")
    assert seat_encoder(frame_of, Codec.PROTO, "gzip") is first
    assert seat_encoder(frame_of, Codec.JSON, "gzip") is not first
