"""A preflighted transaction: declared keys, validators under locks, and then one decision.

Phase one locks the stripes of the declared keys; phase two runs the validators, all at once, and
then the body, on one snapshot; phase three is the decision, which checks every version that was
read and writes state and events as one batch. The locks are let go when that is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exo_stream.canonical.changes import CommitInfo, PreflightResult
from exo_stream.canonical.contexts import Pairs
from exo_stream.canonical.preflight import Body, Preflighted
from exo_stream.canonical.ranges import StateIter
from exo_stream.canonical.stripes import LockManager
from exo_stream.canonical.writers import Writers
from exo_stream.limits import Limits
from exo_stream.pause import Pause
from exo_stream.snapshots import Snapshot
from exo_stream.storage.engine import Version


class SnapshotReading:
    """The state in a snapshot of this process."""

    __slots__ = ("_snapshot", "_writers", "limits")

    def __init__(self, writers: Writers, snapshot: Snapshot) -> None:
        self._writers = writers
        self._snapshot = snapshot
        self.limits: Limits = writers.ground.sources.limits

    async def read(self, key: bytes) -> tuple[int, bytes | None]:
        """A key's version and its value; 0 and None if it is absent."""
        row = await self._writers.state.row(self._snapshot.check(), key)
        self._snapshot.check()
        return (0, None) if row is None else (row.sequence, row.value)

    async def iter_state(
        self, own: Mapping[bytes, bytes | None], check: Callable[[], None]
    ) -> tuple[int, Pairs]:
        """Every pair, with ``own`` over them, and the sequence of the last commit before it."""

        def version() -> Version:
            check()
            return self._snapshot.check()

        state = self._writers.state
        _, sequence = await state.record(version())
        return sequence, StateIter(state.reads, version, b"", None, own=own)


class Transaction(Preflighted):
    """A transaction of the platform's own program; it locks what it has declared."""

    def __init__(self, writers: Writers, locks: LockManager, pause: Pause) -> None:
        super().__init__()
        self._writers = writers
        self._locks = locks
        self._pause = pause

    async def preflight(self) -> PreflightResult:
        """Run the validators and nothing else: whether the transaction would go ahead now."""
        with await self._locks.acquire_keys(self._declared), self._snapshot() as snapshot:
            return await self._judged(SnapshotReading(self._writers, snapshot))

    async def execute(self, body: Body) -> CommitInfo:
        """Lock, validate, run ``body`` and commit what it did, all of it or nothing.

        Raises LockTimeoutError, PreflightFailedError, UndeclaredKeyAccessError, what ``body``
        raises, SealedError, PausedError; TransactionConflictError if something that was read was
        written meanwhile past the locks: execute it again.
        """
        self._pause.enter()
        try:
            await self._writers.check_open()
            with await self._locks.acquire_keys(self._declared):
                with self._snapshot() as snapshot:
                    reading = SnapshotReading(self._writers, snapshot)
                    changes = await self._prepare(reading, body)
                return await self._writers.decide(changes)
        finally:
            self._pause.leave()

    def _snapshot(self) -> Snapshot:
        return self._writers.ground.sources.snapshots.lease(self._writers.version)
