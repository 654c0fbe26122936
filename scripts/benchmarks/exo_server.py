"""The process of a server of ours: python -m benchmarks.exo_server FILE.

It says its port, then answers lines on its standard input; what it publishes goes through the
platform it serves, as in a program that embeds it:

    pace RATE COUNT SIZE    publish COUNT batches of one value at RATE a second; then a line
                            {index: ns of CLOCK_MONOTONIC when its COMMIT returned}
    fill COUNT SIZE         publish COUNT batches of one value as fast as it goes, then "ok"
    load BATCHES ENTRIES    write BATCHES batches of ENTRIES entries of 100 bytes, then "ok"
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import structlog
import trio

from benchmarks import load
from benchmarks.marks import marked
from benchmarks.wire import SUBJECT
from exo_stream import Limits, Platform, open_platform
from exo_stream.cli.collector import collect_seldom
from exo_stream.server.serve import serve
from exo_stream.storage.duckdb_engine import open_duckdb_engine
from exo_stream.storage.engine import Engine, Group
from exo_stream.storage.memory_engine import wall_clock


class TimedEngine:
    """An engine that notes when each COMMIT has returned, and is another one otherwise."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.committed: dict[int, int] = {}

    def commit(self, group: Group) -> Group:
        """Commit, and note the time."""
        kept = self._engine.commit(group)
        now = time.monotonic_ns()
        for batch in kept.batches:
            self.committed[batch.sequence] = now
        return kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


async def pace(
    platform: Platform, timed: TimedEngine, rate: float, count: int, size: int
) -> dict[int, int]:
    """Publish at a steady rate, whatever each put takes; answer when each batch was committed."""
    sequences: dict[int, int] = {}
    start = trio.current_time()

    async def put(index: int) -> None:
        sequences[index] = await platform.put_batch([(SUBJECT, marked(index, size))])

    async with trio.open_nursery() as nursery:
        for index in range(count):
            await trio.sleep_until(start + index / rate)
            nursery.start_soon(put, index)
    return {index: timed.committed[sequence] for index, sequence in sequences.items()}


async def fill(platform: Platform, count: int, size: int) -> None:
    """Publish one after another."""
    for index in range(count):
        await platform.put_batch([(SUBJECT, marked(index, size))])


async def write_many(platform: Platform, batches: int, entries: int) -> None:
    """Write batches of new keys, eight at a time."""
    fresh = load.fresh_batches(entries)
    left = iter(range(batches))

    async def producer() -> None:
        for _ in left:
            await platform.put_batch(next(fresh))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(producer)


async def answer(platform: Platform, timed: TimedEngine, line: str) -> str:
    """Do what a line asks."""
    verb, *numbers = line.split()
    if verb == "pace":
        rate, count, size = numbers
        return json.dumps(await pace(platform, timed, float(rate), int(count), int(size)))
    verbs: dict[str, Callable[..., Any]] = {"fill": fill, "load": write_many}
    await verbs[verb](platform, *map(int, numbers))
    return "ok"


async def main(path: str) -> None:
    """Serve the file until standard input ends."""
    # A thousand subscribers come from one address, and may come at once.
    limits = Limits(connections_per_address_max=10_000)
    timed = TimedEngine(open_duckdb_engine(path, limits=limits, now=wall_clock))
    async with (
        open_platform(engine=cast("Engine", timed), limits=limits) as platform,
        trio.open_nursery() as nursery,
    ):
        _, port = await nursery.start(partial(serve, platform, port=0))
        print(port, flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            print(await answer(platform, timed, line), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    collect_seldom()  # as `exo-stream serve` does
    trio.run(main, sys.argv[1])
