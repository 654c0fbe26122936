"""Reading at a Version: from memory where memory can tell, else by asking the query actor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from exo_stream.actors.mailbox import Mailbox, Request
from exo_stream.errors import LimitExceededError, OverloadedError
from exo_stream.limits import Limits
from exo_stream.model import Row
from exo_stream.payload import EncodedBatch
from exo_stream.reduce.reduction import Reduction
from exo_stream.reduce.request import ReduceRequest, ReduceResult
from exo_stream.storage.engine import (
    Cold,
    Engine,
    Page,
    Reducing,
    Retention,
    ScanPlan,
    Version,
)

FETCH_KEYS_MAX: Final = 256
"""Keys that one asker looks up at a time: between them others get their turn, ingest included."""


@dataclass(frozen=True, slots=True, eq=False)
class Fetch(Request[list[Row | None]]):
    """The rows of the first of these row keys at ``version``, which the asker has pinned: of all
    of them, or of those that fit into a turn, at least one.
    """

    version: Version
    keys: Sequence[bytes]
    values: bool = True


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
class Reduce(Request[ReduceResult | None]):
    """One planned slice of a reduce at ``version``, which the asker has pinned; the result, if it
    was the last one.
    """

    version: Version
    reducing: Reducing


@dataclass(frozen=True, slots=True, eq=False)
class FindTime(Request[int]):
    """The first retained sequence committed at or after ``committed_at``."""

    committed_at: int


@dataclass(frozen=True, slots=True, eq=False)
class FindCutoff(Request[int]):
    """The floor that ``retention`` asks for at time ``now``."""

    retention: Retention
    now: int


@dataclass(frozen=True, slots=True, eq=False)
class SumLog(Request[int]):
    """The bytes of all batches from ``floor`` on."""

    floor: int


class _Load:
    """The bytes of values that one look-up has brought."""

    def __init__(self, bytes_max: int | None) -> None:
        self._bytes_max = bytes_max
        self._values = 0
        self._bytes = 0

    def add(self, rows: Iterable[Row | None]) -> None:
        if self._bytes_max is None:
            return
        values = [row.value for row in rows if row is not None and row.value]
        self._values += len(values)
        self._bytes += sum(map(len, values))
        if self._values > 1 and self._bytes > self._bytes_max:
            raise LimitExceededError("get_many_bytes_max", self._bytes_max, self._bytes)


Read = Fetch | Scan | Reduce | ReadLog | FindTime | FindCutoff | SumLog


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
        self._reductions = trio.Semaphore(limits.reductions_max)

    async def rows(
        self,
        version: Version,
        keys: Sequence[bytes],
        *,
        bytes_max: int | None = None,
        values: bool = True,
    ) -> list[Row | None]:
        """The row of each row key at ``version``; tombstones are rows.

        Without ``values`` those that would have to be read are left out: some are ``b""``.
        Raises LimitExceededError as soon as several values have more than ``bytes_max`` together.
        """
        found = [self.engine.lookup(version, key) for key in keys]
        cold = {key for key, row in zip(keys, found, strict=True) if isinstance(row, Cold)}
        load = _Load(bytes_max)
        if len(keys) > 1:
            load.add({row.key: row for row in found if isinstance(row, Row)}.values())
        if not cold:
            await self._yield_now_and_then()
            return [row for row in found if not isinstance(row, Cold)]
        fetched = await self._fetch(
            version, sorted(cold), load, values=values
        )  # neighbours share sub-blocks
        return [
            fetched[key] if isinstance(row, Cold) else row
            for key, row in zip(keys, found, strict=True)
        ]

    async def _fetch(
        self, version: Version, keys: Sequence[bytes], load: _Load, *, values: bool
    ) -> dict[bytes, Row | None]:
        fetched: dict[bytes, Row | None] = {}
        self.engine.pin(version)
        try:
            while len(fetched) < len(keys):
                part = keys[len(fetched) : len(fetched) + FETCH_KEYS_MAX]
                rows = await self._near.ask(Fetch(version, part, values))
                load.add(rows)
                fetched.update(zip(part, rows, strict=False))  # a turn may have ended before
        finally:
            self.engine.unpin(version)
        return fetched

    async def page(
        self,
        version: Version,
        start: bytes,
        end: bytes,
        *,
        rows_max: int,
        bytes_max: int | None = None,
        forward: bool,
        far: bool = False,
    ) -> Page:
        """One page of the live rows with ``start <= row key < end`` at ``version``.

        With ``far`` it is part of long work, so that no get waits for it.
        """
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
            return await (self._far if far else self._near).ask(Scan(version, plan))
        finally:
            self.engine.unpin(version)

    async def reduce(
        self, version: Version, start: bytes, end: bytes, request: ReduceRequest
    ) -> ReduceResult:
        """What a checked request makes of the live rows with ``start <= row key < end``.

        Raises OverloadedError when it takes longer than a query may, LimitExceededError when it
        has too many groups, InvalidReduceError when a sum does not fit into its kind.
        """
        reduction = Reduction(request, self.limits)
        seconds = self.limits.query_seconds_max
        if start >= end or (request.filter is not None and request.filter.contradiction):
            await trio.lowlevel.checkpoint()
            return reduction.result(version.frontier)
        self.engine.pin(version)
        try:
            with trio.move_on_after(seconds):
                async with self._reductions:
                    reducing = self.engine.open_reduce(version, start, end, reduction)
                    return await self._reduce(version, reducing)
        finally:
            self.engine.unpin(version)
        raise OverloadedError(f"the reduce took longer than {seconds} seconds")

    async def _reduce(self, version: Version, reducing: Reducing) -> ReduceResult:
        while True:
            await trio.lowlevel.checkpoint()
            if not reducing.plan():
                continue
            result = await self._far.ask(Reduce(version, reducing))
            if result is not None:
                return result

    async def log_page(self, after: int, through: int, *, far: bool = False) -> list[EncodedBatch]:
        """The batches that follow ``after``, up to ``through``: at least one if there is one.

        With ``far`` it is part of long work. Raises BatchEvictedError if the next one is gone.
        """
        return await (self._far if far else self._near).ask(ReadLog(after, through))

    async def sequence_at(self, committed_at: int) -> int:
        """The first retained sequence committed at or after this time, in microseconds."""
        return await self._far.ask(FindTime(committed_at))

    async def log_bytes(self, floor: int) -> int:
        """The payloads of every batch from ``floor`` on, together."""
        return await self._near.ask(SumLog(floor))

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
