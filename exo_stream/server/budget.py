"""The budget: how many bytes of bodies and pages the whole process holds at once."""

from __future__ import annotations

from typing import Self

from exo_stream.errors import OverloadedError


class Budget:
    """Bytes that may be held together by all connections of a port."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = 0

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

    def give(self, size: int) -> None:
        """Hold ``size`` bytes less, or as many as there are."""
        size = min(size, self._held)
        self._budget.give(size)
        self._held -= size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give(self._held)
