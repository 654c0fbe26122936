"""The cache of decoded sub-blocks: the least recently used give way to a bound in bytes."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from threading import Lock  # noqa: TID251  the loop and the reader threads share one cache
from typing import Final

from exo_stream.model import Row

_ROW_OVERHEAD: Final = 160
"""What three Python objects and their places in three lists cost beside the bytes of a row."""


_new_row: Final[Callable[[tuple[bytes, int, bytes | None]], Row]] = partial(tuple.__new__, Row)
"""``Row`` itself is a Python function, and half the price of reading a range."""


@dataclass(frozen=True, slots=True, eq=False)
class SubBlock:
    """The rows of one sub-block in key order, as three parallel lists."""

    keys: list[bytes]
    sequences: list[int]
    values: list[bytes | None]

    def row(self, key: bytes) -> Row | None:
        """The row of a row key, if it is here."""
        at = bisect_left(self.keys, key)
        if at == len(self.keys) or self.keys[at] != key:
            return None
        return Row(key, self.sequences[at], self.values[at])

    def between(self, start: bytes, end: bytes) -> tuple[int, int]:
        """Where the rows with ``start <= row key < end`` begin and end."""
        first = bisect_left(self.keys, start)
        return first, max(first, bisect_left(self.keys, end))

    def rows(self, first: int, last: int) -> list[Row]:
        """The rows from one index up to another."""
        part = slice(first, last)
        columns = self.keys[part], self.sequences[part], self.values[part]
        return list(map(_new_row, zip(*columns, strict=True)))

    def memory_bytes(self) -> int:
        """About what it occupies."""
        values = sum([len(value) for value in self.values if value is not None])
        return sum(map(len, self.keys)) + values + _ROW_OVERHEAD * len(self.keys)


class SubBlockCache:
    """Sub-blocks by id, at most ``bytes_max`` of them; any thread may use it."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._held: OrderedDict[int, tuple[SubBlock, int]] = OrderedDict()
        self._lock = Lock()

    @property
    def bytes_held(self) -> int:
        """What the cached sub-blocks occupy."""
        return self._bytes

    def get(self, sub_block: int) -> SubBlock | None:
        """The sub-block if it is here, which makes it the most recently used."""
        with self._lock:
            held = self._held.get(sub_block)
            if held is None:
                return None
            self._held.move_to_end(sub_block)
            return held[0]

    def put(self, sub_block: int, decoded: SubBlock) -> None:
        """Keep a sub-block, unless it alone is larger than the whole cache may be."""
        size = decoded.memory_bytes()
        if size > self._bytes_max:
            return
        with self._lock:
            self._drop(sub_block)
            self._held[sub_block] = decoded, size
            self._bytes += size
            while self._bytes > self._bytes_max:
                self._drop(next(iter(self._held)))

    def discard(self, sub_blocks: Iterable[int]) -> None:
        """Forget sub-blocks that are no longer in the file."""
        with self._lock:
            for sub_block in sub_blocks:
                self._drop(sub_block)

    def _drop(self, sub_block: int) -> None:
        held = self._held.pop(sub_block, None)
        if held is not None:
            self._bytes -= held[1]
