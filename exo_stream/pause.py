"""A pause of writes: who is writing is waited for, who comes is refused; pauses nest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from exo_stream.errors import PausedError


class Pause:
    """How many pauses there are, and how many writers were let in and are not done.

    A writer calls ``enter`` before its first step and ``leave`` after its last, whatever became
    of it. Both are synchronous, so that nobody is let in between a pause's beginning and its
    look at who is still there. A pause within an ``outer`` one holds back its own writers only;
    the outer one holds back and waits for all of them.
    """

    __slots__ = ("_beginning", "_depth", "_drained", "_outer", "_writing")

    def __init__(self, outer: Pause | None = None) -> None:
        self._outer = outer
        self._depth = 0
        self._beginning = 0
        self._writing = 0
        self._drained = trio.Event()

    @property
    def is_paused(self) -> bool:
        """Whether writers are refused."""
        here = self._depth > 0 or self._beginning > 0
        return here or (self._outer is not None and self._outer.is_paused)

    @property
    def writing(self) -> int:
        """How many writers were let in and are not done."""
        return self._writing

    def check(self) -> None:
        """Raise PausedError while writes are paused."""
        if self.is_paused:
            raise PausedError("writes are paused")

    def enter(self) -> None:
        """Begin to write. Raises PausedError while writes are paused."""
        if self._depth or self._beginning:
            raise PausedError("writes are paused")
        if self._outer is not None:
            self._outer.enter()
        self._writing += 1

    def leave(self) -> None:
        """A writer that was let in is done."""
        assert self._writing > 0, self._writing
        self._writing -= 1
        if not self._writing:
            self._drained.set()
        if self._outer is not None:
            self._outer.leave()

    @contextmanager
    def writer(self) -> Iterator[None]:
        """``enter``, and ``leave`` when the block is left."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    async def pause(self, settle: Callable[[], Awaitable[None]]) -> None:
        """Refuse writers from now on; return once those that were let in are done.

        ``settle`` is awaited last: it returns when nothing handed over before it is undecided,
        which a writer that was cancelled meanwhile may leave behind. A pause that is cancelled
        before it returns, by a deadline of the caller's say, or failed by ``settle``, is undone.
        """
        self._beginning += 1
        try:
            while self._writing:
                if self._drained.is_set():
                    self._drained = trio.Event()
                await self._drained.wait()
            await settle()
            self._depth += 1
        finally:
            self._beginning -= 1

    def resume(self) -> None:
        """Undo one pause; without any it does nothing."""
        self._depth = max(0, self._depth - 1)
