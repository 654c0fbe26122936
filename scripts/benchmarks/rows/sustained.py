"""Sustained ingest: long enough for folds, merges and CHECKPOINTs, which must not be felt."""

from __future__ import annotations

from collections.abc import Iterator

import trio

import exo_stream
from benchmarks import load
from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from benchmarks.rows.ingest import ENTRIES, PRODUCERS


def measure(setting: Setting) -> Iterator[Result]:
    """Entries a second, and how long a put waited until it was durable."""
    tally, blocks = trio.run(_ingest, setting)
    seconds = setting.scale.sustained_seconds
    name = f"{seconds:g} s sustained ingest, {PRODUCERS} × {ENTRIES:,} entries"
    budget = Budget("at least", 80_000, goal=150_000)
    note = f"keys overwrite one another at random; {blocks}"
    yield Result("sustained", name, "entries/s", [tally.rate], budget=budget, note=note)
    for what, share, limit in (("p50", 0.5, None), ("p99", 0.99, 200), ("max", 1.0, 500)):
        yield Result(
            "sustained",
            f"the same, put → durable, {what}",
            "ms",
            [tally.wait_ms(share)],
            budget=Budget("at most", limit) if limit else None,
        )


async def _ingest(setting: Setting) -> tuple[load.Tally, str]:
    path = setting.folder / "sustained.duckdb"
    keys = setting.scale.large_table_keys
    async with exo_stream.open_platform(path) as platform:
        tally = await load.produce(
            platform,
            lambda task: load.scattered_batches(ENTRIES, keys, task),
            tasks=PRODUCERS,
            seconds=setting.scale.sustained_seconds,
        )
        sizes = (await platform.info()).statistics
        return tally, f"{sizes.blocks} blocks in {sizes.runs} runs at the end"
