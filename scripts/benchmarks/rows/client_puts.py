"""Durable puts through one client: 64 tasks, one WebSocket, a server in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from time import perf_counter
from typing import Final

import trio

from benchmarks import load
from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from benchmarks.rows import pace
from exo_stream.client import connect

TASKS: Final = 64


def measure(setting: Setting) -> Iterator[Result]:
    """Puts a second, each answered when it is durable."""
    with pace.serving(setting) as (_, port):
        rates = trio.run(_put, port, setting.scale.rounds, setting.scale.round_seconds)
    yield Result(
        "client-puts",
        f"durable puts through one WebSocket client, {TASKS} tasks",
        "puts/s",
        rates[1:],
        budget=Budget("at least", 10_000, goal=20_000),
        note="each write is numbered by its producer, so that a retry takes effect once",
    )


async def _put(port: int, rounds: int, seconds: float) -> list[float]:
    rates: list[float] = []
    async with connect(f"ws://127.0.0.1:{port}/v1/ws") as client:
        for _ in range(rounds + 1):
            numbers = count()
            start = perf_counter()
            end = start + seconds

            async def put(numbers: Iterator[int] = numbers, end: float = end) -> None:
                for number in numbers:
                    if perf_counter() >= end:
                        return
                    await client.put_batch([(b"key/%012d" % number, load.VALUE)])

            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(put)
            rates.append((next(numbers) - TASKS) / (perf_counter() - start))
    return rates
