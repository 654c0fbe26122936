"""A child that appends to streams, and makes, forks, closes and deletes others, until it is killed.

``python -m tests.torture.streamer PATH NEXT… CYCLE``: each producer begins with its next number,
which it may have sent before, and the makers with their next cycle. What it is about to do it says
before, and what it was told after.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import structlog
import trio

from exo_stream.opening import open_platform
from exo_stream.streams.streams import Streams
from exo_stream.streams.values import StreamConfig, StreamProducer
from tests.torture import workload
from tests.torture.child import say

PRODUCERS: Final = 6
SHARED: Final = ("shared/a", "shared/b")
TEXT: Final = StreamConfig("text/plain")
CYCLE: Final = ("make", "append", "fork", "shut", "expiring", "remove", "unfork")
"""What is done to the streams of one cycle, one after the other."""


def stream_of(producer: int) -> str:
    return SHARED[producer % len(SHARED)]


def messages_of(producer: int, seq: int) -> list[bytes]:
    """What a producer appends under a number: one message, or three."""
    return [b"%d:%d:%d;" % (producer, seq, part) for part in range(1 + 2 * (seq % 5 == 0))]


async def append(streams: Streams, producer: int, seq: int) -> bool:
    """Append under a number; answer whether that had been done before."""
    result = await streams.append_with_producer(
        stream_of(producer),
        messages_of(producer, seq),
        "text/plain",
        StreamProducer(f"p{producer}", 0, seq),
        seq=None,
    )
    assert result.seq >= seq
    return result.duplicate


async def take(streams: Streams, cycle: int, step: str) -> None:
    """One step of a cycle."""
    source, fork, expiring = (f"cycle/{cycle}/{name}" for name in ("s", "f", "e"))
    match step:
        case "make":
            await streams.create_stream_with_data(source, TEXT, [b"one", b"two"])
        case "append":
            await streams.append(source, b"three", expected_offset=f"{0:016}_{6:016}")
        case "fork":
            await streams.create_fork(fork, source, messages=[b"!"])
        case "shut":
            await streams.append(fork, b"end", close=True)
        case "expiring":
            config = StreamConfig("text/plain", expires_at=1)
            await streams.create_stream_with_data(expiring, config, [b"gone"])
            assert not await streams.exists(expiring)
        case "remove":
            await streams.delete(source)
        case _:
            await streams.delete(fork)


async def main(path: str, numbers: Sequence[int]) -> None:
    """Go on until killed."""
    say("started", os.getpid())
    async with open_platform(path, limits=workload.LIMITS) as platform:
        say("opened")
        for name in SHARED:
            await platform.streams.create_stream(name, TEXT)
        async with trio.open_nursery() as nursery:
            for producer in range(PRODUCERS):
                nursery.start_soon(_produce, platform.streams, producer, numbers[producer])
            nursery.start_soon(_make, platform.streams, numbers[PRODUCERS])


async def _produce(streams: Streams, producer: int, first: int) -> None:
    for seq in range(first, sys.maxsize):
        say("try", producer, seq)
        say("ack", producer, seq, int(await append(streams, producer, seq)))


async def _make(streams: Streams, first: int) -> None:
    for cycle in range(first, sys.maxsize):
        for step in CYCLE:
            say("do", cycle, step)
            await take(streams, cycle, step)
            say("did", cycle, step)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, sys.argv[1], [int(number) for number in sys.argv[2:]])
