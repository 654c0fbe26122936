"""Load on an embedded platform: producers that put as fast as they are answered."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter

import trio

from exo_stream import Platform

Pairs = list[tuple[bytes, bytes]]

VALUE = random.Random(0).randbytes(100)  # noqa: S311 - figures, not secrets
"""A hundred bytes that do not compress."""


@dataclass(slots=True)
class Tally:
    """What producers did: entries written, and how long each put waited, in seconds."""

    entries: int = 0
    waits: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Entries a second."""
        return self.entries / self.seconds

    def wait_ms(self, share: float) -> float:
        """The wait in milliseconds that ``share`` of the puts did not exceed."""
        return quantile(self.waits, share) * 1000


def quantile(figures: list[float], share: float) -> float:
    """The smallest figure that ``share`` of them do not exceed."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def fresh_batches(entries: int, start: int = 0) -> Iterator[Pairs]:
    """Batches whose keys are all new, and in order."""
    for first in count(start, entries):
        yield [(b"key/%012d" % number, VALUE) for number in range(first, first + entries)]


def scattered_batches(entries: int, keys: int, seed: int = 0) -> Iterator[Pairs]:
    """Batches of keys drawn from ``keys`` known ones."""
    draw = random.Random(seed)  # noqa: S311  the same keys in every run
    while True:
        yield [(b"key/%012d" % draw.randrange(keys), VALUE) for _ in range(entries)]


async def produce(
    platform: Platform, batches: Callable[[int], Iterator[Pairs]], *, tasks: int, seconds: float
) -> Tally:
    """Let ``tasks`` producers put batch after batch, each its own ``batches(task)``."""
    tally = Tally()
    start = perf_counter()
    end = start + seconds

    async def producer(own: Iterator[Pairs]) -> None:
        for pairs in own:
            before = perf_counter()
            if before >= end:
                return
            await platform.put_batch(pairs)
            tally.waits.append(perf_counter() - before)
            tally.entries += len(pairs)

    async with trio.open_nursery() as nursery:
        for task in range(tasks):
            nursery.start_soon(producer, batches(task))
    tally.seconds = perf_counter() - start
    return tally
