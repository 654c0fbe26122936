"""Files that an engine has lived in: keys written again and deleted, in several runs of blocks."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from exo_stream.limits import KIB, Limits
from exo_stream.storage.duckdb_engine import DuckDBEngine

LIMITS: Final = replace(
    Limits(), memtable_entries_max=500, memtable_bytes_max=256 * KIB, slice_rows_max=200
)
"""So small that a short life has folds and merges."""


def live(engine: DuckDBEngine, seed: int, batches: int) -> None:
    """So many batches of 20 keys out of 400; every fifth deletes."""
    chance = random.Random(seed)
    for number in range(batches):
        keys = [b"k%04d" % chance.randrange(400) for _ in range(20)]
        if number % 5 == 4:
            engine.delete_batch(keys)
        else:
            engine.put_batch([(key, chance.randbytes(chance.randrange(60))) for key in keys])
