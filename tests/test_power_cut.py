"""A power cut loses nothing that was acknowledged, and tears nothing that was not."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from exo_stream.limits import MIB
from exo_stream.storage.directory import beside
from tests.torture import power_cut, verifier, workload
from tests.torture.child import Assignment
from tests.torture.journal import Journal
from tests.torture.life import can_trace

STATES = 25

pytestmark = pytest.mark.slow


async def test_the_end_of_the_log_may_be_on_the_disk_in_part(tmp_path: Path) -> None:
    """It opens, or repair-wal opens it: with all that was acknowledged, and the last or not."""
    journal = Journal("power", writers=2)
    state, synced = await power_cut.write(tmp_path / "f", journal, 12, power_cut.CALM)
    dice = random.Random("power")
    verdicts = [
        await power_cut.judge(cut, tmp_path / "cut", journal)
        for cut in power_cut.without_the_end(state, synced, dice, STATES)
    ]
    assert set(verdicts) == {"sound", "repairable"}


async def test_a_log_that_repair_calls_sound_opens_as_it_is(tmp_path: Path) -> None:
    """And one that it would repair does not: nothing is cut off that DuckDB could read."""
    journal = Journal("power", writers=2)
    state, synced = await power_cut.write(tmp_path / "f", journal, 3, power_cut.CALM)
    for cut in power_cut.without_the_end(state, synced, random.Random("again"), STATES):
        path = verifier.fresh(tmp_path / "cut") / "feed.duckdb"
        path.write_bytes(cut.file)
        beside(path, ".wal").write_bytes(cut.wal or b"")
        sound = power_cut.repair_wal(path).verdict is power_cut.WalVerdict.SOUND
        assert await power_cut.opens(path) == sound, cut.name


@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or not allowed")
async def test_a_checkpoint_may_be_on_the_disk_in_part(tmp_path: Path) -> None:
    journal = Journal("power", writers=2)
    limits = replace(workload.LIMITS, checkpoint_wal_bytes=64 * MIB)
    state, _ = await power_cut.write(tmp_path / "f", journal, 60, limits)
    path = verifier.fresh(tmp_path / "checkpointed") / "feed.duckdb"
    path.write_bytes(state.file)
    beside(path, ".wal").write_bytes(state.wal or b"")
    assignment = Assignment(str(path), journal.seed, first_numbers=[], batches=0)
    after = await power_cut.checkpointed(path, assignment.command())
    for cut in power_cut.within_a_checkpoint(state, after, random.Random("power"), STATES):
        assert await power_cut.judge(cut, tmp_path / "cut", journal) == "sound"
