"""Upkeep of streams: removes those that expire, applies their retention, deletes what is left.

Everything that is to be done is written in the STREAM_UPKEEP keyspace with the batch that makes it
necessary, so nothing is forgotten by a crash and nothing about idle streams is kept in memory. Each
step is a decision like any other, bounded in rows and bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import trio

from exo_stream.actors.mailbox import Bell
from exo_stream.errors import ExoStreamError, PlatformClosedError
from exo_stream.ground import Ground
from exo_stream.logger import log
from exo_stream.model import Keyspace, Row, row_key
from exo_stream.storage.engine import Version
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.looking import Trim, drop, evicted, let_go, look, read_remainder
from exo_stream.streams.messages import data_key, read_key
from exo_stream.streams.reading import Reader
from exo_stream.streams.record import Record
from exo_stream.streams.removal import LOOK, REMAINDER, read_look_key

TICK_SECONDS: Final = 1.0
"""How often the clock is looked at."""
SLICE_ROWS: Final = 1_024
"""Rows that one decision deletes."""
LOOKS_MAX: Final = 256
"""Looks under way at a time, so that many streams that expire together share their COMMITs."""
NEVER: Final = 1 << 64


class Upkeep:
    """What is to be done for the streams of one platform, and the task that does it."""

    def __init__(self, ground: Ground, accesses: Accesses) -> None:
        self._ground = ground
        self._reads = ground.sources.reads
        self._accesses = accesses
        self._bell = Bell()
        self._next_look = 0
        self._has_remainders = True
        self._is_in_doubt = False
        self._is_over = False

    def doubt(self) -> None:
        """Something may be written that nobody notes: whoever asked for it has left."""
        self._is_in_doubt = True

    def note(self, keys: Iterable[bytes]) -> None:
        """These keys of STREAM_UPKEEP have been written."""
        for key in keys:
            if key.startswith(REMAINDER):
                self._has_remainders = True
                self._bell.ring()
            else:
                self._next_look = min(self._next_look, read_look_key(key)[0])
                if self._next_look <= self._ground.clock():
                    self._bell.ring()

    def stop(self) -> None:
        """Do nothing more; what is left is done after the next opening."""
        self._is_over = True
        self._bell.ring()

    async def run(self) -> None:
        """Do what is to be done, when its time comes, until the platform closes."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (self._is_over or self._reads.engine.own_sequences):
            try:
                await self._resolve_doubt()
                await self._drop_remainders()
                await self.sweep()
            except PlatformClosedError:
                return
            except ExoStreamError as error:
                log.warning("upkeep of streams postponed", error=str(error))
            with trio.move_on_after(TICK_SECONDS):
                await self._bell.wait()

    async def _resolve_doubt(self) -> None:
        """Look for everything anew, once all that was handed over is written."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_in_doubt:
            self._is_in_doubt = False  # first, for more may come meanwhile
            await self._ground.settle()
            self._next_look, self._has_remainders = 0, True

    async def sweep(self) -> int:
        """Look at every stream whose time has come; answer how many of them had expired."""
        expired = 0
        while self._next_look <= (now := self._ground.clock()):
            rows = await self._rows(Keyspace.STREAM_UPKEEP, LOOK, _look_end(now), LOOKS_MAX)
            if not rows:
                await self._find_next(now)
                break
            expired += await self._look_at_all(rows)
        else:
            await trio.lowlevel.checkpoint()
        return expired

    async def _find_next(self, now: int) -> None:
        self._next_look = NEVER  # first, for what is noted meanwhile lowers it
        rows = await self._rows(Keyspace.STREAM_UPKEEP, _look_end(now), _look_end(NEVER - 1), 1)
        for row in rows:
            self._next_look = min(self._next_look, read_look_key(row.key[1:])[0])

    async def _look_at_all(self, rows: list[Row]) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        counted: list[bool] = []
        failed: list[ExoStreamError] = []

        async def look_at(row: Row) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                counted.append(await self._look_at(row))
            except ExoStreamError as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            for row in rows:
                nursery.start_soon(look_at, row)
        if failed:
            raise failed[0]
        return sum(counted)

    async def _look_at(self, row: Row) -> bool:
        at, incarnation = read_look_key(row.key[1:])
        name = (row.value or b"").decode()
        trim = await self._trim(name, incarnation)
        decision = look(name, at, incarnation, self._accesses, trim)
        has_expired = await self._ground.decide(decision, frees=True)
        if has_expired:
            self._accesses.forget(incarnation)
            self._has_remainders = True
            self._bell.ring()
        return has_expired

    async def _trim(self, name: str, incarnation: int) -> Trim | None:
        """What retention lets go of now, one slice of it; None if that is nothing."""
        now = self._ground.clock()
        version = await self._ground.version()
        self._reads.engine.pin(version)
        try:
            reader = Reader(self._reads, version)
            record = await reader.record(name)
            if record is None or record.deleted or record.incarnation != incarnation:
                return None
            due = record.trim_due_at(now)
            if due is None or due > now:
                return None
            bytes_max = self._reads.limits.page_bytes_max
            stored = await reader.messages(record, record.low, bytes_max=bytes_max)
            trim = evicted(record, stored, now)
            return await self._with_doomed(version, record, trim)
        finally:
            self._reads.engine.unpin(version)

    async def _with_doomed(self, version: Version, record: Record, trim: Trim) -> Trim:
        """The trim, with rows of the stream's own that nobody reads any more."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if record.references or trim.low <= record.trimmed:
            return trim
        low = data_key(record.incarnation, record.trimmed + 1)
        high = data_key(record.incarnation, trim.low + 1)
        rows = await self._rows(Keyspace.STREAM_DATA, low, high, SLICE_ROWS, version)
        doomed = [row.key[1:] for row in rows]
        # A page may be short: what it does not show is looked at again.
        trimmed = read_key(doomed[-1])[1] if doomed else trim.low
        return replace(trim, doomed=doomed, trimmed=trimmed)

    async def _drop_remainders(self) -> None:
        """Delete what is left of every removed stream."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._has_remainders and not self._is_over:
            rows = await self._rows(Keyspace.STREAM_UPKEEP, REMAINDER, LOOK, LOOKS_MAX)
            if not rows:
                self._has_remainders = False
            for row in rows:
                await self._drop_remainder(row)

    async def _drop_remainder(self, row: Row) -> None:
        incarnation = int.from_bytes(row.key[2:], "big")
        self._accesses.forget(incarnation)
        if read_remainder(row.value or b"") is not None:
            await self._ground.decide(let_go(incarnation), frees=True)
            return
        first, end = incarnation.to_bytes(8, "big"), (incarnation + 1).to_bytes(8, "big")
        for keyspace in (Keyspace.STREAM_DATA, Keyspace.STREAM_PRODUCER):
            while rows := await self._rows(keyspace, first, end, SLICE_ROWS):
                doomed = [(int(keyspace), row.key[1:]) for row in rows]
                await self._ground.decide(drop(incarnation, doomed, last=False), frees=True)
        await self._ground.decide(drop(incarnation, (), last=True), frees=True)

    async def _rows(
        self, keyspace: int, low: bytes, high: bytes, rows_max: int, version: Version | None = None
    ) -> list[Row]:
        """The first rows of a range: some of them, none only if there are none."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if version is None:
            version = await self._ground.version()
        rows: list[Row] = []
        resume: bytes | None = row_key(keyspace, low)
        self._reads.engine.pin(version)
        try:
            while resume is not None and not rows:
                # Of a large stream this takes long: no reader is to wait for it.
                page = await self._reads.page(
                    version,
                    resume,
                    row_key(keyspace, high),
                    rows_max=rows_max,
                    forward=True,
                    far=True,
                )
                rows, resume = page.rows, page.resume
        finally:
            self._reads.engine.unpin(version)
        return rows


def _look_end(at: int) -> bytes:
    """Above the keys of all looks up to this time."""
    return LOOK + at.to_bytes(8, "big") + b"\xff" * 9
