"""The child of the projection kill test: events appended and projected, told as they are applied.

``python -m tests.torture.projector PATH`` runs until it is killed, or for ``TURNS`` turns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import trio

from exo_stream.canonical.changes import Changes
from exo_stream.canonical.projection_rules import DeadLetterQueue, Event, ProjectorConfig
from exo_stream.canonical.projection_txn import ProjectionTxn
from exo_stream.opening import open_platform
from tests.torture.child import say

TABLES: Final = (
    "CREATE TABLE seen (event_id UBIGINT, amount BIGINT)",
    "CREATE TABLE total (amount BIGINT)",
    "INSERT INTO total VALUES (0)",
)
TURNS: Final = 30
BAD: Final = 7
"""An event with an id that this divides is put aside."""
CONFIG: Final = ProjectorConfig(batch_events_max=5, error_strategy=DeadLetterQueue())


async def project(txn: ProjectionTxn, events: Sequence[Event]) -> None:
    """Each event once in each of two tables, one written before the other."""
    for number, event in events:
        await txn.execute("INSERT INTO seen VALUES (?, ?)", [number, int(event)])
        if number % BAD == 0:
            raise ValueError(number)
        await txn.execute("UPDATE total SET amount = amount + ?", [int(event)])


async def main(path: str) -> None:
    say("started", os.getpid())
    async with (
        open_platform(path) as platform,
        platform.canonical.projections(f"{path}.projections") as projections,
    ):
        canonical = platform.canonical
        projector = await projections.add("total", project, tables=TABLES, config=CONFIG)
        first = (await canonical.meta()).next_event_id
        say("opened", first)
        for turn in range(TURNS):
            info = await canonical.submit(Changes(events=[b"%d" % (turn % 9)] * (1 + turn % 4)))
            assert info.last_event_id is not None
            if turn % 3 == 0:
                await projector.wait_applied(info.last_event_id)
            say("applied", -1 if projector.cursor is None else projector.cursor)
            if turn % 15 == 14:
                await projector.rebuild()
                say("rebuilt", projector.cursor)
    say("closed")


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
