"""One evaluation of a decision about a wake: what it sees, and what it has changed so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from exo_stream.decision import Answer, Need, Verdict, Write
from exo_stream.model import Entry
from exo_stream.streams.subscriptions.looking import Denied, Looked
from exo_stream.streams.subscriptions.record import (
    MILLISECOND,
    Link,
    StreamInfo,
    Subscription,
    Wake,
)
from exo_stream.streams.subscriptions.tokens import Scope

RETRY_SECONDS_MAX: Final = 60
"""What is waited after a failure: a second, then twice as long each time, up to this."""
RETRY_JITTER: Final = 0.2
"""By what part a wait is longer or shorter, so that not everybody comes back at once."""
SECOND: Final = 1_000_000

T = TypeVar("T")

Tell = Callable[[str, bytes], Sequence[Entry] | Need | None]
"""The entries that append an event to a stream of JSON; None if that cannot be."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a decision needs and may not make up itself: the streams that seem to have something
    pending, an id for a wake it may make, and a number from -1 to 1 that nobody could foresee.
    """

    subscription_id: str
    names: Sequence[str]
    wake_id: str
    jitter: float


@dataclass(frozen=True, slots=True)
class State:
    """A subscription after a decision, and the streams that were looked at."""

    subscription: Subscription
    streams: tuple[StreamInfo, ...]

    @property
    def wake(self) -> Wake | None:
        """The wake under way."""
        return self.subscription.wake

    @property
    def scope(self) -> Scope:
        """What a token for that wake is good for."""
        return Scope(self.subscription.incarnation, self.subscription.generation)


@dataclass(frozen=True, slots=True)
class Ack:
    """Everything up to ``position`` of a stream has been dealt with."""

    name: str
    position: int


class Step:
    """What one call of a decision does to one subscription."""

    def __init__(
        self, attempt: Attempt, now: int, subscription: Subscription, looked: Looked, tell: Tell
    ) -> None:
        self._attempt = attempt
        self._now = now
        self._was = subscription
        self._tell = tell
        self._event: Sequence[Entry] = ()
        self._links: list[Entry] = []
        self._need: Need | None = None
        self.subscription = subscription
        self.looked = looked

    @property
    def state(self) -> State:
        """What is answered."""
        return State(self.subscription, tuple(self.looked.infos.values()))

    def verdict(self, answer: T) -> Verdict[T]:
        """What it all comes to."""
        if self._need is not None:
            return self._need
        # A batch about a stream begins with that stream's record.
        entries = [*self._event, *self._links]
        if self.subscription != self._was:
            entries.append(self.subscription.entry(self._attempt.subscription_id))
        return Write(entries, answer) if entries else Answer(answer)

    def current(self, scope: Scope, wake_id: str) -> Wake | None:
        """The wake under way, if it is this one, and its lease has not ended."""
        subscription, wake = self.subscription, self.subscription.wake
        if (
            wake is None
            or wake.id != wake_id
            or scope != Scope(subscription.incarnation, subscription.generation)
            or self._has_ended(wake)
        ):
            return None
        return wake

    def end_lease(self) -> None:
        """Take the wake from whoever has had it for too long."""
        wake = self.subscription.wake
        if wake is not None and self._has_ended(wake):
            self.finish()

    def finish(self) -> None:
        """No wake is under way."""
        self.subscription = self.subscription._replace(wake=None)

    def forgive(self) -> None:
        """It has been told, or somebody has come for it."""
        self.subscription = self.subscription._replace(failures=0)

    def lease(self, wake: Wake, holder: str | None) -> None:
        """Somebody has the wake from now on."""
        until = self._now + self.subscription.config.lease_ttl_ms * MILLISECOND
        wake = Wake(wake.id, 0, until, holder)
        self.subscription = self.subscription._replace(wake=wake)

    def make_wake(self) -> None:
        """A wake of its own generation, to be told now."""
        self.subscription = self.subscription._replace(
            generation=self.subscription.generation + 1,
            wake=Wake(self._attempt.wake_id, self._now),
        )

    def wake_if_pending(self) -> None:
        """A wake, if there is anything to do."""
        if self.looked.pending:
            self.make_wake()
            self.tell()

    def tell(self) -> None:
        """Tell the wake stream of the wake that is due; a webhook is told from elsewhere."""
        subscription, wake = self.subscription, self.subscription.wake
        assert wake is not None
        if subscription.config.kind != "pull-wake" or not wake.due_at or wake.due_at > self._now:
            return
        pending = self.looked.pending
        event = {
            "type": "wake",
            "subscription_id": self._attempt.subscription_id,
            "stream": pending[0].path if pending else "",
            "generation": subscription.generation,
            "ts": self._now // MILLISECOND,
        }
        data = json.dumps(event, separators=(",", ":")).encode()
        entries = self._tell(subscription.config.target, data)
        if isinstance(entries, Need):
            self._need = entries
        elif entries is None:
            self.retry(wake)
        else:
            self._event = entries
            self.forgive()
            self.subscription = self.subscription._replace(wake=wake._replace(due_at=0))

    def retry(self, wake: Wake) -> None:
        """It could not be told: again later."""
        failures = self.subscription.failures + 1
        seconds = min(2 ** min(failures - 1, 10), RETRY_SECONDS_MAX)
        wait = round(seconds * SECOND * (1 + RETRY_JITTER * self._attempt.jitter))
        self.subscription = self.subscription._replace(
            failures=failures, wake=wake._replace(due_at=self._now + wait)
        )

    def objection(self, acks: Sequence[Ack]) -> Denied | None:
        """Why these cannot be acknowledged."""
        for ack in acks:
            info = self.looked.infos.get(ack.name)
            if info is None:
                return Denied("INVALID_OFFSET", "an ack of a stream that is not subscribed to")
            if ack.position < (info.acked or 0):
                return Denied("INVALID_OFFSET", "an ack before what has been acknowledged")
            if ack.position > info.tail:
                return Denied("INVALID_OFFSET", "an ack beyond the stream's tail")
        return None

    def acknowledge(self, name: str, incarnation: int, position: int) -> None:
        """Everything up to ``position`` has been dealt with, of this incarnation of the stream."""
        info = self.looked.infos.get(name)
        if info is None or info.incarnation != incarnation:
            return
        if info.acked is not None and position <= info.acked:
            return
        link = self.looked.links[name]
        is_explicit = link is not None and link.is_explicit
        self._links.append(
            Link(is_explicit, incarnation, position).entry(self._attempt.subscription_id, name)
        )
        self.looked.infos[name] = replace(info, acked=position)

    def _has_ended(self, wake: Wake) -> bool:
        return 0 < wake.lease_until <= self._now
