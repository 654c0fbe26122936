"""The Versions that somebody holds: counted, timed, and released when held for too long."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import trio

from exo_stream.errors import SnapshotExpiredError, UnsupportedError
from exo_stream.limits import Limits
from exo_stream.storage.engine import Engine, Version


class Snapshots:
    """Every held snapshot of one platform. While one is held, the log keeps what follows it:
    ``wanted_floor`` is where the log's floor is to move once nobody holds it back.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._held: dict[Snapshot, float] = {}
        self.wanted_floor = 0

    def open(self) -> Snapshot:
        """Hold the current Version; raises as ``hold`` does."""
        return self.hold(self._engine.version)

    def hold(self, version: Version) -> Snapshot:
        """Hold a Version that is the current one, or pinned.

        Raises SnapshotExpiredError if as many as allowed are held already, UnsupportedError if
        the backend cannot hold any.
        """
        if self._engine.own_sequences:
            raise UnsupportedError("this backend has only the nine methods, and no snapshots")
        self.expire()
        if len(self._held) >= self._limits.snapshots_max:
            raise SnapshotExpiredError(
                f"{self._limits.snapshots_max} snapshots are held; try again when one is let go"
            )
        self._engine.pin(version)
        snapshot = Snapshot(self, version)
        self._held[snapshot] = trio.current_time() + self._limits.snapshot_seconds_max
        return snapshot

    def floors(self) -> list[int]:
        """For each held snapshot the batch that follows it, which the log must keep."""
        return [snapshot.version.frontier + 1 for snapshot in self._held]

    def expire(self) -> None:
        """Release those that were held for longer than allowed."""
        now = trio.current_time()
        for snapshot in [held for held, deadline in self._held.items() if deadline <= now]:
            self.release(snapshot)

    def release(self, snapshot: Snapshot) -> None:
        """Let go of a snapshot; a second time it does nothing."""
        if self._held.pop(snapshot, None) is not None:
            self._engine.unpin(snapshot.version)

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether it is still held."""
        return snapshot in self._held


class Snapshot:
    """One held Version: what it shows does not change until it is closed, or expires."""

    def __init__(self, snapshots: Snapshots, version: Version) -> None:
        self.version = version
        self._snapshots = snapshots

    @property
    def sequence(self) -> int:
        """The sequence number it shows the table at."""
        return self.version.frontier

    def check(self) -> Version:
        """The Version to read at. Raises SnapshotExpiredError if it is no longer held."""
        if not self._snapshots.holds(self):
            raise SnapshotExpiredError(f"the snapshot at {self.sequence} is no longer held")
        return self.version

    def close(self) -> None:
        """Let go."""
        self._snapshots.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
