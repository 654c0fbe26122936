"""Snapshots: so many, for so long, each holding its Version and the log behind it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from exo_stream.errors import SnapshotExpiredError
from exo_stream.limits import Limits
from exo_stream.snapshots import Snapshots
from exo_stream.storage.memory_engine import MemoryEngine

LIMITS = Limits(snapshots_max=2, snapshot_seconds_max=10)


async def test_a_snapshot_holds_its_version_until_it_is_closed() -> None:  # noqa: ASYNC124
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


async def test_only_so_many_are_held_at_a_time() -> None:  # noqa: ASYNC124
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
