"""A power cut loses nothing that was acknowledged, and tears nothing that was not."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from exo_stream.limits import KIB
from exo_stream.storage.directory import beside
from exo_stream.storage.repair import WalVerdict, repair_wal
from tests.torture import power_cut, workload
from tests.torture.child import Assignment
from tests.torture.journal import Journal
from tests.torture.life import can_trace
from tests.torture.power_cut import State

STATES = 12

pytestmark = pytest.mark.slow

traced = pytest.mark.skipif(not can_trace(), reason="strace is not installed, or not allowed")


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


async def test_a_log_that_does_not_open_can_be_repaired(tmp_path: Path) -> None:
    """And one that is called sound opens as it is."""
    journal = Journal("power", writers=2)
    state, synced = await power_cut.write(tmp_path / "f", journal, 3, power_cut.CALM)
    for cut in power_cut.without_the_end(state, synced, random.Random("again"), STATES):
        path = power_cut.put(cut, tmp_path / "cut")
        verdict = repair_wal(path).verdict
        if not await power_cut.opens(path):
            assert verdict is WalVerdict.REPAIRABLE, cut.name
        assert verdict in (WalVerdict.SOUND, WalVerdict.REPAIRABLE), cut.name


async def states_of_a_checkpoint(folder: Path, journal: Journal) -> tuple[State, State, set[int]]:
    """A file before and after a CHECKPOINT, and its blocks of metadata."""
    limits = replace(workload.LIMITS, checkpoint_wal_bytes=512 * KIB)
    before, _ = await power_cut.write(folder / "f", journal, 60, limits)
    path = power_cut.put(before, folder / "checkpointed")
    metadata = power_cut.metadata_blocks(path)
    assignment = Assignment(str(path), journal.seed, first_numbers=[], batches=0)
    return before, await power_cut.checkpointed(path, assignment.command()), metadata


@traced
async def test_a_checkpoint_may_be_on_the_disk_in_part(tmp_path: Path) -> None:
    journal = Journal("power", writers=2)
    before, after, metadata = await states_of_a_checkpoint(tmp_path, journal)
    dice = random.Random("power")
    for cut in power_cut.within_a_checkpoint(before, after, metadata, dice, STATES):
        await power_cut.judge(cut, tmp_path / "cut", journal)


@traced
async def test_a_torn_block_of_metadata_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """DuckDB writes such a block in place, with one checksum: a power cut in the middle of that
    makes the file unreadable. Nothing is lost, and nothing is made worse.
    """
    before, after, metadata = await states_of_a_checkpoint(tmp_path, Journal("power", writers=2))
    changed = {power_cut.block_of(page) for page in power_cut.changed_pages(before, after)}
    cut = power_cut.torn_metadata(before, after, min(metadata & changed))
    path = power_cut.put(cut, tmp_path / "cut")
    assert not await power_cut.opens(path)
    assert (path.read_bytes(), beside(path, ".wal").read_bytes()) == (cut.file, cut.wal)
