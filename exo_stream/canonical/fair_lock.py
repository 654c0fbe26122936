"""A lock that is given in the order of asking, says who holds it, and waits for so long at most."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

NOBODY: Final = ""


class FairLock:
    """One holder at a time, by name; it belongs to no task, so whoever has it may let go."""

    __slots__ = ("_waiting", "holder")

    def __init__(self) -> None:
        self.holder = NOBODY
        self._waiting: deque[tuple[str, trio.Event]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._waiting)

    def try_acquire(self, name: str) -> bool:
        """Take it if it is free; whoever waits goes first."""
        if self.holder:
            return False
        self.holder = name
        return True

    async def acquire(self, name: str, deadline: float) -> bool:
        """Take it by ``deadline``, in trio's time; whether that succeeded.

        Cancelled, the caller does not have it and does not stand in line.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.try_acquire(name):
            return True
        granted = trio.Event()
        ticket = (name, granted)
        self._waiting.append(ticket)
        try:
            with trio.move_on_at(deadline):
                await granted.wait()
        except BaseException:  # Cancelled
            if granted.is_set():
                self.release()
            else:
                self._waiting.remove(ticket)
            raise
        if not granted.is_set():
            self._waiting.remove(ticket)
        return granted.is_set()

    def release(self) -> None:
        """Hand it to who has waited longest."""
        assert self.holder, "nobody holds it"
        if not self._waiting:
            self.holder = NOBODY
            return
        self.holder, granted = self._waiting.popleft()
        granted.set()
