"""A power cut loses nothing that was acknowledged, and tears nothing; rot is noticed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from exo_stream.errors import CorruptionError
from exo_stream.storage.repair import WalVerdict, repair_wal
from tests.torture import power_cut
from tests.torture.journal import Journal
from tests.torture.power_cut import State
from tests.tracing import traced

STATES = 12

pytestmark = pytest.mark.slow


async def test_the_end_of_the_log_may_be_on_the_disk_in_part(tmp_path: Path) -> None:
    """It opens, or repair-wal opens it: with all that was acknowledged, and the last or not."""
    verdicts = await power_cut.torn_commits("power", tmp_path, STATES)
    assert set(verdicts) == {"sound", "repairable"}


async def test_a_bit_that_flips_is_noticed_or_harms_nobody(tmp_path: Path) -> None:
    """Never is a wrong value read, and never does anything but ``corruption`` come out."""
    assert set(await power_cut.rotten("rot", tmp_path, STATES)) == {"noticed", "harmless"}


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


@traced
async def test_a_checkpoint_may_be_on_the_disk_in_part(tmp_path: Path) -> None:
    """It opens, or repair-wal opens it: with all that was acknowledged."""
    verdicts = await power_cut.torn_checkpoints("power", tmp_path, STATES)
    assert set(verdicts) == {"sound", "repairable"}


@traced
async def test_a_torn_checkpoint_is_mended_only_where_that_is_proven(tmp_path: Path) -> None:
    """A block that rotted is not passed off as torn; and nothing is changed without being asked."""
    before, after = await power_cut.around_a_checkpoint(tmp_path, Journal("power", writers=2))
    torn = bytearray(before.file)
    pages = power_cut.changed_pages(before, after)
    start = next(page for page in pages[1:] if any(before.file[page : page + power_cut.PAGE]))
    torn[start : start + power_cut.PAGE] = after.file[start : start + power_cut.PAGE]
    rotten = bytearray(before.file)
    for page in range(power_cut.HEADERS, len(rotten), power_cut.PAGE):
        rotten[page + 100] ^= 1
    path = power_cut.put(State("torn", bytes(torn), after.wal), tmp_path / "torn")
    assert not await power_cut.opens(path)
    assert repair_wal(path).verdict is WalVerdict.REPAIRABLE
    assert path.read_bytes() == bytes(torn)
    report = repair_wal(path, apply=True)
    assert report.verdict is WalVerdict.REPAIRED
    assert power_cut.read(Path(report.copies[0]), "the copy").file == bytes(torn)
    assert repair_wal(path).verdict is WalVerdict.SOUND
    assert await power_cut.opens(path)
    path = power_cut.put(State("rotten", bytes(rotten), after.wal), tmp_path / "rotten")
    assert repair_wal(path).verdict is WalVerdict.BEYOND_REPAIR
    with pytest.raises(CorruptionError, match="is damaged"):
        repair_wal(path, apply=True)
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "feed.duckdb",
        "feed.duckdb.lock",
        "feed.duckdb.wal",
    ]
    assert path.read_bytes() == bytes(rotten)
