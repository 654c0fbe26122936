"""The table's state on the event loop: the current Version, its pins, and the dead blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Final

from exo_stream.limits import Limits
from exo_stream.model import Row
from exo_stream.payload import EncodedBatch
from exo_stream.reduce.reduction import Reduction
from exo_stream.storage import table_reader
from exo_stream.storage.block_writer import BlockWriter
from exo_stream.storage.blocks import Block
from exo_stream.storage.cache import SubBlockCache
from exo_stream.storage.engine import Cold, Version
from exo_stream.storage.memtable import Memtable
from exo_stream.storage.page import Bounds
from exo_stream.storage.run import Run, depth, runs_of
from exo_stream.storage.table_reader import TablePlan
from exo_stream.storage.table_reduce import TableReduce
from exo_stream.storage.version import Pins, TableVersion

_OVERLAP_RATIO: Final = 3
"""Runs may overlap so many times more than merging aims at, while writes come too fast for it."""

_DEBT_SLICES_MAX: Final = 4
"""Slices of merging that writes wait for at most between two groups."""


class Table:
    """Versions follow one another by assignment; only the event loop makes a new one."""

    def __init__(self, limits: Limits, *, blocks: Iterable[Block], frontier: int, floor: int):
        blocks = list(blocks)
        self.limits = limits
        self.cache = SubBlockCache(limits.cache_bytes_max)
        self.pins = Pins()
        self.version = TableVersion(frontier, floor, Memtable(), None, runs_of(blocks))
        self._overlap = depth(self.version.runs)
        self._merge_debt = 0
        """Rows that must be merged before more are taken."""
        self.new_block_ids: Iterator[int] = count(1)
        """Never given twice, not even after a crash: garbage must not meet a block's new rows."""
        self.dead: dict[int, None] = {}
        """Blocks whose rows may go once no pinned Version has them, in the order they died."""

    def apply(self, batches: Sequence[EncodedBatch], floor: int | None) -> None:
        """Make durable batches visible, and evict what is below ``floor``."""
        version = self.version
        frontier = version.frontier
        if batches:
            assert batches[0].sequence == frontier + 1, (batches[0], frontier)
            version.live.apply(batches, self.pins.frontiers)
            frontier = batches[-1].sequence
        floor = version.floor if floor is None else max(version.floor, floor)
        assert floor <= frontier + 1, (floor, frontier)
        self.version = replace(version, frontier=frontier, floor=floor)
        self._freeze_if_full()
        excess = self._overlap - _OVERLAP_RATIO * self.limits.runs_max
        if excess > 0:
            # The further behind, the more is merged for each entry: commits slow down a little
            # instead of standing still in the end. There is always a merge to be had now.
            entries = sum([len(batch.entries) for batch in batches])
            most = _DEBT_SLICES_MAX * self.limits.slice_rows_max
            self._merge_debt = min(self._merge_debt + entries * excess, most)

    @property
    def backlogged(self) -> bool:
        """Whether neither memtable takes any more, or merging has fallen far behind."""
        full = self.version.frozen is not None and self._is_full(self.version.live)
        return full or self._merge_debt >= self.limits.slice_rows_max

    def pay(self, rows: int) -> None:
        """So many rows were merged."""
        self._merge_debt = max(0, self._merge_debt - rows)

    def lookup(self, version: Version, key: bytes) -> Row | Cold | None:
        """The row of a row key as far as memory can tell."""
        version = self._readable(version)
        return table_reader.lookup(version, key, self.cache)

    def changed(self, version: Version, key: bytes, since: int) -> bool | Cold:
        """Whether a batch after ``since`` wrote a row key, as far as memory can tell."""
        return table_reader.changed(self._readable(version), key, since, self.cache)

    def scan(self, version: Version, bounds: Bounds) -> TablePlan:
        """Plan one page."""
        version = self._readable(version)
        return TablePlan(version, bounds, self.cache)

    def open_reduce(
        self, version: Version, start: bytes, end: bytes, reduction: Reduction
    ) -> TableReduce:
        """Begin a reduce that SQL can do."""
        return TableReduce(self._readable(version), start, end, reduction)

    def pin(self, version: Version) -> None:
        """Keep what ``version`` shows readable."""
        self.pins.pin(self._readable(version))

    def install_fold(self, writer: BlockWriter) -> None:
        """The frozen memtable is in the file: its run takes its place."""
        version = self.version
        assert version.frozen is not None
        newest = (Run(writer.blocks),) if writer.blocks else ()
        self._set_runs(replace(version, frozen=None), (*newest, *version.runs))
        self._freeze_if_full()

    def install_merge(
        self, inputs: Sequence[Run], output: Run | None, rewritten: Iterable[Block]
    ) -> None:
        """The merged run takes the place of its inputs, whose rewritten blocks are dead."""
        runs = self.version.runs
        at = runs.index(inputs[0])
        assert runs[at : at + len(inputs)] == tuple(inputs), (at, len(inputs), len(runs))
        merged = () if output is None else (output,)
        self._set_runs(self.version, (*runs[:at], *merged, *runs[at + len(inputs) :]))
        self.bury(block.id for block in rewritten)

    def adopt(self, blocks: Iterable[Block], folded_through: int) -> None:
        """Go on with the blocks that a reopened file turned out to have."""
        before = {block.id for run in self.version.runs for block in run.blocks}
        version = self.version
        if version.frozen is not None and version.frozen.last_sequence <= folded_through:
            version = replace(version, frozen=None)
        self._set_runs(version, runs_of(blocks))
        # A block may have been given up for lost when its COMMIT failed, and is there after all.
        for block in _block_ids(self.version):
            self.dead.pop(block, None)
        self.bury(before)
        self._freeze_if_full()

    def bury(self, blocks: Iterable[int]) -> None:
        """These blocks are dead, unless the current Version has them."""
        alive = _block_ids(self.version)
        self.dead.update((block, None) for block in blocks if block not in alive)

    def removable(self) -> list[int]:
        """The dead blocks that no pinned Version has."""
        if not self.dead:
            return []
        held = {block for version in self.pins for block in _block_ids(version)}
        return [block for block in self.dead if block not in held]

    def _readable(self, version: Version) -> TableVersion:
        """The Version, which is pinned, or at least no batch has been applied since."""
        assert isinstance(version, TableVersion), version
        assert version.frontier == self.version.frontier or version in self.pins, version.frontier
        return version

    def _set_runs(self, version: TableVersion, runs: tuple[Run, ...]) -> None:
        self.version = replace(version, runs=runs)
        self._overlap = depth(runs)
        if self._overlap <= _OVERLAP_RATIO * self.limits.runs_max:
            self._merge_debt = 0

    def _is_full(self, memtable: Memtable) -> bool:
        limits = self.limits
        return (
            memtable.entries >= limits.memtable_entries_max
            or memtable.payload_bytes >= limits.memtable_bytes_max
        )

    def _freeze_if_full(self) -> None:
        version = self.version
        if version.frozen is None and self._is_full(version.live):
            self.version = replace(version, live=Memtable(), frozen=version.live)


def _block_ids(version: TableVersion) -> set[int]:
    return {block.id for run in version.runs for block in run.blocks}
