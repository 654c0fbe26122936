"""When streams with a time to live were last accessed, and so when they expire.

A read costs no write: its time is kept here, in memory, and written to the stream's record only
when the one that stands there is older than ``slack``. So what the file says is late by less than
that, and whoever cannot know better adds it: after a crash, or any opening, a stream lives
until its time to live and the slack have passed since the access on file. Longer than promised, by
at most the slack; never shorter.
"""

from __future__ import annotations

from typing import Final

from exo_stream.streams.record import SECOND, Record

SLACK_SECONDS_MAX: Final = 3600
"""An access on file may be as late as an eighth of the time to live, and no more than this."""

REMEMBERED_MAX: Final = 65_536
"""Streams whose accesses are kept in memory; beyond that the oldest live on for their slack."""


def slack(record: Record) -> int:
    """By how much the access on file may be late, in microseconds."""
    return min((record.config.ttl_seconds or 0) * SECOND // 8, SLACK_SECONDS_MAX * SECOND)


class Accesses:
    """The accesses of one opened platform. Time is in microseconds."""

    def __init__(self, now: int, *, remembered_max: int = REMEMBERED_MAX) -> None:
        self._known_since = now
        self._remembered_max = remembered_max
        self._last: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._last)

    def touch(self, record: Record, now: int) -> bool:
        """Count an access now; answer whether it must be written to the record before it counts."""
        if record.config.ttl_seconds is None:
            return False
        if now > record.touched_at + slack(record):
            self._last.pop(record.incarnation, None)
            return True
        self._last.pop(record.incarnation, None)
        self._last[record.incarnation] = now
        if len(self._last) > self._remembered_max:
            oldest = next(iter(self._last))
            self._known_since = max(self._known_since, self._last.pop(oldest) + 1)
        return False

    def forget(self, incarnation: int) -> None:
        """The stream is no more."""
        self._last.pop(incarnation, None)

    def expires_at(self, record: Record) -> int | None:
        """When the stream expires if nobody accesses it before; None if it never does."""
        remembered = self._last.get(record.incarnation)
        if remembered is not None:
            accessed = max(remembered, record.touched_at)
        elif record.touched_at >= self._known_since:
            accessed = record.touched_at
        else:
            accessed = record.touched_at + slack(record)
        return record.expires_at(accessed)

    def expired(self, record: Record, now: int) -> bool:
        """Whether the stream counts as absent now."""
        expires_at = self.expires_at(record)
        return expires_at is not None and expires_at <= now

    def earliest_expiry(self, record: Record, now: int) -> int | None:
        """Before this time the stream cannot expire, whoever accesses it or does not."""
        expires_at = self.expires_at(record)
        if expires_at is None or record.config.ttl_seconds is None:
            return expires_at
        return min(expires_at, now + record.config.ttl_seconds * SECOND)
