"""How long a client keeps trying: bounded attempts, with full jitter between them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """The bounds of one client's reconnecting, and of what its feeds may hold."""

    attempts_max: int = 20
    """Connections tried in a row, without one that brought anything, before callers are told; and
    connections lost under one call before its caller is, whatever they brought to others."""
    outage_seconds_max: float = 60
    """The same in time: no attempt begins later than this after the connection was lost."""
    covers_first: bool = False
    """Whether the first connection is tried again too; by default a wrong URL is told at once."""
    pause_seconds_min: float = 0.1
    """The longest pause before the second attempt; it doubles from one to the next."""
    pause_seconds_max: float = 5
    feed_bytes_max: int = 8 * 1024 * 1024
    """What a feed holds that its user has not taken yet; then it stops and resumes later."""
    room_seconds_max: float = 0.05
    """How long a full feed may hold up its connection in the hope that its user is just busy."""

    def pause_seconds(self, attempt: int, chance: float) -> float:
        """Before attempt number ``attempt`` (from 0); ``chance`` is random in 0 to 1.

        Full jitter: a thousand clients of a restarted server must not come back together.
        """
        longest = self.pause_seconds_min * 2.0 ** min(attempt, 32)
        return chance * min(longest, self.pause_seconds_max)
