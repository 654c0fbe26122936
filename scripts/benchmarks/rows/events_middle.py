"""Events from an id in the middle of many, beside those from the first: both cost the same.

The file is opened anew before it is read, and each round reads a stretch that none has read
before, so that the figures are of the file and not of what memory still has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

import exo_stream
from benchmarks.result import Result
from benchmarks.row import Setting
from exo_stream.canonical.changes import Changes
from exo_stream.canonical.store import CanonicalStore

BATCH: Final = 5_000
WRITERS: Final = 8
READ: Final = 10_000
"""So many events a round."""


def measure(setting: Setting) -> Iterator[Result]:
    """Fill a file with as many events as the large table has keys, and read from two places."""
    path = setting.folder / "events.duckdb"
    trio.run(_fill, path, setting.scale.large_table_keys)
    yield from trio.run(_read, path, setting.scale.rounds)


async def _fill(path: Path, events: int) -> None:
    left = events

    async def write(store: CanonicalStore) -> None:
        nonlocal left
        while left:
            count = min(BATCH, left)
            left -= count
            await store.submit(Changes(events=[b"event_%d" % (left % 1_000)] * count))

    async with exo_stream.open_platform(path) as platform, trio.open_nursery() as nursery:
        for _ in range(WRITERS):
            nursery.start_soon(write, platform.canonical)


async def _read(path: Path, rounds: int) -> list[Result]:
    rates: dict[str, list[float]] = {"the first": [], "the middle": []}
    looks: dict[str, list[float]] = {"the first": [], "the middle": []}
    async with exo_stream.open_platform(path) as platform:
        store = platform.canonical
        events = (await store.meta()).next_event_id
        count = min(READ, events // 2 // (rounds + 1))
        for number in range(rounds + 1):
            for name, first in (("the first", 0), ("the middle", events // 2)):
                rate, look = await _once(store, first + number * count, count)
                rates[name].append(rate)
                looks[name].append(look)
    return [
        *_results("iterating from", events, "events/s", rates),
        *_results("one event from", events, "reads/s", looks),
    ]


async def _once(store: CanonicalStore, first: int, count: int) -> tuple[float, float]:
    """Events a second; and how often a second the first of them alone could be read."""
    began = time.perf_counter()
    found = await store.iter_events(first, first + count)
    assert await found.next() is not None
    look = 1 / (time.perf_counter() - began)
    seen = 1
    async for _event in found:
        seen += 1
    assert seen == count, (seen, count)
    return seen / (time.perf_counter() - began), look


def _results(what: str, events: int, unit: str, found: dict[str, list[float]]) -> Iterator[Result]:
    """Without the first round, which is nobody's."""
    for name, given in found.items():
        yield Result("events-middle", f"{what} {name} of {events:,} events", unit, given[1:])
