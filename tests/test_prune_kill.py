"""Killed in the middle of prunes: the file verifies, every batch is whole, nothing is undone."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from exo_stream import prune as execution
from exo_stream.opening import open_platform
from exo_stream.storage.verify import verify
from tests.torture import pruner, workload
from tests.torture.life import SYSCALLS, AtMoment, AtSyscall, Death, can_trace, live

KILLS = 4
LIVES_MAX = 40
"""One of them dies amid a prune, and one sees one done: on a slow machine the first few do not."""


class Told:
    """What the children have said, over their lives."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.deleted = 0
        self.spared = 0
        self.is_pruning = False
        self.killed_in_prunes = 0

    def hear(self, line: str) -> None:
        match line.split():
            case ["started", _]:
                pass
            case ["opened", frontier]:
                assert int(frontier) >= self.acknowledged, (line, self.acknowledged)
                self.is_pruning = False
            case ["ack" | "anew", sequence, *_]:
                assert int(sequence) > 0
                self.acknowledged = max(self.acknowledged, int(sequence))
            case ["pruning"]:
                self.is_pruning = True
            case ["pruned", deleted, spared, *sequences]:
                self.is_pruning = False
                self.deleted += int(deleted)
                self.spared += int(spared)
                self.acknowledged = max([self.acknowledged, *map(int, sequences)])
            case _:
                raise AssertionError(line)


async def check(path: Path, told: Told) -> None:
    report = verify(path)
    assert report.sound, report
    if report.newest:
        # The floor is as durable as the batches that moved it: nobody has applied the rule since.
        assert report.floor >= report.newest + 1 - pruner.KEPT_BATCHES
    async with open_platform(path, limits=workload.LIMITS) as platform:
        frontier = await platform.current_sequence()
        assert frontier >= told.acknowledged
        oldest = await platform.oldest_retained_batch()
        for sequence in range(oldest or frontier + 1, frontier + 1):
            batch = await platform.get_batch(sequence)
            assert batch is not None, sequence
            pruner.check_whole(batch.entries)
        # Whatever a prune had begun, another one finishes.
        await platform.prune([pruner.NEWEST])
        async with platform.scan() as rows:
            left = [key async for key, _ in rows]
        newest = pruner.newest_of(left)
        for group in range(pruner.GROUPS if newest else 0):
            mine = [key for key in left if key.startswith(b"group/%03d/" % group)]
            assert len(mine) == min(newest, pruner.KEPT_VERSIONS), (group, mine)
    assert verify(path).sound


def some_death(dice: random.Random) -> Death:
    if can_trace() and dice.random() < 0.5:
        return AtSyscall(dice.choice(("fdatasync", "write", "pwrite64")), dice.randint(20, 120))
    return AtMoment(dice.randint(10, 200), dice.uniform(0, 0.005))


@pytest.mark.slow
async def test_prunes_that_are_killed_leave_whole_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "BATCH_KEYS_MAX", pruner.BATCH_KEYS)
    path, told, dice = tmp_path / "feed.duckdb", Told(), random.Random("prune")
    assert set(SYSCALLS) >= {"fdatasync", "write", "pwrite64"}
    command = [sys.executable, "-m", "tests.torture.pruner", str(path)]
    for life in range(LIVES_MAX):
        if life >= KILLS and told.deleted and told.killed_in_prunes:
            break
        ended = await live(command, told.hear, some_death(dice))
        assert ended.killed, ended
        told.killed_in_prunes += told.is_pruning
        await check(path, told)
    assert told.deleted > 0
    assert told.killed_in_prunes > 0
