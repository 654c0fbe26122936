"""The Versions that somebody holds: counted, timed, and released when held for too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import trio

from exo_stream.errors import SnapshotExpiredError, UnsupportedError
from exo_stream.limits import Limits
from exo_stream.storage.engine import Engine, Version


class SnapshotHolder(Protocol):
    """Where a reader gets a snapshot: all of a platform's, or one client's share of them."""

    def open(self) -> Snapshot:
        """Hold the current Version."""

    def hold(self, version: Version) -> Snapshot:
        """Hold a Version that is the current one, or pinned."""


class Snapshots:
    """Every held snapshot of one platform. While one is held, the log keeps what follows it:
    ``wanted_floor`` is where the log's floor is to move once nobody holds it back.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._held: dict[Snapshot, float] = {}
        self._followed: dict[Snapshot, float] = {}
        self._leased: dict[Snapshot, float] = {}
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
        _check_room(len(self._held), self._limits.snapshots_max, "snapshots are held")
        self._engine.pin(version)
        snapshot = Snapshot(self, version)
        self._held[snapshot] = trio.current_time() + self._limits.snapshot_seconds_max
        return snapshot

    def lease(self, version: Version) -> Snapshot:
        """Hold the current Version for reads of the program itself, however many it has open.

        It keeps no log behind it, and is bounded in time and memory like any other.
        """
        self._engine.pin(version)
        snapshot = Snapshot(self, version)
        self._leased[snapshot] = trio.current_time() + self._limits.snapshot_seconds_max
        return snapshot

    def share(self) -> SnapshotShare:
        """What one client may hold, so that it cannot take all there are."""
        return SnapshotShare(self, self._limits.snapshots_per_connection_max)

    def floors(self) -> list[int]:
        """For each held snapshot the batch that follows it, which the log must keep."""
        return [
            snapshot.version.frontier + 1
            for snapshots in (self._held, self._followed)
            for snapshot in snapshots
        ]

    def expire(self) -> None:
        """Release those that were held for longer than allowed; and the oldest, as long as what
        they keep in memory is more than allowed.
        """
        now = trio.current_time()
        for snapshots in (self._held, self._followed, self._leased):
            for snapshot in [held for held, deadline in snapshots.items() if deadline <= now]:
                self.release(snapshot)
        bytes_max = self._limits.snapshot_memory_bytes_max
        while oldest := self._oldest():
            if self._engine.held_bytes(self._versions()) <= bytes_max:
                return
            self.release(oldest)

    def _oldest(self) -> Snapshot | None:
        firsts = [next(iter(some)) for some in (self._held, self._leased) if some]
        return min(firsts, key=lambda snapshot: snapshot.sequence, default=None)

    def _versions(self) -> list[Version]:
        return [snapshot.version for snapshot in (*self._held, *self._leased)]

    def finish(self, snapshot: Snapshot) -> None:
        """Let go of the table it shows, but go on keeping the log behind it until its release,
        for no longer than it might have been held.
        """
        deadline = self._held.pop(snapshot, None)
        if deadline is not None:
            self._followed[snapshot] = deadline
            self._engine.unpin(snapshot.version)

    def release(self, snapshot: Snapshot) -> None:
        """Let go of a snapshot; a second time it does nothing."""
        if self._leased.pop(snapshot, None) is not None:
            self._engine.unpin(snapshot.version)
            return
        self.finish(snapshot)
        self._followed.pop(snapshot, None)

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether it is still held."""
        return snapshot in self._leased or snapshot in self._held


class SnapshotShare:
    """The snapshots of one client, which may hold so many at a time."""

    def __init__(self, snapshots: Snapshots, count_max: int) -> None:
        self._snapshots = snapshots
        self._count_max = count_max
        self._held: list[Snapshot] = []

    def open(self) -> Snapshot:
        """Hold the current Version; raises as ``Snapshots.hold`` does."""
        return self._keep(self._snapshots.open)

    def hold(self, version: Version) -> Snapshot:
        """Hold a Version that is the current one, or pinned; raises as ``Snapshots.hold`` does."""
        return self._keep(lambda: self._snapshots.hold(version))

    def _keep(self, hold: Callable[[], Snapshot]) -> Snapshot:
        self._held = [snapshot for snapshot in self._held if self._snapshots.holds(snapshot)]
        _check_room(len(self._held), self._count_max, "snapshots are held by this connection")
        snapshot = hold()
        self._held.append(snapshot)
        return snapshot


def _check_room(held: int, count_max: int, are_held: str) -> None:
    if held >= count_max:
        raise SnapshotExpiredError(f"{count_max} {are_held}; try again when one is let go")


class Snapshot:
    """One held Version: what it shows does not change until it is closed, or expires."""

    __slots__ = ("_snapshots", "version")

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

    def finish(self) -> None:
        """Let go of the table; the log behind it is kept until ``close``, or its time is up."""
        self._snapshots.finish(self)

    def close(self) -> None:
        """Let go."""
        self._snapshots.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
