"""Durable ingest: 8 embedded producers of 1,000-entry batches, beside Redis' pipelined XADD."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

import trio

import exo_stream
from benchmarks import load, redis_client, rounds, servers
from benchmarks.result import Budget, Result
from benchmarks.row import Setting

PRODUCERS: Final = 8
ENTRIES: Final = 1_000
CONNECTIONS: Final = 64
PIPELINE: Final = 64


def measure(setting: Setting) -> Iterator[Result]:
    """Entries a second, durable when answered, the values 100 bytes on both sides."""
    scale = setting.scale
    numbers = count()

    def ours() -> float:
        path = setting.folder / f"ingest-{next(numbers)}.duckdb"
        return trio.run(embedded, path, PRODUCERS, ENTRIES, scale.round_seconds)

    with servers.redis(setting.folder) as redis:
        given, peers = rounds.alternate(
            scale.rounds,
            {
                rounds.OURS: ours,
                "redis": (lambda: pipelined(redis.address, scale.round_seconds)) if redis else None,
            },
        )
    yield Result(
        "ingest",
        f"durable ingest, embedded, {PRODUCERS} × {ENTRIES:,} × 100 B",
        "entries/s",
        given,
        peers,
        Budget("at least", 1.3, "ratio", goal=2),
        note=f"Redis: {CONNECTIONS} connections × {PIPELINE} pipelined XADD, appendfsync always",
    )


async def embedded(path: Path, tasks: int, entries: int, seconds: float) -> float:
    """The rate of a new file, all keys new."""
    async with exo_stream.open_platform(path) as platform:
        tally = await load.produce(
            platform,
            lambda task: load.fresh_batches(entries, task * 10**9),
            tasks=tasks,
            seconds=seconds,
        )
        return tally.rate


def pipelined(address: servers.Address, seconds: float) -> float:
    """What Redis appends a second with many commands under way."""
    request = redis_client.xadd(b"stream", load.VALUE, PIPELINE)
    return redis_client.rate(
        address, request, connections=CONNECTIONS, each=PIPELINE, seconds=seconds
    )
