"""A thousand different prefixes: what matching them costs the ingest beside them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

import trio
import trio.testing

import exo_stream
from benchmarks import load, rounds
from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from benchmarks.rows.ingest import ENTRIES, PRODUCERS

WATCHED_EVERY: Final = 100
"""One entry in so many has a key that somebody follows."""


def measure(setting: Setting) -> Iterator[Result]:
    """Ingest with and without embedded subscribers, by turns."""
    scale = setting.scale
    numbers = count()

    def contender(subscribers: int) -> rounds.Contender:
        def contend() -> float:
            path = setting.folder / f"prefixes-{next(numbers)}.duckdb"
            return trio.run(_ingest, path, subscribers, scale.subscribers, scale.round_seconds)

        return contend

    given, others = rounds.alternate(
        max(1, scale.rounds - 1),
        {rounds.OURS: contender(scale.subscribers), "without": contender(0)},
    )
    ratios = [ours / alone for ours, alone in zip(given, others["without"], strict=True)]
    yield Result(
        "prefixes",
        f"{PRODUCERS} × {ENTRIES:,}-entry ingest beside {scale.subscribers:,} subscribers with as "
        "many prefixes, to without",
        "×",
        ratios,
        budget=Budget("at least", 0.8),
        note=f"one entry in {WATCHED_EVERY} is followed by somebody, and delivered in process",
    )


async def _ingest(path: Path, subscribers: int, prefixes: int, seconds: float) -> float:
    async with (
        exo_stream.open_platform(path) as platform,
        trio.open_nursery() as nursery,
    ):
        for number in range(subscribers):
            nursery.start_soon(_follow, platform, b"user/%06d/" % number)
        await trio.testing.wait_all_tasks_blocked()
        tally = await load.produce(
            platform,
            lambda task: _batches(task, prefixes),
            tasks=PRODUCERS,
            seconds=seconds,
        )
        nursery.cancel_scope.cancel()
    return tally.rate


async def _follow(platform: exo_stream.Platform, prefix: bytes) -> None:
    async with platform.subscribe(prefix=prefix, start="now") as feed:
        async for _ in feed:
            pass


def _batches(task: int, prefixes: int) -> Iterator[load.Pairs]:
    for number, pairs in enumerate(load.fresh_batches(ENTRIES, task * 10**9)):
        for at in range(0, ENTRIES, WATCHED_EVERY):
            who = (number * (ENTRIES // WATCHED_EVERY) + at // WATCHED_EVERY + task * 97) % prefixes
            pairs[at] = (b"user/%06d/at" % who, load.VALUE)
        yield pairs
