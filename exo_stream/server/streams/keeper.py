"""The keeper of one subscription: has made what is due, and tells of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from exo_stream.platform import Platform
from exo_stream.server.streams.hearing import Hearing
from exo_stream.streams.subscriptions.record import Subscription, Wake
from exo_stream.streams.subscriptions.step import State
from exo_stream.streams.subscriptions.subscriptions import Kept
from exo_stream.streams.subscriptions.waking import WAKE_STREAMS_MAX

PATIENCE_SECONDS_MAX: Final = 3600
"""It looks at its subscription at least so often, whatever it hears."""

FORGOTTEN_MAX: Final = 256
"""Streams that one decision lets go of."""

_SECOND: Final = 1_000_000

Deliver = Callable[[str, State], Awaitable[None]]


class Keeper:
    """Looks after one subscription. What it remembers is a hint, and is found again when lost."""

    def __init__(
        self, platform: Platform, subscription_id: str, kept: Kept, deliver: Deliver
    ) -> None:
        self._sources = platform.sources
        self._subscriptions = platform.streams.subscriptions
        self._id = subscription_id
        self._kept = kept
        self._deliver = deliver

    async def run(self) -> None:
        """Look after it until it is deleted."""
        await trio.lowlevel.checkpoint_if_cancelled()
        finding = self._subscriptions.finding
        while (subscription := await finding.subscription(self._id)) is not None:
            self._kept.is_renamed = False
            pattern = subscription.config.pattern
            hearing = Hearing(self._sources.interest, self._sources.frontier, self._kept, pattern)
            try:
                # First it hears, then it looks: nothing falls in between.
                hearing.open()
                hearing.name(await finding.explicit(self._id))
                await self._find_all(subscription)
                await self._look_after(subscription)
            finally:
                hearing.close()

    async def _find_all(self, subscription: Subscription) -> None:
        """Find every stream with something pending, and let go of those that are no more."""
        pending = self._kept.pending
        pending.is_whole = True  # first: what does not fit from here on says so
        await trio.lowlevel.checkpoint_if_cancelled()
        after: str | None = ""
        while after is not None:
            found = await self._subscriptions.finding.page(self._id, subscription, after)
            pending.add([info.path for info in found.streams if info.has_pending])
            await self._forget(found.stale)
            after = found.resume

    async def _look_after(self, subscription: Subscription) -> None:
        """Until it is deleted, or other streams are named to it."""
        kept, pending = self._kept, self._kept.pending
        await trio.lowlevel.checkpoint_if_cancelled()
        while not kept.is_renamed:
            kept.is_stirred = False
            await self._forget(pending.take_gone())
            if not pending and not pending.is_whole:
                await self._find_all(subscription)
            names, heard = pending.first(WAKE_STREAMS_MAX), pending.heard
            state = await self._subscriptions.advance(self._id, names)
            if state is None or state.subscription.incarnation != subscription.incarnation:
                return
            pending.learn(state.streams, names, heard)
            if self._is_due(state):
                await self._deliver(self._id, state)
            else:
                await self._wait(state.wake)

    def _is_due(self, state: State) -> bool:
        wake, kind = state.wake, state.subscription.config.kind
        return kind == "webhook" and wake is not None and self._has_come(wake.due_at)

    def _has_come(self, at: int) -> bool:
        return 0 < at <= self._subscriptions.now

    async def _wait(self, wake: Wake | None) -> None:
        """Until there is something to do."""
        kept = self._kept
        await trio.lowlevel.checkpoint_if_cancelled()
        while not kept.is_stirred:
            seconds: float = PATIENCE_SECONDS_MAX
            if wake is None:
                if kept.pending or kept.pending.gone:
                    return
            elif at := wake.due_at or wake.lease_until:
                if self._has_come(at):
                    return
                seconds = min(seconds, (at - self._subscriptions.now) / _SECOND)
            with trio.move_on_after(seconds) as patience:
                await kept.bell.wait()
            if patience.cancelled_caught and seconds == PATIENCE_SECONDS_MAX:
                return

    async def _forget(self, names: Sequence[str]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        for at in range(0, len(names), FORGOTTEN_MAX):
            part = names[at : at + FORGOTTEN_MAX]
            await self._subscriptions.forget_streams(self._id, part)
