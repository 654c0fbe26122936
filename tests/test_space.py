"""The space of a file: what was overwritten, merged, pruned and evicted is used again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from exo_stream.limits import MIB, Limits
from exo_stream.model import Entry
from exo_stream.storage.duckdb_engine import DuckDBEngine, open_duckdb_engine
from tests.tables import rows, work, write

LIMITS = Limits(
    memtable_entries_max=2_000,
    slice_rows_max=4_000,
    checkpoint_wal_bytes=MIB,
    checkpoint_idle_wal_bytes=1,
)


def _write_round(engine: DuckDBEngine, seed: int) -> None:
    """Every key once more, in batches of 500, and what becomes due; then let go of the log."""
    chance = random.Random(seed)
    numbers = chance.sample(range(10_000), 10_000)
    for first in range(0, 10_000, 500):
        some = numbers[first : first + 500]
        write(engine, [Entry(0, b"%05d" % number, chance.randbytes(100)) for number in some])
        work(engine)
    write(engine, floor=engine.version.frontier + 1)
    work(engine, idle=True)


@pytest.mark.slow
def test_writing_the_same_amount_again_does_not_grow_the_file(tmp_path: Path) -> None:
    """But for a tenth; a merge writes before it deletes, so it has its room after a few rounds."""
    engine = open_duckdb_engine(tmp_path / "store.duckdb", limits=LIMITS)
    sizes: list[int] = []
    for seed in range(6):
        _write_round(engine, seed)
        sizes.append(engine.statistics().file_bytes)
    engine.close()
    assert max(sizes[3:]) <= 1.1 * max(sizes[:3]), sizes


def test_what_is_deleted_stays_so_when_the_run_that_has_it_is_not_merged(tmp_path: Path) -> None:
    """Its tombstone takes space, and must: it hides what an older run still holds."""
    limits = Limits(memtable_entries_max=8, runs_max=2)
    engine = open_duckdb_engine(tmp_path / "store.duckdb", limits=limits)
    keys = [b"%03d" % number for number in range(100)]
    write(engine, [Entry(0, key, b"old") for key in keys])
    work(engine)
    write(engine, [Entry(0, key, None) for key in keys[:8]])
    work(engine)
    write(engine, [Entry(0, key, b"new") for key in keys[4:12]])
    assert "merge" in work(engine)
    assert (engine.statistics().runs, engine.statistics().block_entries) == (2, 100 + 12)
    assert [row.key[1:] for row in rows(engine, engine.version)] == keys[4:]
    engine.close()
