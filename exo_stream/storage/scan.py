"""A page of a scan through memtables and blocks, reading no more sub-blocks than it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from exo_stream.model import Row
from exo_stream.storage.blocks import Block
from exo_stream.storage.cache import SubBlock
from exo_stream.storage.engine import Page
from exo_stream.storage.page import Bounds, MemoryRows, PageBuilder, in_order
from exo_stream.storage.run import Run

Place = tuple[Block, int]
"""One sub-block: its block, and its index in it."""

Load = Callable[[Sequence[Place]], "Sequence[SubBlock] | None"]
"""Reads sub-blocks, in as few queries as it can; None if it may not do what that takes."""

_READS_MAX: Final = 8
"""Reads after which a page ends though it is short: rows that newer ones hide cost time too."""

_ROWS_SLACK: Final = 16
"""Rows released beyond those a page misses, since newer runs and tombstones hide some."""

_PLACES_MAX: Final = 16
"""Sub-blocks of one run in one read."""


class _Cursor:
    """How far a page has read one run: every row on this side of ``horizon`` has been read.

    Rows are made only when they are released; a page seldom wants all of a sub-block.
    """

    def __init__(self, run: Run, bounds: Bounds, start: bytes, end: bytes) -> None:
        self._forward = bounds.forward
        self._start, self._end = start, end
        self._places = _places(run, start, end, forward=bounds.forward)
        self._next = next(self._places, None)
        self._parts: list[tuple[SubBlock, int, int]] = []
        """Sub-blocks in the scan's direction, and which of their rows were not yet released."""
        self.entries = sum(block.entries for block in run.blocks)
        self.horizon = self._horizon(None)

    @property
    def done(self) -> bool:
        return self._next is None

    def take(self, rows: int, size: int) -> list[Place]:
        """The next places, enough for about so many rows within ``size`` bytes; at least one."""
        taken: list[Place] = []
        while self._next is not None and len(taken) < _PLACES_MAX:
            block, at = self._next
            size -= block.fences.sizes[at]
            if taken and (rows <= 0 or size < 0):
                break
            taken.append(self._next)
            rows -= block.fences.rows[at]
            self._next = next(self._places, None)
        if taken:
            self.horizon = self._horizon(taken[-1])
        return taken

    def _horizon(self, last: Place | None) -> bytes:
        """Where what is known ends, once everything up to ``last`` has been read."""
        if self._next is None:
            return self._end if self._forward else self._start
        if self._forward:
            block, at = self._next
            return max(block.fences.first_keys[at], self._start)
        # What is above the last place read is known; before the first read, nothing is.
        return self._end if last is None else last[0].fences.first_keys[last[1]]

    @property
    def rows_held(self) -> int:
        """Rows that were read and not yet released."""
        return sum([last - first for _, first, last in self._parts])

    def add(self, sub_block: SubBlock) -> None:
        """Take in what was read at the next place."""
        first, last = sub_block.between(self._start, self._end)
        if first < last:
            self._parts.append((sub_block, first, last))

    def key_at(self, rows: int) -> bytes | None:
        """The key of the row after so many, in the scan's direction; None if there are fewer."""
        for sub_block, first, last in self._parts:
            if rows < last - first:
                return sub_block.keys[first + rows if self._forward else last - 1 - rows]
            rows -= last - first
        return None

    def release(self, start: bytes, end: bytes) -> list[Row]:
        """Hand over the rows with ``start <= row key < end``, which are the next ones."""
        ready: list[Row] = []
        parts, self._parts = self._parts, []
        for sub_block, first, last in parts:
            low, high = sub_block.between(start, end)
            low, high = max(low, first), min(high, last)
            ready += sub_block.rows(low, high)
            left = (high, last) if self._forward else (first, low)
            if left[0] < left[1]:
                self._parts.append((sub_block, *left))
        return ready


def _places(run: Run, start: bytes, end: bytes, *, forward: bool) -> Iterator[Place]:
    step = 1 if forward else -1
    for block in run.blocks_between(start, end)[::step]:
        for at in block.sub_blocks_between(start, end)[::step]:
            yield block, at


class Scan:
    """Makes one page from what the memtables gave and from runs, the newest run first."""

    def __init__(self, memory: MemoryRows, runs: Sequence[Run], bounds: Bounds) -> None:
        self._bounds = bounds
        self._builder = PageBuilder(bounds)
        self._start, self._end = memory.start, memory.end
        """What is still to be emitted."""
        self._memory = in_order(list(memory.rows.values()), forward=bounds.forward)
        cursors = [_Cursor(run, bounds, memory.start, memory.end) for run in runs]
        self._cursors = [cursor for cursor in cursors if not cursor.done]
        self._entries = sum(cursor.entries for cursor in self._cursors)
        self._more_held = False
        """Whether rows on this side of the horizon were read and not yet needed."""

    def page(self, load: Load) -> Page | None:
        """The page; None if ``load`` refused."""
        builder, forward = self._builder, self._bounds.forward
        for _ in range(_READS_MAX):
            if not self._read(load):
                return None
            page = builder.add(self._ready())
            if page is not None:
                return page
            if self._start >= self._end:
                break
        return builder.finish(
            *((self._bounds.start, self._start) if forward else (self._end, self._bounds.end))
        )

    def _horizon(self) -> bytes:
        """Up to where every run is known."""
        horizons = [cursor.horizon for cursor in self._cursors]
        if self._bounds.forward:
            return min([*horizons, self._end])
        return max([*horizons, self._start])

    def _read(self, load: Load) -> bool:
        """Read on in the runs that hold the page up, each by its share of what is missing."""
        if self._more_held:
            return True
        horizon = self._horizon()
        wanted: list[tuple[_Cursor, Place]] = []
        size = self._bounds.bytes_max
        for cursor in self._cursors:
            if cursor.done or cursor.horizon != horizon:
                continue
            share = self._builder.rows_missing * cursor.entries // self._entries + 1
            places = cursor.take(share - cursor.rows_held, size)
            size -= sum([block.fences.sizes[at] for block, at in places])
            wanted += [(cursor, place) for place in places]
        if not wanted:
            return True
        decoded = load([place for _, place in wanted])
        if decoded is None:
            return False
        for (cursor, _), sub_block in zip(wanted, decoded, strict=True):
            cursor.add(sub_block)
        return True

    def _ready(self) -> list[Row]:
        """The next rows on this side of the horizon: the newest of each key, in order; enough."""
        forward, known = self._bounds.forward, self._horizon()
        keys = [cursor.key_at(self._builder.rows_missing + _ROWS_SLACK) for cursor in self._cursors]
        enough = [key for key in keys if key is not None]
        horizon = min([known, *enough]) if forward else max([known, *enough])
        self._more_held = horizon != known
        start, end = (self._start, horizon) if forward else (horizon, self._end)
        if forward and not self._memory and len(self._cursors) == 1:
            self._start = horizon  # one run, read forward, is in order as it is
            return self._cursors[0].release(start, end)
        rows: dict[bytes, Row] = {}
        for cursor in reversed(self._cursors):
            rows.update([(row[0], row) for row in cursor.release(start, end)])
        rows.update([(row[0], row) for row in self._memory if start <= row[0] < end])
        if forward:
            self._start = horizon
        else:
            self._end = horizon
        return in_order(list(rows.values()), forward=forward)
