"""What the faces stand on: the one writer to decide, Versions to read at, one log to follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import outcome
import trio

from exo_stream.actors.keeping import Keeping
from exo_stream.actors.mailbox import Mailbox
from exo_stream.actors.orders import AnyDecide, Decide, MoveFloor, Work
from exo_stream.backups import Companion
from exo_stream.decision import Answer, Decision
from exo_stream.errors import (
    InvalidRequestError,
    NotVisibleYetError,
    OverloadedError,
    PausedError,
    PlatformClosedError,
    StoreError,
)
from exo_stream.model import SEQUENCE_MAX
from exo_stream.pause import Pause
from exo_stream.storage.engine import Version
from exo_stream.subscription import Sources

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ground:
    """What a face of the platform may use, and all of it.

    ``clock`` answers microseconds since the Unix epoch.
    """

    sources: Sources
    writes: Mailbox[AnyDecide]
    work: Mailbox[Work]
    clock: Callable[[], int]
    keeping: Keeping
    pause: Pause = field(default_factory=Pause)
    """Of the writes of every face; whoever writes past ``decide`` enters it, and leaves it."""
    companions: list[Companion] = field(default_factory=list)
    """The projections that run: a backup takes them along."""

    async def decide(self, decide: Decision[T], *, size: int = 0, frees: bool = False) -> T:
        """Have the one writer decide, and return the decision's answer once it is durable.

        ``size`` is what the request holds in memory while it waits, in bytes; ``frees`` says that
        it only removes, so that it passes the low-disk mark.
        """
        self.pause.enter()
        try:
            return await self.writes.ask(Decide(decide=decide, size=size, frees=frees))
        finally:
            self.pause.leave()

    async def decide_all(
        self, decisions: Sequence[tuple[Decision[T], int]]
    ) -> list[outcome.Outcome[T]]:
        """Hand over several decisions, each with its size, at once; what became of each."""
        try:
            self.pause.enter()
        except PausedError as error:
            await trio.lowlevel.checkpoint()
            return [outcome.Error(error.again()) for _ in decisions]
        try:
            return await self.writes.ask_all(
                [Decide(decide=decide, size=size) for decide, size in decisions]
            )
        finally:
            self.pause.leave()

    async def settle(self) -> None:
        """Return once everything that was handed over before has been decided, and is durable."""
        await self.writes.ask(Decide(decide=lambda _view, _now: Answer(None), frees=True))

    async def move_floor(self, cutoff: int) -> int:
        """Evict every batch of the log below ``cutoff``; answer how many batches that were."""
        self.pause.enter()
        try:
            return await self.work.ask(MoveFloor(cutoff=cutoff))
        finally:
            self.pause.leave()

    async def apply_retention(self) -> None:
        """Evict what the rules in force do not keep. What cannot be told or written now is left
        to compaction, which comes back to it every second.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        with suppress(OverloadedError, PausedError, StoreError):
            cutoff = await self.keeping.cutoff(self.sources.reads, self.clock())
            await self.move_floor(cutoff)

    async def version(self, min_sequence: int = 0, *, wait: bool = True) -> Version:
        """The current Version, once it shows ``min_sequence``; pin it across an await.

        Without ``wait`` it raises NotVisibleYetError at once if it does not show that yet.
        """
        if type(min_sequence) is not int or not 0 <= min_sequence <= SEQUENCE_MAX:
            raise InvalidRequestError("a sequence number is an unsigned 64-bit integer")
        if self.writes.closed:
            await trio.lowlevel.checkpoint()
            raise PlatformClosedError("the platform is closed")
        frontier = self.sources.frontier
        if min_sequence > frontier.visible:
            if not wait:
                await trio.lowlevel.checkpoint()
                raise NotVisibleYetError(frontier.visible, min_sequence)
            await frontier.wait_visible(min_sequence)
        return self.sources.reads.engine.version  # noqa: ASYNC910  # the read that follows is one
