"""A preflighted transaction from afar: validators and body run here, the server decides once.

No lock is held for it, for whoever holds one may be gone. The keys it has declared are looked at
all at once when the first of them is read, so validators and body see one moment; what they have
read is judged by its versions, and whoever was overtaken is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import trio

from exo_stream.canonical.changes import CommitInfo, PreflightResult
from exo_stream.canonical.contexts import Pairs
from exo_stream.canonical.preflight import Body, Preflighted
from exo_stream.client.attempts import ATTEMPTS_MAX, until_it_holds
from exo_stream.client.link import Link
from exo_stream.client.state_calls import commit, read_state
from exo_stream.client.state_ranges import RemoteSnapshot, RemoteStateIter
from exo_stream.errors import ExoStreamError, LimitExceededError, TransactionConflictError

VALUES_MAX: Final = 64
"""So many declared keys are looked at with their values; of more only versions, and the values
one by one as they are asked for."""


class RemoteReading:
    """The declared keys as they were at one sequence, which nobody holds.

    ``failure`` is what kept it from telling: a conflict if it was overtaken, or a lost server.
    """

    def __init__(self, link: Link, declared: Collection[bytes]) -> None:
        self.limits = link.limits
        self.failure: ExoStreamError | None = None
        self._link = link
        self._declared = tuple(declared)
        self._looking = trio.Lock()
        self._versions: dict[bytes, int] = {}
        self._values: dict[bytes, bytes] = {}
        self._changed: int | None = None
        """The sequence of the last commit before what was looked at."""
        self._is_whole = False
        """Whether the whole state is of that moment, so that no other commit may come between."""
        self._snapshots: list[RemoteSnapshot] = []

    async def read(self, key: bytes) -> tuple[int, bytes | None]:
        """A declared key's version and its value; 0 and None if it is absent."""
        try:
            async with self._looking:
                if key not in self._versions:
                    await self._look()
                if self._versions[key] and key not in self._values:
                    await self._fetch(key)
        except ExoStreamError as error:
            self.failure = error
            raise
        return self._versions[key], self._values.get(key)

    async def iter_state(
        self, own: Mapping[bytes, bytes | None], check: Callable[[], None]
    ) -> tuple[int, Pairs]:
        """Every pair, with ``own`` over them, and the sequence of the last commit before it."""
        snapshot = RemoteSnapshot(self._link)
        await snapshot.open()
        self._snapshots.append(snapshot)
        changed = snapshot.opened.changed
        self._is_whole = True
        self._stand_at(changed)
        pairs = RemoteStateIter(self._link, b"", None, snapshot=snapshot, own=own, check=check)
        return changed, pairs

    def close(self) -> None:
        """Have the server let go of what it holds for ``iter_state``."""
        for snapshot in self._snapshots:
            snapshot.close()

    async def _look(self) -> None:
        """Every declared key in one look, for they must be of one moment."""
        keys, with_values = self._declared, len(self._declared) <= VALUES_MAX
        try:
            reply = await read_state(self._link, keys, values=with_values)
        except LimitExceededError:
            if not with_values:
                raise
            with_values = False  # together they are too much for one message
            reply = await read_state(self._link, keys, values=False)
        self._stand_at(reply.changed)
        for key, (version, value) in zip(keys, reply.values, strict=True):
            self._versions[key] = version
            if with_values and value is not None:
                self._values[key] = value

    async def _fetch(self, key: bytes) -> None:
        reply = await read_state(self._link, [key], values=True)
        [(found, value)] = reply.values
        expected = self._versions[key]
        if found != expected or value is None:
            raise TransactionConflictError(key, expected, found)
        self._values[key] = value

    def _stand_at(self, changed: int) -> None:
        if self._is_whole and self._changed is not None and changed != self._changed:
            raise TransactionConflictError(b"", self._changed, changed)
        self._changed = changed


class RemoteTransaction(Preflighted):
    """Built as the platform's own is, and executed against a server.

    ``execute`` takes functions, so it runs them again when it is in conflict, as ``transact``
    does: validators and body must be fit to be run several times.
    """

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    async def preflight(self) -> PreflightResult:
        """Run the validators and nothing else: whether the transaction would go ahead now."""
        return await until_it_holds(self._look_over, ATTEMPTS_MAX)

    async def execute(self, body: Body, *, attempts_max: int = ATTEMPTS_MAX) -> CommitInfo:
        """Validate, run ``body`` and commit what it did, all of it or nothing.

        Raises PreflightFailedError, UndeclaredKeyAccessError, what ``body`` raises, SealedError,
        PausedError; the TransactionConflictError of the last of ``attempts_max``; if the
        connection is lost for good OutcomeUnknownError, or UnavailableError before it was sent.
        """
        return await until_it_holds(lambda: self._attempt(body), attempts_max)

    async def _look_over(self) -> PreflightResult:
        reading = RemoteReading(self._link, self._declared)
        result = await self._judged(reading)
        if reading.failure is not None:  # no objection of a validator's
            raise reading.failure.again()
        return result

    async def _attempt(self, body: Body) -> CommitInfo:
        reading = RemoteReading(self._link, self._declared)
        try:
            changes = await self._prepare(reading, body)
        finally:
            reading.close()
        return await commit(self._link, changes)
