"""The highest sequence number readers may see, and a way to wait until it gets there."""

from __future__ import annotations

import heapq
from itertools import count

import trio

from exo_stream.errors import PlatformClosedError


class Frontier:
    """One writer advances it; a reader that waits is woken once, when its number is visible.

    Not one event for everybody: a thousand tasks woken per group, to look and sleep again, cost
    as much as the group's fan-out.
    """

    def __init__(self, visible: int) -> None:
        self._visible = visible
        self._waiting: list[tuple[int, int, trio.Event]] = []
        self._order = count()
        self._closed = False

    @property
    def visible(self) -> int:
        """The newest sequence number that may be read."""
        return self._visible

    def advance(self, to: int) -> None:
        """Show everything up to ``to``; wake those who waited for it."""
        assert to > self._visible, (to, self._visible)
        self._visible = to
        while self._waiting and self._waiting[0][0] <= to:
            heapq.heappop(self._waiting)[2].set()

    def close(self) -> None:
        """Nothing more becomes visible: wake everybody who waits for it, to be told so."""
        self._closed = True
        while self._waiting:
            heapq.heappop(self._waiting)[2].set()

    async def wait_visible(self, sequence: int) -> None:
        """Return as soon as ``sequence`` is visible.

        Raises PlatformClosedError once it never will be.
        """
        if sequence <= self._visible or self._closed:
            await trio.lowlevel.checkpoint()
            self._check_open(sequence)
            return
        event = trio.Event()
        ticket = (sequence, next(self._order), event)
        heapq.heappush(self._waiting, ticket)
        try:
            await event.wait()
        finally:
            if not event.is_set():  # cancelled: leave nothing behind
                self._waiting.remove(ticket)
                heapq.heapify(self._waiting)
        self._check_open(sequence)

    def _check_open(self, sequence: int) -> None:
        if sequence > self._visible:
            raise PlatformClosedError(f"the platform stopped before sequence {sequence}")
