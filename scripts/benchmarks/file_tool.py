"""What is done to a file in a process of its own.

python -m benchmarks.file_tool VERB FILE …

grow FILE KEYS READS    write KEYS keys, read some; print the readings as JSON
open FILE               print the seconds until the file is open
die FILE MIB            write until the write-ahead log has MIB, then die by SIGKILL
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import psutil
import structlog
import trio

from benchmarks import load
from exo_stream import Limits, Platform, open_platform
from exo_stream.cli.collector import collect_seldom

COLD: Final = Limits(cache_bytes_max=1 << 20)
"""So small a cache that a key drawn from a large table is not in it."""

REST_SECONDS_MAX: Final = 300

BATCH: Final = 1_000
ROW_BYTES: Final = 16 + 100
"""A key and its value."""


async def grow(path: Path, keys: int, reads: int) -> None:
    """Fill a new file, let it come to rest, and read from it."""
    order = list(range(0, keys, BATCH))
    random.Random(1).shuffle(order)  # noqa: S311 - so that runs overlap and merging has work
    async with open_platform(path, limits=COLD) as platform:
        await _write(platform, order)
        rest_seconds = await _rest(platform)
        puts = await _times(lambda: platform.put_batch([(_key(0), load.VALUE)]), reads)
        warm = [_key(0)] * reads
        memory = await _times_of_keys(platform.get, warm)
        draw = random.Random(2)  # noqa: S311  the same keys in every run
        cold = await _times_of_keys(
            platform.get, [_key(draw.randrange(keys)) for _ in range(reads)]
        )
        ranges = await _times_of_keys(
            lambda start: platform.range_scan(start, b"", 100),
            [_key(draw.randrange(keys)) for _ in range(reads)],
        )
        sizes = (await platform.info()).statistics
        rss = psutil.Process().memory_info().rss
    print(
        json.dumps(
            {
                "put_p50": load.quantile(puts, 0.5),
                "get_memory_p50": load.quantile(memory, 0.5),
                "get_cold_p50": load.quantile(cold, 0.5),
                "range_cold_p50": load.quantile(ranges, 0.5),
                "rest_seconds": rest_seconds,
                "runs": sizes.runs,
                "rss": rss,
                "file": sizes.file_bytes + sizes.wal_bytes,
                # Each key was written once: its row, and its place in the log.
                "live": 2 * keys * ROW_BYTES,
            }
        )
    )


async def open_file(path: Path, *_: int) -> None:
    """Open and close."""
    import_module("exo_stream.storage.duckdb_engine")  # importing DuckDB is another row's
    start = perf_counter()
    async with open_platform(path):
        print(perf_counter() - start)


async def die(path: Path, mebibytes: int) -> None:
    """Write, and be killed where nobody expects it."""
    limits = Limits(checkpoint_wal_bytes=1 << 40, checkpoint_idle_wal_bytes=1 << 40)
    async with open_platform(path, limits=limits) as platform:
        for pairs in load.fresh_batches(BATCH):
            await platform.put_batch(pairs)
            if (await platform.info()).statistics.wal_bytes >= mebibytes << 20:
                os.kill(os.getpid(), signal.SIGKILL)


def _key(number: int) -> bytes:
    return b"key/%012d" % number


async def _write(platform: Platform, order: list[int]) -> None:
    left = iter(order)

    async def producer() -> None:
        for first in left:
            await platform.put_batch(
                [(_key(number), load.VALUE) for number in range(first, first + BATCH)]
            )

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(producer)


async def _rest(platform: Platform) -> float:
    """Wait until compaction has had nothing to do for a second; how long that took in seconds."""
    start = perf_counter()
    quiet, before = 0, (-1, -1, -1, -1)
    with trio.move_on_after(REST_SECONDS_MAX):
        while quiet < 4:
            await trio.sleep(0.25)
            sizes = (await platform.info()).statistics
            now = (sizes.blocks, sizes.folded_through, sizes.file_bytes, sizes.wal_bytes)
            quiet, before = (quiet + 1 if now == before else 0), now
    return perf_counter() - start


async def _times(do: Callable[[], Awaitable[Any]], count: int) -> list[float]:
    return await _times_of_keys(lambda _: do(), [b""] * count)


async def _times_of_keys(do: Callable[[bytes], Awaitable[Any]], keys: list[bytes]) -> list[float]:
    """How long each call took, in milliseconds."""
    times: list[float] = []
    for key in keys:
        start = perf_counter()
        await do(key)
        times.append((perf_counter() - start) * 1000)
    return times


def main(verb: str, path: str, *numbers: str) -> None:
    """Do what is asked."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    collect_seldom()  # as docs/embedding.md advises
    verbs: dict[str, Callable[..., Awaitable[None]]] = {"grow": grow, "open": open_file, "die": die}
    trio.run(verbs[verb], Path(path), *map(int, numbers))


if __name__ == "__main__":
    main(*sys.argv[1:])
