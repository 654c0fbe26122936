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
    public_url: str | None = None
    """How others reach this port, without a slash at its end, for what is to call back; None for
    the Host by which whoever subscribed did."""
    webhook_loopback: bool = False
    """Whether webhooks may go to this machine, over plain HTTP too: for development and tests."""
