"""Subscriptions over what every face stands on: what their routes ask, and what is remembered."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from random import uniform
from typing import TypeVar

import trio

from exo_stream.actors.mailbox import Bell
from exo_stream.decision import Decision, Verdict, View, Write
from exo_stream.ground import Ground
from exo_stream.model import Keyspace
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.subscriptions import making
from exo_stream.streams.subscriptions.finding import Finding, Found
from exo_stream.streams.subscriptions.looking import Denied
from exo_stream.streams.subscriptions.making import Made
from exo_stream.streams.subscriptions.pending import Pending
from exo_stream.streams.subscriptions.record import Kind, StreamInfo, SubscriptionConfig
from exo_stream.streams.subscriptions.step import Attempt, State
from exo_stream.streams.subscriptions.tokens import SECRET_BYTES, Scope
from exo_stream.streams.subscriptions.waking import WAKE_STREAMS_MAX, Report, Waking
from exo_stream.streams.upkeep import Upkeep

T = TypeVar("T")

LINK_BYTES = 400
"""What a link costs while it waits to be written, about."""


class Kept:
    """A subscription that somebody looks after: what is pending, and a bell for changes."""

    def __init__(self) -> None:
        self.pending = Pending()
        self.bell = Bell()
        self.is_stirred = False
        """Whether something was done to it, beside appends."""
        self.is_renamed = False
        """Whether streams were named to it, or taken from it."""


class Subscriptions:
    """The subscriptions of one opened platform.

    Whoever looks after them holds ``keeping``, so that only one does; ``kept`` is of those that
    are looked after now, ``bell`` rings when another was made.
    """

    def __init__(self, ground: Ground, accesses: Accesses, upkeep: Upkeep) -> None:
        self._ground = ground
        self._upkeep = upkeep
        self._accesses = accesses
        self._secret: bytes | None = None
        self._waking = Waking(accesses, ground.sources.limits)
        self.finding = Finding(ground, accesses)
        self.keeping = trio.Lock()
        self.kept: dict[str, Kept] = {}
        self.bell = Bell()

    @property
    def now(self) -> int:
        """The time that leases go by, in microseconds since the Unix epoch."""
        return self._ground.clock()

    async def secret(self) -> bytes:
        """The secret of this file; made, and durable, when it is first asked for."""
        if self._secret is None:
            candidate = secrets.token_bytes(SECRET_BYTES)
            self._secret = await self._ground.decide(making.keep_secret(candidate))
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        return self._secret

    async def create(
        self, subscription_id: str, config: SubscriptionConfig, base_url: str
    ) -> Made | Denied:
        """Create a subscription, from the present ends of its streams on."""
        links = await self.finding.ends(config.pattern, config.streams)
        decision = making.make(subscription_id, config, base_url, links)
        made = await self._ground.decide(decision, size=LINK_BYTES * (1 + len(links)))
        self.bell.ring()
        return made

    async def delete(self, subscription_id: str) -> None:
        """Delete a subscription, if there is one."""
        while await self._ground.decide(making.unmake(subscription_id), frees=True):
            pass
        self.stir(subscription_id)

    async def name_streams(self, subscription_id: str, names: Sequence[str]) -> Denied | None:
        """Name streams to a subscription, from their present ends on."""
        decision = making.name_streams(subscription_id, names, self._accesses)
        denied = await self._ground.decide(decision, size=LINK_BYTES * len(names))
        self._rename(subscription_id)
        return denied

    async def unname_stream(self, subscription_id: str, name: str) -> Denied | None:
        """Take a stream from a subscription."""
        denied = await self._ground.decide(making.unname_stream(subscription_id, name))
        self._rename(subscription_id)
        return denied

    async def forget_streams(self, subscription_id: str, names: Sequence[str]) -> None:
        """Let go of places in streams that are no more."""
        await self._ground.decide(making.forget_streams(subscription_id, names), frees=True)

    async def claim(self, subscription_id: str, worker: str) -> State | Denied:
        """Have a worker take what is pending."""
        names = self._names(subscription_id)
        answer = await self._decide(
            self._waking.claim(self.attempt(subscription_id, names), worker)
        )
        if isinstance(answer, Denied) and answer.code == "NO_PENDING_WORK":
            # What was appended a moment ago may not have been heard of yet.
            names = await self._look_for_some(subscription_id)
            attempt = self.attempt(subscription_id, names)
            answer = await self._decide(self._waking.claim(attempt, worker))
        self.stir(subscription_id)
        return answer

    async def report(self, subscription_id: str, kind: Kind, report: Report) -> State | Denied:
        """What a subscriber says of its wake."""
        attempt = self.attempt(subscription_id, self._names(subscription_id))
        answer = await self._decide(self._waking.report(attempt, kind, report))
        self.stir(subscription_id)
        return answer

    async def advance(self, subscription_id: str, names: Sequence[str]) -> State | None:
        """Do what the time or an append makes necessary; None if it is no more."""
        return await self._decide(self._waking.advance(self.attempt(subscription_id, names)))

    async def told(
        self,
        subscription_id: str,
        scope: Scope,
        wake_id: str,
        done: Sequence[StreamInfo] | None,
    ) -> None:
        """A webhook has been taken; with ``done`` what it told of has been dealt with."""
        attempt = self.attempt(subscription_id, self._names(subscription_id))
        await self._decide(self._waking.told(attempt, scope, wake_id, done))

    async def failed(self, subscription_id: str, scope: Scope, wake_id: str) -> State | None:
        """A webhook has not been taken."""
        attempt = self.attempt(subscription_id, ())
        return await self._decide(self._waking.failed(attempt, scope, wake_id))

    def attempt(self, subscription_id: str, names: Iterable[str]) -> Attempt:
        """What a decision may not make up itself."""
        wake_id = f"w_{secrets.token_urlsafe(16)}"
        return Attempt(subscription_id, tuple(names), wake_id, uniform(-1, 1))  # noqa: S311  a wait

    def stir(self, subscription_id: str) -> None:
        """Whoever looks after a subscription is to look at it again."""
        kept = self.kept.get(subscription_id)
        if kept is not None:
            kept.is_stirred = True
            kept.bell.ring()

    def _rename(self, subscription_id: str) -> None:
        kept = self.kept.get(subscription_id)
        if kept is not None:
            kept.is_renamed = True
            self.stir(subscription_id)

    def _names(self, subscription_id: str) -> Sequence[str]:
        kept = self.kept.get(subscription_id)
        return [] if kept is None else kept.pending.first(WAKE_STREAMS_MAX)

    async def _look_for_some(self, subscription_id: str) -> list[str]:
        """Some streams with something pending, if there are any."""
        subscription = await self.finding.subscription(subscription_id)
        after: str | None = ""
        while subscription is not None and after is not None:
            found: Found = await self.finding.page(subscription_id, subscription, after)
            names = [info.path for info in found.streams if info.has_pending]
            if names:
                return names[:WAKE_STREAMS_MAX]
            after = found.resume
        return []

    async def _decide(self, decide: Decision[T]) -> T:
        """The writer's answer; upkeep hears of what an event in a wake stream makes necessary."""
        noted: list[bytes] = []

        def noting(view: View, now: int) -> Verdict[T]:
            verdict = decide(view, now)
            noted.clear()
            if isinstance(verdict, Write):
                noted.extend(
                    key
                    for keyspace, key, value in verdict.entries
                    if keyspace == Keyspace.STREAM_UPKEEP and value is not None
                )
            return verdict

        answer = await self._ground.decide(noting)
        self._upkeep.note(noted)
        return answer
