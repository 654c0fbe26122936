"""Cursors: numbers that let a cache in front of us join those who wait for the same thing.

They count intervals of 20 seconds. Whoever comes with the cursor of the present interval gets a
later one, so that no cache answers a wait with the answer to the one before.
"""

from __future__ import annotations

import re
from typing import Final

INTERVAL_SECONDS: Final = 20
EPOCH_SECONDS: Final = 1_728_432_000
"""2024-10-09T00:00:00Z, from where intervals are counted."""

JITTER_SECONDS_MAX: Final = 3_600

_NUMBER: Final = re.compile(r"[0-9]{1,18}")


def cursor(now: int, asked: str | None, jitter: float) -> str:
    """The cursor of an answer at ``now``, in microseconds since the Unix epoch.

    ``asked`` is the client's; what is no number counts as none. ``jitter`` is a random number
    from 0 up to 1.
    """
    current = (now // 1_000_000 - EPOCH_SECONDS) // INTERVAL_SECONDS
    if asked is None or not _NUMBER.fullmatch(asked) or int(asked) < current:
        return str(current)
    seconds = 1 + int(jitter * JITTER_SECONDS_MAX)
    return str(int(asked) + -(-seconds // INTERVAL_SECONDS))
