"""The write slot, and those past it: one open write transaction, many that are becoming durable.

An open transaction has the slot alone. It hands its batch to the one writer and lets go of the
slot in the same step; the next reads over what was handed over and is not visible yet, so many
commits share one fdatasync. A preflighted transaction takes no slot: it is one decision. Only
while the slot's holder has given event ids away, or reads the whole state, do the others wait
for its hand-over, and it has waited for theirs; else the ids would not hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import outcome
import trio

from exo_stream.actors.orders import Decide
from exo_stream.canonical.changes import Changes, CommitInfo, Source, decision
from exo_stream.canonical.fair_lock import NOBODY, FairLock
from exo_stream.canonical.numbered import numbered
from exo_stream.canonical.state import StateReads
from exo_stream.errors import ExoStreamError, SealedError, TimedOutError
from exo_stream.ground import Ground
from exo_stream.payload import ENTRY_BYTES
from exo_stream.producers import Producer
from exo_stream.storage.engine import Version


class Handed:
    """A commit that waits with the one writer: what it changes, until that is visible."""

    __slots__ = ("next_event_id", "request", "source", "values")

    def __init__(
        self, changes: Changes, values: Mapping[bytes, bytes | None], next_event_id: int | None
    ) -> None:
        self.values = values
        self.next_event_id = next_event_id
        self.source = Source(self._settled)
        self.request: Decide[CommitInfo] = Decide(
            decide=decision(changes, self.source), size=size_of(changes)
        )

    @property
    def is_settled(self) -> bool:
        """Whether it is visible, or failed."""
        return self.request.reply.settled

    def _settled(self) -> CommitInfo | ExoStreamError | None:
        reply = self.request.reply
        if not reply.settled:
            return None
        match reply.result:
            case outcome.Value(CommitInfo() as info):
                return info
            case outcome.Error(ExoStreamError() as error):
                return error
            case unexpected:
                raise AssertionError(unexpected)


def size_of(changes: Changes) -> int:
    """What a commit holds in memory while it waits, in bytes."""
    size = ENTRY_BYTES * (1 + len(changes.operations) + len(changes.events))
    for key, value in changes.operations:
        size += len(key) + (0 if value is None else len(value))
    return size + sum(map(len, changes.events))


class Writers:
    """Everybody who writes to one canonical store."""

    def __init__(self, ground: Ground, state: StateReads, wait_ms: int) -> None:
        self.ground = ground
        self.state = state
        self.slot = FairLock()
        self.wait_ms = wait_ms
        self._handed: deque[Handed] = deque()
        self._latest: dict[bytes, Handed] = {}
        self._deciding = 0
        self._left_behind = False
        self._alone = NOBODY
        self._alone_over = trio.Event()

    @property
    def version(self) -> Version:
        """What is visible now."""
        return self.ground.sources.reads.engine.version

    async def check_open(self) -> None:  # noqa: ASYNC910  # what follows is a checkpoint
        """Raise SealedError if the store is sealed, before anything is begun in vain.

        Whether it is when it comes to writing, the decision says.
        """
        record = self.state.record_at_hand(self.version)
        if record is None:
            record, _ = await self.state.record(self.version)
        if record.sealed:
            raise SealedError(record.sealed - 1)

    async def take_slot(self, name: str) -> None:
        """Have the slot alone, in order of asking. Raises TimedOutError after ``wait_ms``."""
        if not await self.slot.acquire(name, self._deadline()):
            raise TimedOutError(self.wait_ms, self.slot.holder)

    def free_slot(self) -> None:
        """Let the next one in, and who waited for ids or the whole state to be free again."""
        if self._alone:
            self._alone = NOBODY
            self._alone_over.set()
        self.slot.release()

    def forget_settled(self) -> None:
        """Drop what has become visible, or failed: from here on the table tells."""
        while self._handed and self._handed[0].is_settled:
            handed = self._handed.popleft()
            for key in handed.values:
                if self._latest.get(key) is handed:
                    del self._latest[key]

    def over(self, key: bytes) -> Handed | None:
        """Who has written ``key`` last and is not visible yet, as of ``forget_settled``."""
        return self._latest.get(key)

    def last_ids(self) -> Handed | None:
        """Who has given the last event ids and is not decided yet."""
        for handed in reversed(self._handed):
            if handed.next_event_id is not None and not handed.is_settled:
                return handed
        return None

    async def stand_alone(self) -> None:
        """For the slot's holder: keep decisions of others back until it lets go of the slot.

        Returns when those that were under way are decided.
        """
        if self._alone:
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        # Those who waited for the holder before this one have been woken: they go first.
        await trio.lowlevel.checkpoint()
        self._alone = self.slot.holder
        self._alone_over = trio.Event()
        if self._deciding or self._left_behind:
            await self.settle()

    async def settle(self) -> None:
        """Return once everything handed over before has been decided, and is durable."""
        self._left_behind = True
        await self.ground.settle()
        self._left_behind = False

    async def hand_over(self, handed: Handed) -> None:
        """Give a commit of the slot's holder to the one writer, and let go of the slot.

        Cancelled, it never happens, and the slot is free as well.
        """
        try:
            await self.ground.writes.post(handed.request)
            self.forget_settled()
            self._handed.append(handed)
            for key in handed.values:
                self._latest[key] = handed
        finally:
            self.free_slot()

    async def decide(self, changes: Changes, producer: Producer | None = None) -> CommitInfo:
        """Have changes decided beside the slot; they wait for a holder that stands alone.

        With a ``producer`` they take effect once, however often they are handed in.
        """
        if self._alone:
            await self._wait_for_others()
        decide = decision(changes) if producer is None else numbered(changes, producer)
        request: Decide[CommitInfo] = Decide(decide=decide, size=size_of(changes))
        self._deciding += 1
        try:
            return await self.ground.writes.ask(request)
        finally:
            self._deciding -= 1
            # Given up by its caller, it may still be decided.
            if not request.reply.settled:
                self._left_behind = True

    async def _wait_for_others(self) -> None:  # noqa: ASYNC910  # there is somebody to wait for
        deadline = self._deadline()
        while self._alone:
            holder = self._alone
            with trio.move_on_at(deadline) as patience:
                await self._alone_over.wait()
            if patience.cancelled_caught:
                raise TimedOutError(self.wait_ms, holder)

    def _deadline(self) -> float:
        return trio.current_time() + self.wait_ms / 1000
