"""A file of many streams: make it, open it. python -m benchmarks.stream_tool VERB PATH COUNT."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

import psutil
import trio

from exo_stream import Platform, open_platform
from exo_stream.streams import StreamConfig

TASKS: Final = 256
MESSAGE: Final = b"x" * 100


def name_of(number: int) -> str:
    return f"benchmark/streams/{number:08d}"


async def make(path: Path, count: int) -> None:
    """Create so many streams of one message, and close the file."""
    async with open_platform(path) as platform, trio.open_nursery() as nursery:
        for first in range(TASKS):
            nursery.start_soon(_make_some, platform, range(first, count, TASKS))


async def _make_some(platform: Platform, numbers: range) -> None:
    await trio.lowlevel.checkpoint_if_cancelled()
    config = StreamConfig("text/plain", ttl_seconds=10**9)
    for number in numbers:
        await platform.streams.create_stream_with_data(name_of(number), config, [MESSAGE])


async def open_file(path: Path, count: int) -> None:
    """Print the seconds until the first stream is read, and the memory then, in bytes."""
    process = psutil.Process(os.getpid())
    begun = time.perf_counter()
    async with open_platform(path) as platform:
        if count:
            page = await platform.streams.read(name_of(count // 2))
            assert page.body == MESSAGE
        seconds = time.perf_counter() - begun
        await trio.sleep(0.5)  # upkeep has looked at what there is to do
        print(seconds, process.memory_info().rss)


def main(verb: str, path: str, count: str) -> None:
    """Do one of both."""
    trio.run({"make": make, "open": open_file}[verb], Path(path), int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
