"""Durable puts: 64 embedded tasks of one entry each, beside Redis at 64 connections."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final

import trio

from benchmarks import load, redis_client, rounds, servers
from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from benchmarks.rows.ingest import embedded

WRITERS: Final = 64


def measure(setting: Setting) -> Iterator[Result]:
    """Puts a second, each answered when it is durable, and only then followed by the next."""
    scale = setting.scale
    numbers = count()

    def ours() -> float:
        path = setting.folder / f"puts-{next(numbers)}.duckdb"
        return trio.run(embedded, path, WRITERS, 1, scale.round_seconds)

    with servers.redis(setting.folder) as redis:
        given, peers = rounds.alternate(
            scale.rounds,
            {
                rounds.OURS: ours,
                "redis": (lambda: one_by_one(redis.address, scale.round_seconds))
                if redis
                else None,
            },
        )
    yield Result(
        "puts",
        f"durable puts, embedded, {WRITERS} tasks × 1 entry",
        "puts/s",
        given,
        peers,
        Budget("at least", 0.7, "ratio", goal=1),
        note=f"Redis: {WRITERS} connections, XADD one at a time, appendfsync always",
    )


def one_by_one(address: servers.Address, seconds: float) -> float:
    """What Redis appends a second, each connection waiting for its answer."""
    request = redis_client.xadd(b"stream", load.VALUE, 1)
    return redis_client.rate(address, request, connections=WRITERS, each=1, seconds=seconds)
