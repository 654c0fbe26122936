"""A reduce over any engine: page by page of a scan, row by row."""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Final

from exo_stream.model import Row
from exo_stream.reduce.reduction import Reduction
from exo_stream.reduce.request import ReduceResult
from exo_stream.storage.engine import Engine, Reader, ScanPlan, Version

ROWS_MAX: Final = 1_024
"""Of one slice: planning it may copy so many rows on the event loop."""

BYTES_MAX: Final = 4 * 1024 * 1024

BREATH_ROWS: Final = 256
"""After so many rows, about a millisecond, other threads are let run."""

_BREATH_SECONDS: Final = 0.000_02

_never: Final[SimpleQueue[None]] = SimpleQueue()
"""To wait on, without a clock."""


class PagedReduce:
    """Reduces the rows with ``start <= row key < end`` at ``version``."""

    def __init__(
        self, engine: Engine, version: Version, start: bytes, end: bytes, reduction: Reduction
    ) -> None:
        self._engine = engine
        self._version = version
        self._start: bytes | None = start
        self._end = end
        self._reduction = reduction
        self._plan: ScanPlan | None = None

    def plan(self) -> bool:
        """[loop] Prepare the next slice."""
        assert self._start is not None, "it is read"
        self._plan = self._engine.scan(
            self._version, self._start, self._end, rows_max=ROWS_MAX, bytes_max=BYTES_MAX,
            forward=True,
        )  # fmt: skip
        return True

    def run(self, reader: Reader) -> ReduceResult | None:
        """[reader] Reduce it; the result, if it was the last one."""
        assert self._plan is not None, "a slice is planned before it is run"
        page = self._plan.run(reader)
        add_rows(self._reduction, page.rows)
        self._start = page.resume
        return self._reduction.result(self._version.frontier) if self._start is None else None


def add_rows(reduction: Reduction, rows: list[Row]) -> None:
    """Take in rows, a few at a time: a thread that computes keeps the event loop waiting."""
    for at in range(0, len(rows), BREATH_ROWS):
        part = rows[at : at + BREATH_ROWS]
        reduction.add_rows([(row.key[1:], row.value) for row in part if row.value is not None])
        breathe()


def breathe() -> None:
    """Let another thread run that waits for the interpreter."""
    try:
        _never.get(timeout=_BREATH_SECONDS)
    except Empty:
        return
