"""A scan of the store that is read as lazily as its reader wants, on one snapshot."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Self

import trio

from exo_stream.actors.reads import Reads
from exo_stream.model import Keyspace, row_key
from exo_stream.read_stats import ReadStats
from exo_stream.snapshots import Snapshot, SnapshotHolder
from exo_stream.storage.engine import Page, Version
from exo_stream.writes import check_keys

Pair = tuple[bytes, bytes]

PAIR_BYTES: Final = 16
"""What a pair counts in a page beside its key and its value: what a frame needs for it at most."""


def bounds(start: bytes, end: bytes) -> tuple[bytes, bytes]:
    """An inclusive range of store keys, an empty ``end`` unbounded, as a half-open one of rows."""
    check_keys([start, end])
    low = row_key(Keyspace.STORE, start)
    if not end:
        return low, row_key(Keyspace.STORE + 1, b"")
    return low, row_key(Keyspace.STORE, end) + b"\x00"


class Scan:
    """Every pair of a range in key order, or against it, as the table was when it was entered.

    At most ``limit`` of them, if there is one; entering it waits for ``visible``. Raises
    SnapshotExpiredError when it is read too slowly, or too many are being read.
    """

    def __init__(
        self,
        reads: Reads,
        snapshots: SnapshotHolder,
        low: bytes,
        high: bytes,
        *,
        forward: bool,
        limit: int | None = None,
        visible: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._reads = reads
        self._visible = visible
        self._snapshots = snapshots
        self._low = low
        self._high = high
        self._forward = forward
        self._left = limit
        self._snapshot: Snapshot | None = None
        self._version: Version | None = None
        self._page: deque[Pair] = deque()
        self._more = True
        self._read_bytes = 0

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        if self._visible is not None:
            await self._visible()
        self._keep(self._snapshots.open())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def first_page(self, bytes_max: int) -> list[Pair]:
        """Enter it by reading its first page.

        Only if there is more does it hold a snapshot from then on, until ``close``: whoever wants
        no more than a page is not refused because others read slowly. A backend that has none
        shows each page of a bounded scan as it is when it is read, as ``range_scan`` does.
        """
        assert self._version is None, "a scan is entered once"
        engine = self._reads.engine
        self._version = version = engine.version
        engine.pin(version)
        try:
            pairs = await self._read(bytes_max)
            has_none = engine.own_sequences and self._left is not None
            if not self.is_read and not has_none:
                self._keep(self._snapshots.hold(version))
        finally:
            engine.unpin(version)
        return pairs

    def close(self) -> None:
        """Let go of what it holds; a second time it does nothing."""
        if self._snapshot is not None:
            self._snapshot.close()

    @property
    def sequence(self) -> int:
        """The sequence number whose state it shows."""
        assert self._version is not None, "a scan is used inside its async with block"
        return self._version.frontier

    @property
    def read_stats(self) -> ReadStats:
        """What it has read so far: the pairs of its pages."""
        return ReadStats(self._read_bytes)

    @property
    def is_read(self) -> bool:
        """Whether there are no more pages."""
        return not self._more or self._left == 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Pair:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._page:
            page = await self.next_page()
            if page is None:
                raise StopAsyncIteration
            self._page.extend(page)
        return self._page.popleft()

    async def next_page(self, bytes_max: int | None = None) -> list[Pair] | None:
        """Some more pairs, as many as fit into ``bytes_max``; None when all have been given."""
        assert self._version is not None, "a scan is used inside its async with block"
        if self.is_read:
            await trio.lowlevel.checkpoint()
            return None
        return await self._read(bytes_max or self._reads.limits.page_bytes_max) or None

    async def _read(self, bytes_max: int) -> list[Pair]:
        """The next pairs. None at all are the end: what is deleted is not a page."""
        rows_max = self._reads.limits.page_rows_max
        while not self.is_read:
            page = await self._reads.page(
                self._held_version(),
                self._low,
                self._high,
                rows_max=rows_max if self._left is None else min(rows_max, self._left),
                bytes_max=bytes_max,
                forward=self._forward,
            )
            pairs = self._take(page, bytes_max)
            if pairs:
                return pairs
        await trio.lowlevel.checkpoint()
        return []

    def _held_version(self) -> Version:
        """What is read, checked before every page: a long range of deleted keys is many."""
        assert self._version is not None
        return self._version if self._snapshot is None else self._snapshot.check()

    def _take(self, page: Page, bytes_max: int) -> list[Pair]:
        """The pairs of a page that fit; the next page begins behind them."""
        pairs: list[Pair] = []
        resume = page.resume
        for row in page.rows:
            assert row.value is not None, row.key
            bytes_max -= len(row.key) + len(row.value) + PAIR_BYTES
            if pairs and bytes_max < 0:
                resume = row.key if self._forward else page.rows[len(pairs) - 1].key
                break
            pairs.append((row.key[1:], row.value))
        self._read_bytes += ReadStats.of_pairs(pairs).read_bytes
        if self._left is not None:
            self._left -= len(pairs)
        if resume is None:
            self._more = False
        elif self._forward:
            self._low = resume
        else:
            self._high = resume
        return pairs

    def _keep(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._version = snapshot.version
