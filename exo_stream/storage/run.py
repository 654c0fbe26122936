"""Runs: blocks whose key ranges do not overlap, each run newer than the next as a whole."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from operator import attrgetter

from exo_stream.storage.blocks import Block


class Run:
    """Blocks in key order. Never changes."""

    __slots__ = ("_first_keys", "blocks", "id")

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.blocks: Sequence[Block] = sorted(blocks, key=attrgetter("first_key"))
        for left, right in pairwise(self.blocks):
            assert left.last_key < right.first_key, (left.id, right.id)
        self._first_keys = [block.first_key for block in self.blocks]
        self.id = self.blocks[0].run

    @property
    def folded_through(self) -> int:
        """The newest sequence in it."""
        return max(block.folded_through for block in self.blocks)

    @property
    def size(self) -> int:
        """The bytes of its keys and values."""
        return sum(block.size for block in self.blocks)

    def block_of(self, key: bytes) -> Block | None:
        """The block whose range begins at or before a row key."""
        at = bisect_right(self._first_keys, key)
        return self.blocks[at - 1] if at else None

    def blocks_between(self, start: bytes, end: bytes) -> Sequence[Block]:
        """The blocks that may have rows with ``start <= row key < end``."""
        first = max(bisect_right(self._first_keys, start) - 1, 0)
        last = bisect_left(self._first_keys, end)
        return [block for block in self.blocks[first:last] if block.overlaps(start, end)]


def runs_of(blocks: Iterable[Block]) -> tuple[Run, ...]:
    """The runs that these blocks form, the newest first."""
    by_run = groupby(sorted(blocks, key=attrgetter("run")), attrgetter("run"))
    runs = [Run(members) for _, members in by_run]
    return tuple(sorted(runs, key=attrgetter("folded_through"), reverse=True))


def depth(runs: Sequence[Run]) -> int:
    """How many runs overlap at the most crowded key."""
    edges = [
        edge
        for run in runs
        for block in run.blocks
        for edge in ((block.first_key, 0, 1), (block.last_key, 1, -1))
    ]
    deepest = here = 0
    for _, _, step in sorted(edges):
        here += step
        deepest = max(deepest, here)
    return deepest
