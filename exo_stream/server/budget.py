"""The budget: how many bytes of bodies and pages the whole process holds at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Self

import trio

from exo_stream.errors import OverloadedError

_RELIEF_SECONDS: Final = 0.25
"""How often those who wait for room look again for somebody who holds it for nothing."""


def _no_relief() -> None:
    pass


class Budget:
    """Bytes that may be held together by all connections of a port.

    ``relieve`` is called when somebody has to wait: it cuts those who do not take what is held
    for them, so that they cost the others nothing.
    """

    def __init__(self, bytes_max: int, relieve: Callable[[], None] = _no_relief) -> None:
        self.relieve = relieve
        self._bytes_max = bytes_max
        self._held = 0
        self._waiting: deque[_Place] = deque()

    @property
    def held(self) -> int:
        """Bytes taken and not given back."""
        return self._held

    def open_share(self) -> Share:
        """One holder's part of the budget."""
        return Share(self)

    def take(self, size: int) -> None:
        """Hold ``size`` more bytes. Raises OverloadedError, and takes nothing, if too many."""
        if self._held + size > self._bytes_max:
            raise OverloadedError(f"more than {self._bytes_max} bytes are in flight")
        self._held += size

    def give(self, size: int) -> None:
        """Hold ``size`` bytes less."""
        assert size <= self._held, (size, self._held)
        self._held -= size
        self._admit()

    async def wait_take(self, size: int) -> None:
        """Hold ``size`` more bytes as soon as there is room; first come, first served.

        Whoever wants more than all there is waits until nothing else is held.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not size or (not self._waiting and self._has_room(size)):
            self._held += size
            return
        place = _Place(size)
        self._waiting.append(place)
        try:
            while not place.admitted.is_set():
                self.relieve()
                with trio.move_on_after(_RELIEF_SECONDS):
                    await place.admitted.wait()
        except BaseException:
            if place.admitted.is_set():  # its turn came while it was being cancelled
                self.give(size)
            else:
                self._waiting.remove(place)
                self._admit()
            raise

    def _has_room(self, size: int) -> bool:
        return not self._held or self._held + size <= self._bytes_max

    def _admit(self) -> None:
        while self._waiting and self._has_room(self._waiting[0].size):
            place = self._waiting.popleft()
            self._held += place.size
            place.admitted.set()


class _Place:
    """Somebody's place among those who wait for room."""

    __slots__ = ("admitted", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.admitted = trio.Event()


class Share:
    """What one holder took; leaving the ``with`` block gives all of it back."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes taken and not given back."""
        return self._held

    def take(self, size: int) -> None:
        """Hold ``size`` more bytes. Raises OverloadedError, and takes nothing, if too many."""
        self._budget.take(size)
        self._held += size

    async def wait_take(self, size: int) -> None:
        """Hold ``size`` more bytes as soon as there is room."""
        await self._budget.wait_take(size)
        self._held += size

    def give(self, size: int) -> None:
        """Hold ``size`` bytes less, or as many as there are."""
        size = min(size, self._held)
        self._budget.give(size)
        self._held -= size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give(self._held)
