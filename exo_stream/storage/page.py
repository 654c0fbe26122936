"""One page of a scan: the newest row of each key, tombstones left out, within its bounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exo_stream.model import Row
from exo_stream.storage.engine import Page, Reader
from exo_stream.storage.memtable import Capture
from exo_stream.storage.version import TableVersion


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one page was asked for."""

    start: bytes
    end: bytes
    rows_max: int
    bytes_max: int
    forward: bool


class PageBuilder:
    """Collects live rows in the scan's direction until the page is full."""

    def __init__(self, bounds: Bounds) -> None:
        assert bounds.rows_max > 0, bounds
        self._bounds = bounds
        self._rows: list[Row] = []
        self._bytes = 0

    @property
    def rows_missing(self) -> int:
        """How many more live rows the page takes."""
        return self._bounds.rows_max - len(self._rows)

    def add(self, rows: Iterable[Row]) -> Page | None:
        """Take these rows; the finished page once one does not fit any more."""
        taken, forward = self._rows, self._bounds.forward
        for row in rows:
            if row[2] is None:
                continue
            size = len(row[0]) + len(row[2])
            if taken and (
                len(taken) >= self._bounds.rows_max or self._bytes + size > self._bounds.bytes_max
            ):
                return Page(taken, row[0] if forward else taken[-1][0])
            taken.append(row)
            self._bytes += size
        return None

    def finish(self, start: bytes, end: bytes) -> Page:
        """The page, when all rows of ``start <= key < end`` have been added."""
        bounds = self._bounds
        if bounds.forward:
            return Page(self._rows, end if end < bounds.end else None)
        return Page(self._rows, start if start > bounds.start else None)


@dataclass(frozen=True, slots=True)
class MemoryRows:
    """What the memtables have for a page: complete for ``start <= key < end``."""

    rows: dict[bytes, Row]
    start: bytes
    end: bytes


def capture(version: TableVersion, bounds: Bounds) -> MemoryRows:
    """Copy what the memtables of ``version`` have for a page, so that any thread may use it."""
    start, end = bounds.start, bounds.end
    captures: list[Capture] = []
    for memtable in version.memtables:
        part = memtable.capture(
            start,
            end,
            frontier=version.frontier,
            rows_max=bounds.rows_max,
            bytes_max=bounds.bytes_max,
            forward=bounds.forward,
        )
        start, end = part.start, part.end
        captures.append(part)
    rows: dict[bytes, Row] = {}
    for part in reversed(captures):  # the newest last, so that it wins
        rows.update([(row[0], row) for row in part.rows if start <= row[0] < end])
    return MemoryRows(rows, start, end)


def in_order(rows: Sequence[Row], *, forward: bool) -> list[Row]:
    """Rows of different keys in the scan's direction."""
    return sorted(rows, reverse=not forward)


class MemoryPlan:
    """A page that the memtables alone can give; it is made when the plan is."""

    in_memory = True

    def __init__(self, version: TableVersion, bounds: Bounds) -> None:
        memory = capture(version, bounds)
        builder = PageBuilder(bounds)
        rows = in_order(list(memory.rows.values()), forward=bounds.forward)
        self._page = builder.add(rows) or builder.finish(memory.start, memory.end)

    def run(self, reader: Reader | None) -> Page:  # noqa: ARG002  the seam has it
        """The page."""
        return self._page
