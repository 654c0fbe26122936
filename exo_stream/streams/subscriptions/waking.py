"""Waking: when a wake is due, who has it, and what becomes of it.

A wake is made when something is pending and none is under way; its generation fences everybody who
had an earlier one. What the clock or an append makes necessary is one decision, ``advance``; what
a subscriber does is another. None of them knows tasks or sockets, so a crash between any two loses
nothing: what the records say is what is to be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from exo_stream.decision import Answer, Decision, Need, Verdict, View, Write
from exo_stream.limits import Limits
from exo_stream.model import Entry
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.appending import Append, Refused, append
from exo_stream.streams.subscriptions.looking import NOT_FOUND, Denied, look_at, subscription_of
from exo_stream.streams.subscriptions.record import Kind, StreamInfo
from exo_stream.streams.subscriptions.step import Ack, Attempt, State, Step
from exo_stream.streams.subscriptions.tokens import Scope

WAKE_STREAMS_MAX: Final = 256
"""Streams that one wake tells of; what is pending in others is the next wake's."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a subscriber says of a wake: what it has dealt with, and whether it is done."""

    scope: Scope
    generation: int
    wake_id: str
    acks: Sequence[Ack]
    is_done: bool


class Waking:
    """The decisions about wakes of one opened platform."""

    def __init__(self, accesses: Accesses, limits: Limits) -> None:
        self._accesses = accesses
        self._limits = limits

    def advance(self, attempt: Attempt) -> Decision[State | None]:
        """What the time or an append makes necessary: the end of a lease, a wake, another try.

        The answer is None if the subscription is no more.
        """

        def decide(view: View, now: int) -> Verdict[State | None]:
            step = self._begin(view, now, attempt)
            if not isinstance(step, Step):
                return step or Answer(None)
            step.end_lease()
            if step.subscription.wake is None:
                step.wake_if_pending()
            else:
                step.tell()
            return step.verdict(step.state)

        return decide

    def told(
        self, attempt: Attempt, scope: Scope, wake_id: str, done: Sequence[StreamInfo] | None
    ) -> Decision[State | None]:
        """A webhook has been taken; with ``done`` what it told of has been dealt with."""

        def decide(view: View, now: int) -> Verdict[State | None]:
            step = self._begin(view, now, attempt, [told.path for told in done or ()])
            if not isinstance(step, Step):
                return step or Answer(None)
            wake = step.current(scope, wake_id)
            if wake is not None:
                step.forgive()
                if done is not None:
                    for told in done:
                        step.acknowledge(told.path, told.incarnation, told.tail)
                    step.finish()
                    step.wake_if_pending()
                elif wake.due_at:
                    step.lease(wake, None)
            return step.verdict(step.state)

        return decide

    def failed(self, attempt: Attempt, scope: Scope, wake_id: str) -> Decision[State | None]:
        """A webhook has not been taken: it is told again, later each time."""

        def decide(view: View, now: int) -> Verdict[State | None]:
            step = self._begin(view, now, attempt)
            if not isinstance(step, Step):
                return step or Answer(None)
            wake = step.current(scope, wake_id)
            # Whoever has called back has heard of it, whatever became of the answer.
            if wake is not None and wake.due_at:
                step.retry(wake)
            return step.verdict(step.state)

        return decide

    def claim(self, attempt: Attempt, worker: str) -> Decision[State | Denied]:
        """A worker takes what is pending, if nobody has it."""

        def decide(view: View, now: int) -> Verdict[State | Denied]:
            step = self._begin(view, now, attempt)
            if not isinstance(step, Step):
                return step or Answer(NOT_FOUND)
            if step.subscription.config.kind != "pull-wake":
                return Answer(Denied("INVALID_REQUEST", "a webhook is told, not claimed"))
            step.end_lease()
            wake = step.subscription.wake
            if wake is not None and wake.holder is not None:
                generation = step.subscription.generation
                return Answer(
                    Denied("ALREADY_CLAIMED", "another has claimed it", wake.holder, generation)
                )
            if not step.looked.pending:
                return Answer(Denied("NO_PENDING_WORK", "there is nothing to do"))
            if wake is None:
                step.make_wake()
            assert step.subscription.wake is not None
            step.forgive()
            step.lease(step.subscription.wake, worker)
            return step.verdict(step.state)

        return decide

    def report(self, attempt: Attempt, kind: Kind, report: Report) -> Decision[State | Denied]:
        """A subscriber acknowledges, keeps its lease, or is done.

        The wake of the answer is the one under way after it: if it ``is_done``, the next one.
        """

        def decide(view: View, now: int) -> Verdict[State | Denied]:
            step = self._begin(view, now, attempt, [ack.name for ack in report.acks])
            if not isinstance(step, Step):
                return step or Answer(NOT_FOUND)
            if step.subscription.config.kind != kind:
                return Answer(Denied("INVALID_REQUEST", f"this is no {kind} subscription"))
            if report.scope.incarnation != step.subscription.incarnation:
                return Answer(Denied("TOKEN_INVALID", "the token is of another subscription"))
            wake = step.current(report.scope, report.wake_id)
            if wake is None or report.generation != report.scope.generation:
                return Answer(Denied("FENCED", "this wake is over"))
            objection = step.objection(report.acks)
            if objection is not None:
                return Answer(objection)
            for ack in report.acks:
                step.acknowledge(ack.name, step.looked.infos[ack.name].incarnation, ack.position)
            step.forgive()
            if report.is_done:
                step.finish()
                step.wake_if_pending()
            else:
                step.lease(wake, wake.holder)
            return step.verdict(step.state)

        return decide

    def _begin(
        self, view: View, now: int, attempt: Attempt, more: Sequence[str] = ()
    ) -> Step | Need | None:
        known = subscription_of(view, attempt.subscription_id)
        if known is None or isinstance(known, Need):
            return known
        names = (*attempt.names[:WAKE_STREAMS_MAX], *more)
        looked = look_at(
            view, attempt.subscription_id, known, names, now=now, accesses=self._accesses
        )
        if isinstance(looked, Need):
            return looked
        return Step(attempt, now, known, looked, partial(self._event, view, now))

    def _event(self, view: View, now: int, name: str, data: bytes) -> Sequence[Entry] | Need | None:
        request = Append(name, [data], "application/json")
        verdict = append(request, self._accesses, self._limits)(view, now)
        match verdict:
            case Need():
                return verdict
            case Write(entries, answer) if not isinstance(answer, Refused):
                return entries
            case _:
                return None
