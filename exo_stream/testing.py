"""The test kit: what you put in place of threads, disks and clocks to test a program of yours.

``open_platform(":memory:", hop=in_place, clock=FakeClock())`` runs without a thread, so that it
works under ``trio.testing.MockClock``, where a minute takes no time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import trio

from exo_stream.errors import StoreError
from exo_stream.storage.hop import in_place

__all__ = ["FakeClock", "FaultyHop", "in_place"]

T = TypeVar("T")

MORNING: Final = 1_700_000_000_000_000
"""When a fake clock begins: 14 November 2023, in microseconds since the Unix epoch."""


class FakeClock:
    """A wall clock that stands still until it is moved, in either direction."""

    def __init__(self, microseconds: int = MORNING) -> None:
        self.microseconds = microseconds

    def __call__(self) -> int:
        """What time it is, in microseconds since the Unix epoch."""
        return self.microseconds

    def advance(self, seconds: float) -> None:
        """Let so much time pass; a negative amount sets the clock back."""
        self.microseconds += round(seconds * 1_000_000)


class FaultyHop:
    """A hop that stays in place, takes ``latency`` seconds, and refuses the next ``failures``
    transactions before they begin.
    """

    def __init__(self, *, failures: int = 0, latency: float = 0.0) -> None:
        self.failures = failures
        self.latency = latency
        self.commits = 0
        """How many transactions it let through."""

    async def __call__(self, fn: Callable[[], T], /) -> T:
        """Run ``fn`` on the event loop, a little later."""
        await trio.sleep(self.latency)
        if isinstance(fn, partial) and fn.func.__name__ == "commit":
            if self.failures:
                self.failures -= 1
                raise StoreError("injected")
            self.commits += 1
        return fn()
