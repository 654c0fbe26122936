"""Batches for tests of the storage: small, numbered, and different from each other."""

from __future__ import annotations

from exo_stream.model import Entry
from exo_stream.payload import EncodedBatch, encode_entries


def make_batch(sequence: int, *, value_bytes: int = 10, committed_at: int = 0) -> EncodedBatch:
    """Batch ``sequence`` with one entry, committed ``sequence`` seconds after the epoch."""
    value = b"%d" % sequence + b"." * value_bytes
    payload = encode_entries([Entry(0, b"k%d" % sequence, value)])
    return EncodedBatch(sequence, committed_at or sequence * 1_000_000, payload)


def make_batches(first: int, last: int, *, value_bytes: int = 10) -> list[EncodedBatch]:
    """The batches ``first`` to ``last``."""
    return [make_batch(n, value_bytes=value_bytes) for n in range(first, last + 1)]
