"""How an operator has streams served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What differs from one deployment to the next; the bounds of everything are in ``Limits``."""

    long_poll_seconds: float = 30
    """How long a long-poll waits for something to answer with."""
    sse_seconds: float = 60
    """When a connection of events ends, for caches in front of us to join readers anew."""
    keep_alive_seconds: float = 15
    """How often a connection of events that is quiet says that it is there."""
    caches: Literal["private", "public"] = "private"
    """Whether caches that serve several users may keep pages."""
    requests_per_second: int | None = None
    """How many requests one address may make; None for as many as it likes."""
