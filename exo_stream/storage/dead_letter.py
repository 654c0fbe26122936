"""A dead letter: an event that a projection has put aside, because its handler failed at it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a projection has put aside; times are microseconds since the Unix epoch.

    ``permanent`` says that it was replayed in vain as often as it may be.
    """

    event_id: int
    event_bytes: bytes
    error_message: str
    failed_at: int
    retry_count: int = 0
    last_retry_at: int | None = None
    permanent: bool = False
