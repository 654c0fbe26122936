"""Whatever moment a process is killed at: a projection's tables and its cursor agree."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import trio

from exo_stream import open_platform
from tests.torture import projector as child
from tests.torture.life import AtMoment, AtSyscall, Death, can_trace, live

ROUNDS = 10
SECONDS_MAX = 40
"""No measure: on a machine that is busy with other things fewer rounds have to do."""


class Ledger:
    """What the parent knows: how far the projection was said to be."""

    def __init__(self) -> None:
        self.applied = -1
        self.rebuilt = 0
        self.opened = 0

    def hear(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        match verb:
            case "applied":
                self.applied = int(rest)
            case "rebuilt":
                self.rebuilt += 1
            case "opened":
                self.opened += 1
            case _:
                assert verb in ("started", "closed"), line

    async def check(self, path: Path) -> int:
        """Every event up to the cursor is in both tables or aside, once, and none after it."""
        async with open_platform(path) as platform:
            events = [event async for event in await platform.canonical.iter_events()]
            async with platform.canonical.projections(f"{path}.projections") as projections:
                projector = await projections.add(
                    "total", child.project, tables=child.TABLES, config=child.CONFIG, run=False
                )
                await projector.run_once()  # opens the file; a batch more does no harm
                cursor = -1 if projector.cursor is None else projector.cursor
                assert cursor >= min(self.applied, len(events) - 1)
                good = [(n, int(e)) for n, e in events[: cursor + 1] if n % child.BAD]
                aside = [n for n, _ in events[: cursor + 1] if not n % child.BAD]
                rows = await projector.query("SELECT * FROM seen ORDER BY ALL")
                assert rows == good
                [(total,)] = await projector.query("SELECT amount FROM total")
                assert total == sum(amount for _, amount in good)
                letters = [letter.event_id for letter in await projector.dead_letters()]
                assert letters == aside
        assert len(events) > self.applied, "events were lost"
        return cursor + 1


@pytest.mark.slow
async def test_x14_a_killed_projection_has_applied_each_event_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    ledger, dice, traceable = Ledger(), random.Random("projections"), can_trace()
    command = [sys.executable, "-m", "tests.torture.projector", str(path)]
    kills = applied = 0
    deadline = trio.current_time() + SECONDS_MAX
    for _ in range(ROUNDS):
        # It says a line a turn, of thirty; so a moment is an early line more often than not.
        death: Death = AtMoment(dice.randint(1, 12), dice.uniform(0, 0.05))
        if traceable and (dice.random() < 0.4 or not path.exists()):
            # Calls that every life makes often; one that is never made is a slow life to its end.
            name = dice.choice(["fdatasync", "write", "pwrite64", "rename"])
            death = AtSyscall(name, 1 if name == "rename" else dice.randint(1, 30))
        ended = await live(command, ledger.hear, death)
        kills += ended.killed
        if path.exists():
            applied = await ledger.check(path)
        if trio.current_time() > deadline:
            break
    assert kills >= 3
    assert ledger.opened >= 3
    assert applied > 20
