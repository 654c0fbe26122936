"""The workload: what every writer writes, known beforehand, so that a torn batch shows.

A batch begins with its author's own key, whose value says which of the author's batches this is and
how many entries it has; the rest follows from these and the seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exo_stream.limits import KIB, MIB, Limits
from exo_stream.model import Entry, Keyspace

LIMITS: Final = Limits(
    group_batches_max=16,
    memtable_entries_max=256,
    memtable_bytes_max=256 * KIB,
    slice_rows_max=512,
    slice_bytes_max=256 * KIB,
    runs_max=2,
    cache_bytes_max=256 * KIB,
    tail_batches_max=32,
    tail_bytes_max=64 * KIB,
    page_rows_max=64,
    page_bytes_max=64 * KIB,
    checkpoint_wal_bytes=192 * KIB,
    checkpoint_idle_wal_bytes=32 * KIB,
    idle_seconds=1,
    free_bytes_min=1 * MIB,
)
"""So small that a few hundred batches fold, merge, delete and CHECKPOINT many times."""

SHARED_KEYS: Final = 600

_AUTHOR: Final = b"writer/"


@dataclass(frozen=True, slots=True)
class Work:
    """What one batch puts and deletes, in this order."""

    puts: Sequence[tuple[bytes, bytes]]
    deletes: Sequence[bytes]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries of the batch as the log has them."""
        store = int(Keyspace.STORE)
        return (
            *(Entry(store, key, value) for key, value in self.puts),
            *(Entry(store, key, None) for key in self.deletes),
        )


def work(seed: str, writer: int, number: int) -> Work:
    """The ``number``-th batch of a writer."""
    dice = random.Random(f"{seed}/{writer}/{number}")
    count = dice.choice((1, 2, 5, 10, 20, 40)) if number % 50 else 300
    keys = [b"key/%04d" % dice.randrange(SHARED_KEYS) for _ in range(count)]
    deletions = sum(dice.random() < 0.15 for _ in keys)
    puts = [(key, dice.randbytes(dice.choice((0, 20, 100, 700)))) for key in keys[deletions:]]
    own = (author_key(writer), b"%d of %d" % (number, count))
    return Work([own, *puts], keys[:deletions])


def author_key(writer: int) -> bytes:
    """The key that only this writer writes, in each of its batches."""
    return _AUTHOR + b"%d" % writer


def author(entries: Sequence[Entry]) -> tuple[int, int]:
    """Who wrote a batch, and which of the writer's batches it is."""
    _, key, value = entries[0]
    assert key.startswith(_AUTHOR), key
    assert value is not None, key
    return int(key.removeprefix(_AUTHOR)), int(value.split()[0])
