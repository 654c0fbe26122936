"""What a projection does when a handler fails, how large a batch is, where ids are missing. Pure.

Names and defaults are those of Azoth's projector and event processor; what its
``RetryWithBackoff`` only promises (it never waited, and never gave up) is done here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, assert_never

from exo_stream.errors import ConfigError, EventGapError
from exo_stream.limits import MIB

Event = tuple[int, bytes]
"""An event's id, and its bytes."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_DOUBLINGS_MAX: Final = 32
"""Beyond it every cap is reached; a larger power would be a number without end."""


class Remedy(Enum):
    """What is done about an event whose handler failed."""

    STOP = "stop"
    SKIP = "skip"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True)
class FailFast:
    """Stop the projection, in state ``failed``, before the event."""


@dataclass(frozen=True, slots=True)
class LogAndSkip:
    """Log a warning, and go on after the event."""


@dataclass(frozen=True, slots=True)
class DeadLetterQueue:
    """Put the event aside, in the same transaction that moves the cursor, and go on after it."""


@dataclass(frozen=True, slots=True)
class RetryWithBackoff:
    """Try again up to ``max_retries`` times, and ``then`` give up.

    Before retry n (from 0) it waits a random time between 0 and ``initial_delay_ms`` doubled n
    times, never more than ``max_delay_ms``: full jitter.
    """

    max_retries: int = 5
    initial_delay_ms: int = 100
    max_delay_ms: int = 30_000
    then: FailFast | LogAndSkip | DeadLetterQueue = FailFast()

    def __post_init__(self) -> None:
        if self.max_retries < 0 or not 0 < self.initial_delay_ms <= self.max_delay_ms:
            raise ConfigError(
                "a retry has a number of tries from 0 on, and 0 < initial_delay_ms <= max_delay_ms"
            )


@dataclass(frozen=True, slots=True)
class Custom:
    """Ask ``choose``, with the error and how often the event was retried. A retry waits as the
    default ``RetryWithBackoff`` does.
    """

    choose: Callable[[Exception, int], Remedy]


ErrorStrategy = FailFast | LogAndSkip | DeadLetterQueue | RetryWithBackoff | Custom


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """When a running projection replays its dead letters by itself.

    Every ``check_interval_ms`` it takes up to ``batch_max`` of those that are due, the least
    replayed first, and leaves the rest for later after ``failures_max`` failures in a row. One is
    due ``initial_delay_ms`` after it was put aside, and ``initial_delay_ms`` doubled n times,
    never more than ``max_delay_ms``, after replay n failed.
    """

    check_interval_ms: int = 60_000
    initial_delay_ms: int = 10_000
    max_delay_ms: int = 3_600_000
    batch_max: int = 100
    failures_max: int = 10

    def __post_init__(self) -> None:
        positive = (self.check_interval_ms, self.initial_delay_ms, self.batch_max)
        if min(*positive, self.failures_max) < 1 or self.initial_delay_ms > self.max_delay_ms:
            raise ConfigError(
                "a replay's bounds are positive, and initial_delay_ms <= max_delay_ms"
            )

    def delays(self, retries_max: int) -> list[int]:
        """How long a letter waits for its next replay, by how many failed, in microseconds."""
        backoff = RetryWithBackoff(
            initial_delay_ms=self.initial_delay_ms, max_delay_ms=self.max_delay_ms
        )
        return [round(1e6 * delay_seconds(backoff, n, 1.0)) for n in range(retries_max)]


@dataclass(frozen=True, slots=True)
class ProjectorConfig:
    """How a projection takes its events.

    A batch is what is there, up to ``batch_events_max`` events and ``batch_bytes_max`` bytes, one
    event at least. A running projection waits up to ``batch_wait_ms`` after the first for the
    batch to fill. A handler that takes longer than ``handler_timeout_ms`` has failed.
    ``gap_strategy`` says what to do where events are missing: stop, or go on after them.
    """

    batch_events_max: int = 1_000
    batch_bytes_max: int = 4 * MIB
    batch_wait_ms: int = 0
    handler_timeout_ms: int = 30_000
    error_strategy: ErrorStrategy = RetryWithBackoff()
    replay_retries_max: int = 5
    """A dead letter that was replayed in vain so often is permanent."""
    replay: ReplayConfig | None = None
    """Without, dead letters are replayed when somebody asks for it."""
    gap_strategy: FailFast | LogAndSkip = FailFast()

    def __post_init__(self) -> None:
        positive = (self.batch_events_max, self.batch_bytes_max, self.handler_timeout_ms)
        if min(positive) < 1 or self.batch_wait_ms < 0 or self.replay_retries_max < 1:
            raise ConfigError("a projection's bounds are positive numbers")


