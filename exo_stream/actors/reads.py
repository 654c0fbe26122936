"""Reading at a Version: from memory where memory can tell, else by asking the query actor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from exo_stream.actors.mailbox import Mailbox, Request
from exo_stream.limits import Limits
from exo_stream.model import Row
from exo_stream.payload import EncodedBatch
from exo_stream.storage.engine import Cold, Engine, Page, Retention, ScanPlan, Version

FETCH_KEYS_MAX: Final = 256
"""Keys that one asker looks up at a time: between them others get their turn, ingest included."""


@dataclass(frozen=True, slots=True, eq=False)
class Fetch(Request[list[Row | None]]):
    """The rows of these row keys at ``version``, which the asker has pinned."""

    version: Version
    keys: Sequence[bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Scan(Request[Page]):
    """One planned page of a scan of ``version``, which the asker has pinned."""

    version: Version
    plan: ScanPlan


@dataclass(frozen=True, slots=True, eq=False)
class ReadLog(Request[list[EncodedBatch]]):
    """The batches that follow ``after``, up to ``through``, one page of them."""

    after: int
    through: int


@dataclass(frozen=True, slots=True, eq=False)
class FindTime(Request[int]):
    """The first retained sequence committed at or after ``committed_at``."""

    committed_at: int


@dataclass(frozen=True, slots=True, eq=False)
class FindCutoff(Request[int]):
    """The floor that ``retention`` asks for at time ``now``."""

    retention: Retention
    now: int


Read = Fetch | Scan | ReadLog | FindTime | FindCutoff


class Reads:
    """The asking side of the query actor. ``near`` answers gets and pages, ``far`` long work."""

    def __init__(
        self, engine: Engine, near: Mailbox[Read], far: Mailbox[Read], limits: Limits
    ) -> None:
        self.engine = engine
        self.limits = limits
        self._near = near
        self._far = far
        self._served_from_memory = 0

    async def rows(self, version: Version, keys: Sequence[bytes]) -> list[Row | None]:
        """The row of each row key at ``version``; tombstones are rows."""
        found = [self.engine.lookup(version, key) for key in keys]
        cold = {key for key, row in zip(keys, found, strict=True) if isinstance(row, Cold)}
        if not cold:
            await self._yield_now_and_then()
            return [row for row in found if not isinstance(row, Cold)]
        fetched: dict[bytes, Row | None] = {}
        wanted = sorted(cold)  # neighbours share sub-blocks
        self.engine.pin(version)
        try:
            for start in range(0, len(wanted), FETCH_KEYS_MAX):
                part = wanted[start : start + FETCH_KEYS_MAX]
                rows = await self._near.ask(Fetch(version, part))
                fetched.update(zip(part, rows, strict=True))
        finally:
            self.engine.unpin(version)
        return [
            fetched[key] if isinstance(row, Cold) else row
            for key, row in zip(keys, found, strict=True)
        ]

    async def page(
        self,
        version: Version,
        start: bytes,
        end: bytes,
        *,
        rows_max: int,
        bytes_max: int | None = None,
        forward: bool,
    ) -> Page:
        """One page of the live rows with ``start <= row key < end`` at ``version``."""
        limits = self.limits
        plan = self.engine.scan(
            version,
            start,
            end,
            rows_max=min(rows_max, limits.page_rows_max),
            bytes_max=limits.page_bytes_max if bytes_max is None else bytes_max,
            forward=forward,
        )
        if plan.in_memory:
            # A page takes a thousand times as long as a key: others run before each one.
            await trio.lowlevel.checkpoint()
            return plan.run(None)
        self.engine.pin(version)
        try:
            return await self._near.ask(Scan(version, plan))
        finally:
            self.engine.unpin(version)

    async def log_page(self, after: int, through: int) -> list[EncodedBatch]:
        """The batches that follow ``after``, up to ``through``: at least one if there is one.

        Raises BatchEvictedError if the next one is gone.
        """
        return await self._near.ask(ReadLog(after, through))

    async def sequence_at(self, committed_at: int) -> int:
        """The first retained sequence committed at or after this time, in microseconds."""
        return await self._far.ask(FindTime(committed_at))

    async def cutoff(self, retention: Retention, now: int) -> int:
        """The floor that ``retention`` asks for at time ``now``, in microseconds."""
        return await self._far.ask(FindCutoff(retention, now))

    async def _yield_now_and_then(self) -> None:
        # A full checkpoint is twenty times the price of such a read; a task that reads in a loop
        # still lets others run.
        self._served_from_memory += 1
        if self._served_from_memory % 64:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
