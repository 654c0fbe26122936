"""Chains of backups, restored to any sequence, time and event of them: X11."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exo_stream import Platform, open_platform
from exo_stream.backup import restore, restore_from
from exo_stream.backup_errors import (
    BackupDamagedError,
    FullBackupNeededError,
    RestorePointError,
)
from exo_stream.canonical.events import event_row_key
from tests.backups import KINDS, LIMITS, contents, live
from tests.test_backup import back_up, restored, two_kinds, up_to

pytestmark = pytest.mark.slow  # files are written, and synced


@two_kinds
async def test_x11_a_chain_is_restored_to_any_sequence_time_and_event(
    kind: str, tmp_path: Path
) -> None:
    key = KINDS[kind][1]
    async with open_platform(tmp_path / "feed.duckdb", limits=LIMITS) as platform:
        ends, parent = [], None
        for number in range(3):
            await live(platform, 6, first=number * 6)
            path = tmp_path / f"b{number}"
            ends.append(await back_up(platform, path, kind, parent))
            parent = path
        versions = [await version_of(platform, event_id) for event_id in range(18)]
    everything = contents(tmp_path / "feed.duckdb")
    points = [0, ends[0] - 3, *ends, ends[1] + 7] if kind == "plain" else [1, ends[0] + 1]
    for point in points:
        target = tmp_path / f"at {point}.duckdb"
        assert restored(tmp_path / "b2", target, point).sequence == point
        assert contents(target) == (up_to(everything, point) if point else ([], []))
    for point in (ends[0] + 5, 3):
        committed_at = everything[1][point - 1][1]
        last = max(seq for seq, time, _ in everything[1] if time <= committed_at)
        target = tmp_path / f"time {point}.duckdb"
        at_time = datetime.fromtimestamp(committed_at / 1e6, UTC)
        info = await restore_from(tmp_path / "b2", target, at_time=at_time, key=key)
        assert info.sequence == last
    for event_id in (0, 6, 17):
        target = tmp_path / f"event {event_id}.duckdb"
        info = await restore_from(tmp_path / "b2", target, at_event=event_id, key=key)
        assert info.sequence == versions[event_id], "the batch that it was committed with"
        assert contents(target) == up_to(everything, info.sequence)
    too_far: tuple[dict[str, int], ...] = (
        {"at_sequence": ends[2] + 1},
        {"at_sequence": 1 << 63},
        {"at_time": 1},
        {"at_event": 18},
    )
    for beyond in too_far:
        with pytest.raises(RestorePointError):
            restore(tmp_path / "b2", tmp_path / "new.duckdb", key=key, **beyond)  # type: ignore[arg-type]  # points of several types
    assert not (tmp_path / "new.duckdb").exists()


async def version_of(platform: Platform, event_id: int) -> int:
    """The sequence of the batch with an event, as the table has it."""
    [row] = await platform._reads.rows(platform._engine.version, [event_row_key(event_id)])
    assert row is not None
    return row.sequence


async def test_x11_a_pruned_log_is_restored_from_its_full_backup_on(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb", limits=LIMITS) as platform:
        await live(platform, 20)
        await platform.prune_batch_log(50)
        full = await back_up(platform, tmp_path / "full", "plain")
        await live(platform, 5, first=20)
        await platform.prune_batch_log(full - 4)
        last = await back_up(platform, tmp_path / "next", "plain", tmp_path / "full")
    restored(tmp_path / "next", tmp_path / "new.duckdb")
    assert contents(tmp_path / "new.duckdb") == contents(tmp_path / "feed.duckdb")
    assert restored(tmp_path / "next", tmp_path / "then.duckdb", full + 2).sequence == full + 2
    for point in (full - 1, last + 1):
        with pytest.raises(RestorePointError, match=f"it has {full} to {last}"):
            restore(tmp_path / "next", tmp_path / "no.duckdb", at_sequence=point)
    with pytest.raises(RestorePointError, match="does not go back to event 1"):
        restore(tmp_path / "next", tmp_path / "no.duckdb", at_event=1)
    with pytest.raises(RestorePointError, match=f"it has {full} to {last}"):
        restore(tmp_path / "next", tmp_path / "no.duckdb", at_event=15)


async def test_an_incremental_backup_that_cannot_follow_asks_for_a_full_one(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb", limits=LIMITS) as platform:
        await live(platform, 5)
        await back_up(platform, tmp_path / "old", "plain")
        await live(platform, 5, first=5)
        await back_up(platform, tmp_path / "ahead", "plain", tmp_path / "old")
        await platform.prune_batch_log(platform.cursor.sequence)
        with pytest.raises(FullBackupNeededError, match=r"evicted: take a full backup") as caught:
            await back_up(platform, tmp_path / "next", "plain", tmp_path / "old")
        assert caught.value.path == str(tmp_path / "old")
    restored(tmp_path / "old", tmp_path / "new.duckdb")
    async with open_platform(tmp_path / "new.duckdb") as platform:
        with pytest.raises(FullBackupNeededError, match="of another log"):
            await back_up(platform, tmp_path / "next", "plain", tmp_path / "old")
    assert not (tmp_path / "next").exists()


async def test_a_chain_with_a_link_missing_is_refused(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        parent = None
        for number in range(3):
            await live(platform, 2, first=number * 2)
            await back_up(platform, tmp_path / f"b{number}", "plain", parent)
            parent = tmp_path / f"b{number}"
    (tmp_path / "b0").rename(tmp_path / "renamed")
    restored(tmp_path / "b2", tmp_path / "renamed.duckdb")
    shutil.rmtree(tmp_path / "b1")
    with pytest.raises(BackupDamagedError, match="is not beside it"):
        restore(tmp_path / "b2", tmp_path / "new.duckdb")
    assert not (tmp_path / "new.duckdb").exists()
