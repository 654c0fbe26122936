"""Retention: where the log must begin, by the four rules of a policy, by age and by bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, assert_never

from exo_stream.policies.policy import (
    DropAll,
    GreaterThan,
    GreaterThanOrEqual,
    InvalidPolicyError,
    KeepLatest,
    Retain,
    check_retain,
    check_u64,
)


@dataclass(frozen=True, slots=True)
class LogRetention:
    """The log keeps the batches that every rule here keeps; ``None`` is no rule.

    ``seconds_max`` is the age and ``bytes_max`` the sum of the payloads up to which batches stay,
    the newest first.
    """

    retain: Retain | None = None
    seconds_max: int | None = None
    bytes_max: int | None = None

    def check(self, field: str = "retention") -> None:
        """Raise InvalidPolicyError unless each rule makes sense."""
        if self.retain is not None:
            check_retain(self.retain, f"{field}.retain")
        if self.seconds_max is not None:
            check_u64(self.seconds_max, f"{field}.seconds_max", least=1)
        if self.bytes_max is not None:
            check_u64(self.bytes_max, f"{field}.bytes_max", least=1)


NO_RULES: Final = LogRetention()
"""The log keeps everything."""


def checked_retention(retention: LogRetention | None) -> LogRetention:
    """The rules to store, none for None. Raises InvalidPolicyError unless they make sense."""
    if retention is None:
        return NO_RULES
    if not isinstance(retention, LogRetention):
        raise InvalidPolicyError("retention", "not a LogRetention")
    retention.check()
    return retention


@dataclass(frozen=True, slots=True)
class RetentionState:
    """What the log keeps, and why.

    ``stored`` are the rules that the file holds, ``in_force`` those that are applied: the stored
    ones, or those that the platform was opened with, which go first while it is open. ``problem``
    says why the stored ones cannot be applied, if so. ``oldest_retained`` is None while the log
    is empty.
    """

    stored: LogRetention
    in_force: LogRetention
    source: Literal["stored", "option"]
    problem: str | None
    oldest_retained: int | None


def cutoff(retain: Retain, frontier: int) -> int:
    """The sequence below which every batch goes; at most ``frontier + 1``.

    Capped, because the numbers of future batches belong to nobody yet.
    """
    match retain:
        case KeepLatest(count):
            below = frontier + 1 - count
        case GreaterThan(threshold):
            below = threshold + 1
        case GreaterThanOrEqual(threshold):
            below = threshold
        case DropAll():
            below = frontier + 1
        case unreachable:
            assert_never(unreachable)
    return max(0, min(below, frontier + 1))
