"""Rates: how many requests each address has left."""

from __future__ import annotations

from collections import OrderedDict
from math import ceil
from typing import Final

ADDRESSES_MAX: Final = 65_536
"""How many addresses are remembered; the one that has been silent longest is forgotten."""


class Rates:
    """A bucket of requests for each address: full after a second of silence, refilled steadily."""

    def __init__(self, per_second: int, *, addresses_max: int = ADDRESSES_MAX) -> None:
        self._per_second = per_second
        self._addresses_max = addresses_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: str, now: float) -> int:
        """Count a request at ``now``, in seconds: 0 if there was one left, else how many whole
        seconds to wait.
        """
        left, since = self._buckets.pop(address, (float(self._per_second), now))
        left = min(float(self._per_second), left + (now - since) * self._per_second)
        wait = 0 if left >= 1 else max(1, ceil((1 - left) / self._per_second))
        self._buckets[address] = (left if wait else left - 1, now)
        if len(self._buckets) > self._addresses_max:
            self._buckets.popitem(last=False)
        return wait
