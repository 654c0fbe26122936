"""Fetching from the file: no more bytes at a time than were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from exo_stream.errors import LimitExceededError
from exo_stream.limits import MIB, Limits
from exo_stream.model import Entry, Row, row_key
from exo_stream.storage.duckdb_engine import open_duckdb_engine
from tests.tables import work, write

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


def test_a_fetch_ends_once_it_has_the_bytes_that_were_asked_for(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=Limits(memtable_entries_max=10))
    keys = [b"%d" % number for number in range(10)]
    write(engine, [Entry(0, key, key * MIB) for key in keys])
    work(engine)
    wanted = [row_key(0, key) for key in keys]

    def fetched(bytes_max: int) -> list[bytes | None]:
        rows = engine.open_reader().fetch(engine.version, wanted, bytes_max=bytes_max)
        return [row and row.key for row in rows]

    assert fetched(1) == wanted[:3], "those whose sub-blocks are read together"
    assert fetched(4 * MIB) == wanted[:6]
    assert fetched(11 * MIB) == wanted
    engine.close()


def test_versions_are_fetched_without_the_values_and_leave_nothing_in_the_cache(
    path: Path,
) -> None:
    engine = open_duckdb_engine(path, limits=Limits(memtable_entries_max=10))
    keys = [b"%d" % number for number in range(9)]
    write(engine, [*(Entry(0, key, key * MIB) for key in keys), Entry(0, b"9", b"")])
    work(engine)
    wanted = [row_key(0, key) for key in (*keys, b"9", b"none")]
    rows = engine.open_reader().fetch(engine.version, wanted, bytes_max=1, values=False)
    assert rows == [*(Row(key, 1, b"") for key in wanted[:10]), None]
    assert engine.statistics().cache_bytes == 0
    engine.close()


def test_of_large_values_of_one_key_only_the_newest_is_read(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=Limits(memtable_entries_max=1))
    for digit in (b"1", b"2"):
        write(engine, [Entry(0, b"k", digit * 3 * MIB)])
        work(engine)
    assert engine.statistics().runs == 2
    engine._database.con.execute("DELETE FROM kv WHERE sequence = 1")
    (row,) = engine.open_reader().fetch(engine.version, [row_key(0, b"k")])
    assert row == Row(row_key(0, b"k"), 2, b"2" * 3 * MIB)
    engine.close()


def test_the_nine_methods_bound_the_bytes_of_a_look_up_too(path: Path) -> None:
    limits = Limits(memtable_entries_max=10, get_many_bytes_max=4 * MIB)
    engine = open_duckdb_engine(path, limits=limits)
    keys = [b"%d" % number for number in range(10)]
    write(engine, [Entry(0, key, key * MIB) for key in keys])
    work(engine)
    assert engine.get_many(keys[:3] * 2) == [(key, key * MIB) for key in keys[:3] * 2]
    with pytest.raises(LimitExceededError, match="get_many_bytes_max"):
        engine.get_many(keys)
    engine.close()
