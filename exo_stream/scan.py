"""A scan of the store that is read as lazily as its reader wants, on one snapshot."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

import trio

from exo_stream.actors.reads import Reads
from exo_stream.model import Keyspace, row_key
from exo_stream.snapshots import Snapshot, Snapshots
from exo_stream.writes import check_keys


def bounds(start: bytes, end: bytes) -> tuple[bytes, bytes]:
    """An inclusive range of store keys, an empty ``end`` unbounded, as a half-open one of rows."""
    check_keys([start, end])
    low = row_key(Keyspace.STORE, start)
    if not end:
        return low, row_key(Keyspace.STORE + 1, b"")
    return low, row_key(Keyspace.STORE, end) + b"\x00"


class Scan:
    """Every pair of a range in key order, or against it, as the table was when it was entered.

    Raises SnapshotExpiredError when it is read too slowly, or too many are being read.
    """

    def __init__(
        self, reads: Reads, snapshots: Snapshots, low: bytes, high: bytes, *, forward: bool
    ) -> None:
        self._reads = reads
        self._snapshots = snapshots
        self._low = low
        self._high = high
        self._forward = forward
        self._snapshot: Snapshot | None = None
        self._page: deque[tuple[bytes, bytes]] = deque()
        self._more = True

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        self._snapshot = self._snapshots.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._snapshot is not None
        self._snapshot.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def sequence(self) -> int:
        """The sequence number whose state it shows."""
        assert self._snapshot is not None, "a scan is used inside its async with block"
        return self._snapshot.sequence

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[bytes, bytes]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._page:
            page = await self.next_page(self._reads.limits.page_rows_max)
            if page is None:
                raise StopAsyncIteration
            self._page.extend(page)
        return self._page.popleft()

    async def next_page(self, rows_max: int) -> list[tuple[bytes, bytes]] | None:
        """Some more pairs, perhaps none yet; None when all have been given."""
        assert self._snapshot is not None, "a scan is used inside its async with block"
        version = self._snapshot.check()
        if not self._more:
            await trio.lowlevel.checkpoint()
            return None
        page = await self._reads.page(
            version, self._low, self._high, rows_max=rows_max, forward=self._forward
        )
        if page.resume is None:
            self._more = False
        elif self._forward:
            self._low = page.resume
        else:
            self._high = page.resume
        return [(row.key[1:], row.value) for row in page.rows if row.value is not None]
