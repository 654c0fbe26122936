"""Projections that need no thread, and handlers that say what they did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from exo_stream import Platform
from exo_stream.canonical.projection import Projector
from exo_stream.canonical.projection_rules import Event, ProjectorConfig
from exo_stream.canonical.projection_txn import ProjectionTxn
from exo_stream.canonical.projections import Projections, open_projections
from exo_stream.canonical.store import CanonicalStore
from exo_stream.storage.hop import Hop
from exo_stream.testing import in_place

TABLES = ("CREATE TABLE seen (event_id UBIGINT, event BLOB)",)

LONG = ProjectorConfig(handler_timeout_ms=3_600_000)


@asynccontextmanager
async def hop_in_place(_name: str) -> AsyncIterator[Hop]:
    yield in_place


@asynccontextmanager
async def projecting(platform: Platform, folder: Path) -> AsyncIterator[Projections]:
    """Projections without threads, so that a mock clock may run."""
    async with open_projections(platform._ground, folder, open_hop=hop_in_place) as projections:
        yield projections


async def see(txn: ProjectionTxn, events: Sequence[Event]) -> None:
    """Write down every event."""
    await txn.execute(
        "INSERT INTO seen SELECT unnest(?), unnest(?)",
        [[number for number, _ in events], [event for _, event in events]],
    )


async def seen(projector: Projector) -> list[tuple[Any, ...]]:
    return await projector.query("SELECT event_id, event FROM seen ORDER BY event_id")


async def append(canonical: CanonicalStore, *events: bytes) -> None:
    async with canonical.write_txn() as txn:
        await txn.append_events(events)
        await txn.commit()


class Handler:
    """Sees events, in batches that it remembers; fails at those in ``bad``, so many times."""

    def __init__(self, bad: dict[int, int] | None = None) -> None:
        self.bad = dict(bad or {})
        self.batches: list[list[int]] = []
        self.hangs = False
        self.hanging = trio.Event()

    async def __call__(self, txn: ProjectionTxn, events: Sequence[Event]) -> None:
        numbers = [number for number, _ in events]
        self.batches.append(numbers)
        await see(txn, events)
        if self.hangs:
            self.hanging.set()
            await trio.sleep_forever()
        for number in numbers:
            if self.bad.get(number, 0):
                self.bad[number] -= len(numbers) == 1
                raise KeyError(number)
