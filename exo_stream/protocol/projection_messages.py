"""The messages about projections that a server's process runs: how they are, what they put aside.

A server alone runs none; a program that serves its platform may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class ProjectionState(NamedTuple):
    """How one projection is; ``lag_microseconds`` is the age of the oldest event not applied."""

    name: str
    state: str
    cursor: int | None
    lag: int
    lag_microseconds: int | None
    sealed: bool
    dead_letters: int
    error: str
    retries: int
    applied: int
    skipped: int
    gaps: int


class PutAside(NamedTuple):
    """An event that was put aside; times are microseconds since the Unix epoch."""

    event_id: int
    event_bytes: bytes
    error_message: str
    failed_at: int
    retry_count: int
    last_retry_at: int | None
    permanent: bool


@dataclass(frozen=True, slots=True)
class ReadProjections:
    """How every projection is; answered by ``ProjectionsRead``."""

    id: int


@dataclass(frozen=True, slots=True)
class ReadDeadLetters:
    """List up to ``count`` events that a projection put aside, from the id ``first`` on, fewer if
    they are large; answered by ``DeadLettersRead``.
    """

    id: int
    projection: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class ReplayDeadLetters:
    """Replay one event that a projection put aside, or up to ``count`` of the oldest that are not
    permanent; answered by ``DeadLettersReplayed``.
    """

    id: int
    projection: str
    event_id: int | None
    count: int


@dataclass(frozen=True, slots=True)
class ProjectionsRead:
    """How each of them is, in the order they were added."""

    id: int
    projections: tuple[ProjectionState, ...]


@dataclass(frozen=True, slots=True)
class DeadLettersRead:
    """Some events that were put aside, by id."""

    id: int
    letters: tuple[PutAside, ...]


@dataclass(frozen=True, slots=True)
class DeadLettersReplayed:
    """How many went through, and how many failed again."""

    id: int
    applied: int
    failed: int


ProjectionRequest = ReadProjections | ReadDeadLetters | ReplayDeadLetters
ProjectionReply = ProjectionsRead | DeadLettersRead | DeadLettersReplayed
