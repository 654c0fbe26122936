"""The campaign: life after life on one file, each ended by force and judged; then a new file."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.torture import verifier
from tests.torture.child import Assignment
from tests.torture.journal import Journal
from tests.torture.life import AtSyscall, Death, Ended, can_trace, live, some_death

KILLS_PER_FILE: Final = 20
"""Then the file is closed in order, judged, and a new one is begun."""

WRITERS: Final = 6
BATCHES: Final = 40
KEEP: Final = 60

_LIVES_PER_KILL_MAX: Final = 10


@dataclass(slots=True)
class Tally:
    """What a campaign has seen."""

    kills: int = 0
    lives: int = 0
    acknowledged: int = 0
    batches: int = 0
    pruned: int = 0
    deaths: Counter[str] = field(default_factory=Counter)


async def campaign(
    seed: str,
    kills: int,
    folder: Path,
    *,
    first: int = 0,
) -> Tally:
    """``kills`` deaths from the ``first`` on, ``KILLS_PER_FILE`` to a file.

    The same seed makes the same files, assignments and deaths; only the timing differs.
    """
    tally = Tally()
    traceable = can_trace()
    while tally.kills < kills:
        number = (first + tally.kills) // KILLS_PER_FILE
        await _use_up_a_file(
            f"{seed}/{number}",
            min(KILLS_PER_FILE, kills - tally.kills),
            folder,
            traceable=traceable,
            tally=tally,
        )
    return tally


async def _use_up_a_file(
    seed: str,
    kills: int,
    folder: Path,
    *,
    traceable: bool,
    tally: Tally,
) -> None:
    path = verifier.fresh(folder) / "feed.duckdb"
    journal = Journal(seed, writers=WRITERS)
    dice = random.Random(seed)
    killed = lives = 0
    while killed < kills:
        lives += 1
        assert lives <= _LIVES_PER_KILL_MAX * kills, "hardly any child could be killed"
        death = some_death(dice, traceable=traceable, unborn=not journal.log_id)
        ended = await _one_life(path, journal, death)
        killed += ended.killed
        tally.lives += 1
        tally.kills += ended.killed
        tally.deaths[death.name if isinstance(death, AtSyscall) else "moment"] += ended.killed
    ended = await _one_life(path, journal, None)
    assert ended.last_line == "closed", ended
    tally.acknowledged += sum(journal.next_numbers)
    tally.batches += journal.judged
    tally.pruned += journal.floor - 1


async def _one_life(path: Path, journal: Journal, death: Death | None) -> Ended:
    assignment = Assignment(
        path=str(path),
        seed=journal.seed,
        first_numbers=list(journal.next_numbers),
        batches=BATCHES,
        keep=KEEP,
    )
    try:
        ended = await live(assignment.command(), journal.hear, death)
        assert ended.killed or ended.last_line == "closed", ended.log
        await verifier.judge(verifier.copy(path, path.parent / "copy"), journal)
    except BaseException as error:
        error.add_note(f"file {journal.seed!r}, {death}")
        raise
    return ended
