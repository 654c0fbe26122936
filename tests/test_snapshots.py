"""Snapshots: so many, for so long, each holding its Version and the log behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from exo_stream.errors import SnapshotExpiredError
from exo_stream.limits import Limits
from exo_stream.snapshots import Snapshots
from exo_stream.storage.duckdb_engine import open_duckdb_engine
from exo_stream.storage.memory_engine import MemoryEngine

LIMITS = Limits(snapshots_max=2, snapshot_seconds_max=10)


async def test_a_snapshot_holds_its_version_until_it_is_closed() -> None:  # noqa: ASYNC124  it needs trio's clock
    engine = MemoryEngine()
    snapshots = Snapshots(engine, LIMITS)
    engine.put_batch([(b"k", b"old")])
    with snapshots.open() as snapshot:
        engine.put_batch([(b"k", b"new")])
        row = engine.lookup(snapshot.check(), b"\x00k")
        assert row is not None
        assert snapshot.sequence == 1
        assert snapshots.floors() == [2]
        assert engine._pins.frontiers == [1]
    assert snapshots.floors() == []
    assert engine._pins.frontiers == []
    snapshot.close()  # a second time it does nothing
    with pytest.raises(SnapshotExpiredError, match="at 1 is no longer held"):
        snapshot.check()


async def test_only_so_many_are_held_at_a_time() -> None:  # noqa: ASYNC124  it needs trio's clock
    snapshots = Snapshots(MemoryEngine(), LIMITS)
    first = snapshots.open()
    snapshots.open()
    with pytest.raises(SnapshotExpiredError, match="2 snapshots are held"):
        snapshots.open()
    first.close()
    snapshots.open()


async def test_one_that_is_held_too_long_gives_way(autojump_clock: MockClock) -> None:
    engine = MemoryEngine()
    snapshots = Snapshots(engine, LIMITS)
    old, _ = snapshots.open(), snapshots.open()
    await trio.sleep(9.5)
    snapshots.expire()
    assert snapshots.holds(old)
    await trio.sleep(0.5)
    new = snapshots.open()  # there is room again, though nobody swept
    assert not snapshots.holds(old)
    assert snapshots.holds(new)
    with pytest.raises(SnapshotExpiredError):
        old.check()
    old.close()
    assert engine._pins.frontiers == [0]


async def test_one_connection_cannot_take_all_there_are() -> None:  # noqa: ASYNC124  it needs trio's clock
    limits = Limits(snapshots_max=3, snapshots_per_connection_max=2)
    snapshots = Snapshots(MemoryEngine(), limits)
    greedy, other = snapshots.share(), snapshots.share()
    first = greedy.open()
    greedy.hold(first.version)
    with pytest.raises(SnapshotExpiredError, match="2 snapshots are held by this connection"):
        greedy.open()
    other.open()
    with pytest.raises(SnapshotExpiredError, match="3 snapshots are held; try"):
        other.open()
    first.close()
    greedy.open()


async def test_what_they_keep_in_memory_is_bounded_and_the_oldest_gives_way(  # noqa: ASYNC124  it needs trio's clock
    tmp_path: Path,
) -> None:
    limits = Limits(memtable_entries_max=4, snapshot_memory_bytes_max=10_000)
    engine = open_duckdb_engine(tmp_path / "store.duckdb", limits=limits)
    snapshots = Snapshots(engine, limits)
    held = []
    for number in range(5):
        held.append(snapshots.open())
        engine.put_batch([(b"%d" % key, b"x" * 1_000) for key in range(number, number + 4)])
    assert engine.held_bytes(snapshot.version for snapshot in held) > 10_000
    snapshots.expire()
    alive = [snapshots.holds(snapshot) for snapshot in held]
    assert alive == sorted(alive)  # the oldest went
    assert not alive[0]
    assert alive[-1]
    assert engine.held_bytes(s.version for s in held if snapshots.holds(s)) <= 10_000
    engine.close()


async def test_the_log_behind_a_snapshot_outlives_its_table_but_not_its_time(
    autojump_clock: MockClock,
) -> None:
    engine = MemoryEngine()
    snapshots = Snapshots(engine, LIMITS)
    read = snapshots.open()
    read.finish()
    assert not snapshots.holds(read)
    assert engine._pins.frontiers == []
    assert snapshots.floors() == [1]
    snapshots.open()
    snapshots.open()  # it takes no place any more
    await trio.sleep(10)
    snapshots.expire()
    assert snapshots.floors() == []
    read.close()
