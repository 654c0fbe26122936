"""The newest batches, kept in memory so that following the log rarely reads the file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from exo_stream.payload import ENTRY_BYTES, EncodedBatch, count_entries

_BATCH_BYTES: Final = 272
"""What a batch costs in memory beside its payload and its entries."""


class Tail:
    """A run of consecutive batches, bounded in number and bytes. One writer pushes; anyone reads.

    It holds every batch that follows ``after``; numbers may have holes, as with a backend that
    numbers its batches itself.
    """

    def __init__(self, after: int, *, batches_max: int, bytes_max: int) -> None:
        self.after = after
        self.bytes = 0
        self._batches_max = batches_max
        self._bytes_max = bytes_max
        self._batches: list[EncodedBatch] = []
        self._first = 0  # the batches before it are gone; they are cut off now and then

    def __len__(self) -> int:
        return len(self._batches) - self._first

    def push(self, batches: Sequence[EncodedBatch]) -> None:
        """Append what was just committed, and drop what no longer fits."""
        self._batches.extend(batches)
        self.bytes += sum(map(_held, batches))
        while len(self) > self._batches_max or (self.bytes > self._bytes_max and len(self) > 1):
            self._drop_first()
        self._cut_off()

    def evict_below(self, floor: int) -> None:
        """Drop every batch below ``floor``."""
        while len(self) and self._batches[self._first].sequence < floor:
            self._drop_first()
        self.after = max(self.after, floor - 1)
        self._cut_off()

    def since(self, after: int, *, batches_max: int, bytes_max: int) -> list[EncodedBatch] | None:
        """Some batches that follow ``after``, at least one if there is one; None if they start
        before this tail.
        """
        if after < self.after:
            return None
        start = bisect_right(self._batches, after, lo=self._first, key=_sequence)
        page: list[EncodedBatch] = []
        page_bytes = 0
        for batch in self._batches[start : start + batches_max]:
            page_bytes += len(batch.payload)
            if page and page_bytes > bytes_max:
                break
            page.append(batch)
        return page

    def _drop_first(self) -> None:
        batch = self._batches[self._first]
        self.after = batch.sequence
        self.bytes -= _held(batch)
        self._first += 1

    def _cut_off(self) -> None:
        # Half the list at a time, so that each batch is moved once at most on the average.
        if self._first * 2 >= len(self._batches):
            del self._batches[: self._first]
            self._first = 0


def _held(batch: EncodedBatch) -> int:
    # Keys and values are there twice once a batch is decoded, which any reader may do at any time
    # and which the batch then keeps. A payload has the bytes of all of them, and little more.
    payload = batch.payload
    return _BATCH_BYTES + 2 * len(payload) + ENTRY_BYTES * count_entries(payload)


def _sequence(batch: EncodedBatch) -> int:
    return batch.sequence