STORAGE_BACKOFF: Final = RetryWithBackoff(initial_delay_ms=100, max_delay_ms=30_000)
"""A file that cannot be written, or a log that cannot be read now, is no event's fault: that is
tried again for ever."""


def remedy(strategy: ErrorStrategy, error: Exception, retries: int) -> Remedy:
    """What to do about an event that failed with ``error`` after so many retries."""
    match strategy:
        case FailFast():
            return Remedy.STOP
        case LogAndSkip():
            return Remedy.SKIP
        case DeadLetterQueue():
            return Remedy.DEAD_LETTER
        case RetryWithBackoff():
            if retries < strategy.max_retries:
                return Remedy.RETRY
            return remedy(strategy.then, error, retries)
        case Custom():
            return strategy.choose(error, retries)
    assert_never(strategy)


def delay_seconds(strategy: ErrorStrategy, retries: int, chance: float) -> float:
    """How long to wait before the next try; ``chance`` is a random number from 0 to 1."""
    backoff = strategy if isinstance(strategy, RetryWithBackoff) else STORAGE_BACKOFF
    longest = backoff.initial_delay_ms << min(retries, _DOUBLINGS_MAX)
    return chance * min(longest, backoff.max_delay_ms) / 1_000


def detect_gaps(expected: int, ids: Sequence[int]) -> tuple[int, int]:
    """How many gaps there are in ``ids``, of which the first should be ``expected``, and how many
    events are missing in them.
    """
    gaps = missing = 0
    for event_id in ids:
        if event_id > expected:
            gaps += 1
            missing += event_id - expected
        expected = event_id + 1
    return gaps, missing


def check_no_gap(expected: int, events: Sequence[Event]) -> None:
    """Raise EventGapError unless each event from ``expected`` on is there."""
    gaps, missing = detect_gaps(expected, [event_id for event_id, _ in events])
    if gaps:
        raise EventGapError(expected, missing)


def cut(events: Sequence[Event], events_max: int, bytes_max: int) -> int:
    """How many of these events make one batch: one at least, if there is one."""
    size = 0
    for count, (_, event) in enumerate(events):
        size += len(event)
        if count and (count >= events_max or size > bytes_max):
            return count
    return len(events)


def check_name(name: str) -> None:
    """Raise ConfigError unless ``name`` can be a projection's: it is part of a file's name."""
    if type(name) is not str or not _NAME.fullmatch(name):
        raise ConfigError("a projection's name is 1 to 64 letters, digits, _ and -")


State = Literal["running", "retrying", "failed", "rebuilding", "stopped"]
"""``retrying`` waits for its next try; ``failed`` waits for ``resume`` or ``rebuild``."""


@dataclass(frozen=True, slots=True)
class RunStats:
    """What one run did; zeros if there was nothing to do. ``duration`` is in seconds.

    ``events_skipped`` counts those that were put aside or passed over, and those missing in gaps.
    """

    events_applied: int = 0
    bytes_processed: int = 0
    duration: float = 0.0
    new_cursor: int | None = None
    gaps_detected: int = 0
    events_skipped: int = 0


@dataclass(frozen=True, slots=True)
class ProjectorStatus:
    """How a projection is; ``lag_seconds`` is the age of the oldest event not applied yet.

    That is 0 if there is none, and None if the log no longer has the time of that event.
    ``sealed`` says that the store is sealed and that the projection has come to the seal.
    """

    name: str
    state: State
    cursor: int | None
    lag: int
    lag_seconds: float | None
    sealed: bool
    dead_letters: int
    error: str
    retries: int
    total_events_applied: int
    total_events_skipped: int
    total_gaps_detected: int = 0
