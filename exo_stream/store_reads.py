"""What the store reads for its callers: rows, ranges and batches, each at one Version."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from exo_stream.errors import BatchEvictedError, InvalidRequestError, LimitExceededError
from exo_stream.ground import Ground
from exo_stream.model import SEQUENCE_MAX, Batch, Keyspace, VersionedValue, row_key
from exo_stream.payload import EncodedBatch
from exo_stream.scan import bounds
from exo_stream.selectors import Selector
from exo_stream.writes import check_keys


class StoreReads:
    """The store's reads that end when they are answered; a scan or a feed is an object itself.

    Each waits until ``min_sequence`` is visible, or without ``wait`` raises NotVisibleYetError.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._sources = ground.sources
        self._limits = ground.sources.limits
        self._reads = ground.sources.reads

    async def entries(
        self,
        keys: Sequence[bytes],
        *,
        min_sequence: int,
        wait: bool,
        bytes_max: int | None = None,
    ) -> list[VersionedValue]:
        """The keys' values at one sequence, in the order asked.

        Raises LimitExceededError if their values have more than ``bytes_max`` together, which is
        ``get_many_bytes_max`` unless told.
        """
        if not isinstance(keys, Sequence):
            raise InvalidRequestError("keys are a sequence of keys")
        check_keys(keys)
        if len(keys) > self._limits.get_many_keys_max:
            raise LimitExceededError("get_many_keys_max", self._limits.get_many_keys_max, len(keys))
        version = await self._ground.version(min_sequence, wait=wait)
        rows = await self._reads.rows(
            version,
            [row_key(Keyspace.STORE, key) for key in keys],
            bytes_max=self._limits.get_many_bytes_max if bytes_max is None else bytes_max,
        )
        return [
            VersionedValue(None, 0, version.frontier)
            if row is None or row.value is None
            else VersionedValue(row.value, row.sequence, version.frontier)
            for row in rows
        ]

    async def range(
        self,
        start: bytes,
        end: bytes,
        limit: int,
        *,
        forward: bool,
        min_sequence: int,
        wait: bool,
    ) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Up to ``limit`` pairs of a range in key order, or against it; at which sequence."""
        low, high = bounds(start, end)
        if type(limit) is not int or limit < 0:
            raise InvalidRequestError("a limit is a number from 0 on")
        version = await self._ground.version(min_sequence, wait=wait)
        pairs: list[tuple[bytes, bytes]] = []
        if not limit:
            await trio.lowlevel.checkpoint()
        self._reads.engine.pin(version)
        try:
            while len(pairs) < limit:
                page = await self._reads.page(
                    version, low, high, rows_max=limit - len(pairs), forward=forward
                )
                pairs.extend((row.key[1:], row.value) for row in page.rows if row.value is not None)
                if page.resume is None:
                    break
                low, high = (page.resume, high) if forward else (low, page.resume)
        finally:
            self._reads.engine.unpin(version)
        return version.frontier, pairs

    async def batch(self, sequence: int) -> Batch | None:
        """The store's part of a batch; None if it is not there yet. Raises BatchEvictedError."""
        if type(sequence) is not int or not 0 <= sequence <= SEQUENCE_MAX:
            raise InvalidRequestError("a sequence number is an unsigned 64-bit integer")
        version = await self._ground.version()
        if sequence < version.floor:
            await trio.lowlevel.checkpoint()
            raise BatchEvictedError(version.floor)
        if sequence > self._sources.frontier.visible:
            await trio.lowlevel.checkpoint()
            return None
        batch = await self._logged(sequence)
        if batch is None:
            return None
        matching = Selector().select(batch)
        entries = matching.entries if matching else ()
        return Batch(sequence, batch.committed_at, entries, self._sources.log_id)

    async def _logged(self, sequence: int) -> EncodedBatch | None:
        page = self._sources.tail.since(sequence - 1, batches_max=1, bytes_max=1)
        if page is None:
            page = await self._reads.log_page(sequence - 1, sequence)
        else:
            await trio.lowlevel.checkpoint()
        return page[0] if page and page[0].sequence == sequence else None
