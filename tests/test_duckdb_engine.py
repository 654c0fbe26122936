"""DuckDBEngine: folds, merges, deletions, recovery and failures, with real SQL on a real file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from exo_stream.errors import CorruptionError, StoreError, StoreFullError
from exo_stream.limits import MIB, Limits
from exo_stream.model import Entry, Row, row_key
from exo_stream.storage import meta, table
from exo_stream.storage.blocks import CHECKSUM, SUB_BLOCK_BITS
from exo_stream.storage.duckdb_engine import DuckDBEngine, open_duckdb_engine
from exo_stream.storage.engine import COLD, Group
from tests.tables import rows, work, write

SMALL = Limits(memtable_entries_max=8, slice_rows_max=4, runs_max=2, checkpoint_idle_wal_bytes=1)
HOUR = 3600 * 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture
def engine(path: Path) -> Iterator[DuckDBEngine]:
    opened = open_duckdb_engine(path, limits=SMALL)
    yield opened
    opened.close()


def put(engine: DuckDBEngine, *keys: bytes, value: bytes | None = b"v") -> None:
    write(engine, [Entry(0, key, value) for key in keys])


def fill(engine: DuckDBEngine, *, value: bytes | None = b"v", first: int = 0) -> None:
    """As much as makes a memtable full, and the jobs that follow."""
    put(engine, *[b"%03d" % (first + number) for number in range(8)], value=value)
    work(engine)


def count_rows(engine: DuckDBEngine) -> int:
    found = engine._database.con.execute("SELECT count(*) FROM kv").fetchone()
    assert found is not None
    return int(found[0])


def test_the_checksum_of_rows_is_what_files_already_hold() -> None:
    """DuckDB does not promise that ``hash`` stays the same. If this fails, blocks written by an
    older DuckDB can no longer be verified: that takes a new format version.
    """
    found = duckdb.execute(
        f"SELECT {CHECKSUM} FROM (VALUES"
        " (1::UBIGINT, 0::UTINYINT, 'a'::BLOB, 'x'::BLOB),"
        " (2::UBIGINT, 1::UTINYINT, ''::BLOB, ''::BLOB),"
        " (3::UBIGINT, 0::UTINYINT, 'b'::BLOB, NULL)) t (sequence, keyspace, key, value)"
    ).fetchone()
    assert found == (16_498_560_052_713_521_145,)


def test_a_full_memtable_is_folded_and_what_comes_later_stays_in_memory(
    engine: DuckDBEngine,
) -> None:
    put(engine, *[b"%d" % number for number in range(8)])
    put(engine, b"later")
    assert work(engine) == ["fold"]
    statistics = engine.statistics()
    assert (statistics.blocks, statistics.runs, statistics.block_entries) == (1, 1, 8)
    assert (statistics.memtable_entries, statistics.folded_through) == (1, 1)
    assert engine.lookup(engine.version, row_key(0, b"later")) == Row(row_key(0, b"later"), 2, b"v")
    assert engine.lookup(engine.version, row_key(0, b"3")) is COLD
    assert engine.lookup(engine.version, row_key(0, b"zz")) is None


def test_a_cold_key_is_in_memory_once_it_was_fetched(engine: DuckDBEngine) -> None:
    fill(engine)
    wanted = row_key(0, b"003")
    (row,) = engine.open_reader().fetch(engine.version, [wanted])
    assert row == Row(wanted, 1, b"v")
    assert engine.lookup(engine.version, wanted) == row
    assert engine.statistics().cache_bytes > 0
    plan = engine.scan(engine.version, b"\0", b"\1", rows_max=3, bytes_max=MIB, forward=True)
    assert plan.in_memory
    assert [row.key[1:] for row in plan.run(None).rows] == [b"000", b"001", b"002"]


def test_too_many_runs_become_one_and_their_rows_go(engine: DuckDBEngine) -> None:
    for number in range(3):
        fill(engine, value=b"%d" % number)
    statistics = engine.statistics()
    assert (statistics.runs, statistics.block_entries, count_rows(engine)) == (1, 8, 8)
    assert {row.value for row in rows(engine, engine.version)} == {b"2"}


def test_runs_that_are_merged_take_the_age_of_their_newest(engine: DuckDBEngine) -> None:
    for hour in range(3):
        put(engine, *[b"%03d" % number for number in range(8)])
        work(engine, now=hour * HOUR)
    (run,) = engine._table.version.runs
    assert [(block.created_at, block.tier) for block in run.blocks] == [(2 * HOUR, 0)]
    for _ in range(2):
        put(engine, *[b"%03d" % number for number in range(8)])
        work(engine, now=2 * HOUR)
    (run,) = engine._table.version.runs
    assert run.blocks[0].created_at == 2 * HOUR


def test_an_old_merge_has_larger_blocks_and_coarser_filters(engine: DuckDBEngine) -> None:
    for _ in range(2):
        put(engine, *[b"%03d" % number for number in range(8)])
        work(engine, now=0)
    put(engine, *[b"%03d" % number for number in range(8)])
    job = engine.next_job(0, idle=False)
    assert job is not None
    while not job.step():
        pass
    job.install()
    work(engine, now=31 * 24 * HOUR)
    (run,) = engine._table.version.runs
    assert [(block.tier, block.filter) for block in run.blocks] == [(5, None)]
    assert len(rows(engine, engine.version)) == 8


def test_tombstones_go_when_nothing_older_can_hold_the_key(engine: DuckDBEngine) -> None:
    fill(engine)
    fill(engine, value=None)
    assert engine.statistics().block_entries == 16  # still hiding the older rows
    put(engine, *[b"9%02d" % number for number in range(8)], value=None)
    assert work(engine) == ["fold"]  # these hide nothing: no block at all
    assert engine.statistics().blocks == 2
    fill(engine, value=None)
    assert rows(engine, engine.version) == []
    assert (engine.statistics().blocks, count_rows(engine)) == (0, 0)


def test_blocks_that_overlap_nothing_are_moved_and_not_written_again(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=SMALL)
    for number in range(9):
        fill(engine, first=8 * number)
    assert engine.statistics().runs == 1
    assert engine.statistics().blocks == 9
    ids = {block.id for run in engine._table.version.runs for block in run.blocks}
    assert len(ids) == 9
    expected = rows(engine, engine.version)
    engine.close()
    engine = open_duckdb_engine(path, limits=SMALL)
    assert engine.statistics().runs == 1
    assert rows(engine, engine.version) == expected
    engine.close()


def test_keyspaces_are_in_blocks_of_their_own(engine: DuckDBEngine) -> None:
    write(engine, [Entry(keyspace, b"%d" % n, b"v") for keyspace in (0, 1) for n in range(4)])
    work(engine)
    (run,) = engine._table.version.runs
    assert [(block.keyspace, block.entries) for block in run.blocks] == [(0, 4), (1, 4)]


def test_a_large_row_has_a_sub_block_to_itself_also_after_a_merge(engine: DuckDBEngine) -> None:
    large = b"x" * 100_000
    for _ in range(3):
        write(
            engine,
            [Entry(0, b"%d" % n, large if n in {0, 3, 4} else b"v") for n in range(8)],
        )
        work(engine)
    (run,) = engine._table.version.runs
    (block,) = run.blocks
    by_first_key = dict(zip(block.fences.first_keys, block.fences.rows, strict=True))
    large_ones = [by_first_key[row_key(0, b"%d" % n)] for n in (0, 3, 4)]
    assert large_ones == [1, 1, 1]
    assert len(set(block.fences.ids)) == len(block.fences.ids)
    assert [row.value for row in rows(engine, engine.version)] == [
        large if n in {0, 3, 4} else b"v" for n in range(8)
    ]


def test_rows_that_a_pinned_version_has_stay_in_the_file(engine: DuckDBEngine) -> None:
    fill(engine, value=b"old")
    held = engine.version
    engine.pin(held)
    for _ in range(4):
        fill(engine, value=b"new")
    assert {row.value for row in rows(engine, held)} == {b"old"}
    assert count_rows(engine) > engine.statistics().block_entries
    engine.unpin(held)
    assert "removal" in work(engine)
    assert count_rows(engine) == engine.statistics().block_entries


def test_both_memtables_full_means_that_only_jobs_may_run(engine: DuckDBEngine) -> None:
    put(engine, *[b"%d" % number for number in range(8)])
    assert not engine.backlogged
    put(engine, *[b"%d" % number for number in range(8)])
    assert engine.backlogged
    assert work(engine)[:2] == ["fold", "fold"]
    assert not engine.backlogged


def test_writes_wait_for_merging_when_it_falls_far_behind(engine: DuckDBEngine) -> None:
    waited = 0
    for number in range(12):
        put(engine, *[b"%03d" % key for key in range(8)], value=b"%d" % number)
        job = engine.next_job(0, idle=False)  # the fold, and nothing else
        assert job is not None
        assert job.name == "fold"
        while not job.step():
            pass
        job.install()
        while engine.backlogged:
            waited += 1
            job = engine.next_job(0, idle=False)
            assert job is not None
            assert job.step()
            job.install()
    assert waited
    assert engine.statistics().runs <= table._OVERLAP_RATIO * SMALL.runs_max + 1
    assert {row.value for row in rows(engine, engine.version)} == {b"11"}


@pytest.mark.slow
def test_newer_runs_are_merged_while_an_old_merge_goes_on(engine: DuckDBEngine) -> None:
    seen = 0
    for number in range(30):
        put(engine, *[b"%03d" % key for key in range(number % 3, 40, 2)], value=b"%d" % number)
        for _ in range(7):
            job = engine.next_job(0, idle=False)
            if job is None:
                break
            if job.step():
                job.install()
            else:
                while not job.step():
                    pass
                job.install()
        seen = max(seen, len(engine._upkeep._merges))
    assert seen > 1
    expected = {row.key: row for row in rows(engine, engine.version)}
    work(engine)
    assert {row.key: row for row in rows(engine, engine.version)} == expected
    assert count_rows(engine) == engine.statistics().block_entries


def test_evicted_batches_are_deleted_once_folded(engine: DuckDBEngine) -> None:
    for _ in range(3):
        put(engine, b"a")
    write(engine, floor=3)
    assert engine.version.floor == 3
    assert "log removal" not in work(engine)  # their entries are only in memory
    put(engine, *[b"%d" % number for number in range(8)])
    assert "log removal" in work(engine)
    oldest = engine._database.con.execute("SELECT min(sequence) FROM log").fetchone()
    assert oldest == (3,)


def test_the_log_that_a_pinned_version_may_follow_is_not_deleted(engine: DuckDBEngine) -> None:
    fill(engine)
    held = engine.version
    engine.pin(held)
    for _ in range(3):
        fill(engine)
    write(engine, floor=4)
    work(engine)
    oldest = engine._database.con.execute("SELECT min(sequence) FROM log").fetchone()
    assert oldest == (held.frontier + 1,)
    engine.unpin(held)


def test_a_checkpoint_comes_when_the_wal_is_long_or_nothing_else_is_to_do(path: Path) -> None:
    limits = Limits(checkpoint_wal_bytes=100_000, checkpoint_idle_wal_bytes=50_000)
    engine = open_duckdb_engine(path, limits=limits)
    write(engine, [Entry(0, b"a", b"v" * 200_000)])
    assert (work(engine), work(engine, idle=True)) == (["checkpoint"], [])
    write(engine, [Entry(0, b"a", b"v" * 70_000)])
    assert (work(engine), work(engine, idle=True)) == ([], ["checkpoint"])
    engine.close()


@pytest.mark.slow
def test_what_was_folded_and_what_was_not_is_there_after_a_restart(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=SMALL)
    for number in range(4):
        fill(engine, value=b"%d" % number)
    put(engine, b"last", value=b"in memory")
    put(engine, b"003", value=None)
    write(engine, floor=2)
    expected, frontier = rows(engine, engine.version), engine.version.frontier
    log_id = engine.log_id
    engine._database.abandon()  # as a kill would leave it

    engine = open_duckdb_engine(path, limits=SMALL)
    assert rows(engine, engine.version) == expected
    assert (engine.version.frontier, engine.version.floor) == (frontier, 2)
    assert (engine.log_id, engine.last_committed_at) == (log_id, frontier * 1_000_000)
    engine.close()


def test_a_job_cut_short_by_a_kill_leaves_garbage_that_the_next_start_removes(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=SMALL)
    put(engine, *[b"%d" % number for number in range(8)])
    job = engine.next_job(0, idle=False)
    assert job is not None
    assert not job.step()
    assert count_rows(engine) == 4
    engine._database.abandon()

    engine = open_duckdb_engine(path, limits=SMALL)
    assert len(rows(engine, engine.version)) == 8
    work(engine)
    assert count_rows(engine) == engine.statistics().block_entries == 8
    engine.close()


def test_a_job_that_fails_is_planned_anew_and_its_garbage_removed(
    engine: DuckDBEngine,
) -> None:
    put(engine, *[b"%d" % number for number in range(8)])
    job = engine.next_job(0, idle=False)
    assert job is not None
    job.step()
    engine._database.con.execute("ALTER TABLE manifest RENAME TO hidden")
    with pytest.raises(StoreError):
        job.step()
    engine._database.con.execute("ALTER TABLE hidden RENAME TO manifest")
    assert work(engine) == ["fold", "removal"]
    assert count_rows(engine) == 8


def test_a_failed_merge_begins_again(engine: DuckDBEngine) -> None:
    for number in range(2):
        fill(engine, value=b"%d" % number)
    put(engine, *[b"%03d" % number for number in range(8)])
    fold = engine.next_job(0, idle=False)
    assert fold is not None
    while not fold.step():
        pass
    fold.install()
    merge = engine.next_job(0, idle=False)
    assert merge is not None
    merge.step()
    merge.install()
    merge = engine.next_job(0, idle=False)
    engine._database.con.execute("ALTER TABLE kv RENAME TO hidden")
    assert merge is not None
    with pytest.raises(StoreError):
        merge.step()
    engine._database.con.execute("ALTER TABLE hidden RENAME TO kv")
    assert "removal" in work(engine)
    assert (engine.statistics().runs, count_rows(engine)) == (1, 8)


def test_a_merge_stops_at_rows_that_are_not_what_was_written(engine: DuckDBEngine) -> None:
    for _ in range(2):
        fill(engine)
    engine._database.con.execute("UPDATE kv SET value = 'w' WHERE key = '003'::BLOB")
    with pytest.raises(CorruptionError):
        fill(engine)


def test_a_read_stops_at_rows_that_are_missing(engine: DuckDBEngine) -> None:
    fill(engine)
    engine._database.con.execute("DELETE FROM kv WHERE key = '003'::BLOB")
    with pytest.raises(CorruptionError):
        engine.open_reader().fetch(engine.version, [row_key(0, b"002")])


def test_after_no_space_the_blocks_of_the_file_count(
    engine: DuckDBEngine,
) -> None:
    """The COMMIT of a fold's last slice fails, but turns out to be durable."""
    fill(engine)
    put(engine, *[b"%d" % number for number in range(8)])
    job = engine.next_job(0, idle=False)
    assert job is not None
    while not job.step():
        pass
    engine._database._failure = StoreFullError("planted: the answer to COMMIT was no space")
    with pytest.raises(StoreFullError):
        engine.commit(Group([], floor=1))
    before = rows(engine, engine.version)
    assert engine.reopen() == 2
    work(engine)
    assert engine.statistics().runs == 2
    assert rows(engine, engine.version) == before
    assert count_rows(engine) == 16
    assert engine.statistics().memtable_entries == 0


def test_a_removal_goes_block_by_block_in_bounded_slices(
    engine: DuckDBEngine,
) -> None:
    con = engine._database.con
    for block in (1000, 1001):
        con.execute(
            f"INSERT INTO kv SELECT ({block}::UBIGINT << {SUB_BLOCK_BITS}) + i, 0, 'k', 1, NULL"
            " FROM range(700) t (i)"
        )
    engine._table.bury([1000, 1001, 1002])
    job = engine.next_job(0, idle=False)
    assert job is not None
    steps = 1
    while not job.step():
        steps += 1
    job.install()
    assert (steps, count_rows(engine), engine._table.dead) == (3, 0, {})


def test_space_is_low_below_the_mark(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=Limits(free_bytes_min=1 << 62))
    assert engine.space_low
    engine.close()


def test_a_file_whose_manifest_cannot_be_read_is_closed_again(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=SMALL)
    fill(engine)
    engine._database.con.execute("UPDATE filters SET fences = 'x'::BLOB")
    engine.close()
    for _ in range(2):  # and not "in use" the second time
        with pytest.raises(CorruptionError):
            open_duckdb_engine(path, limits=SMALL)


def test_empty_batches_alone_fill_a_memtable_and_leave_no_block(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=Limits(memtable_bytes_max=3))
    write(engine, [], [], [])
    assert work(engine) == ["fold"]
    assert (engine.statistics().blocks, engine._table.version.frozen) == (0, None)
    engine.close()
    engine = open_duckdb_engine(path)
    assert engine.version.frontier == 3
    engine.close()


def test_a_slice_of_a_fold_is_bounded_in_bytes(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=Limits(memtable_entries_max=3, slice_bytes_max=10))
    write(engine, [Entry(0, b"%d" % number, b"v" * 70_000) for number in range(3)])
    job = engine.next_job(0, idle=False)
    assert job is not None
    assert [job.step() for _ in range(3)] == [False, False, True]
    job.install()
    assert len(rows(engine, engine.version)) == 3
    engine.close()


def test_a_slice_of_a_merge_is_bounded_in_bytes(path: Path) -> None:
    limits = Limits(memtable_entries_max=3, runs_max=1, slice_bytes_max=150_000)
    engine = open_duckdb_engine(path, limits=limits)
    done: list[str] = []
    for _ in range(2):
        write(engine, [Entry(0, b"%d" % number, b"v" * 70_000) for number in range(3)])
        done = work(engine)
    assert done.count("merge") == 3
    assert (engine.statistics().runs, len(rows(engine, engine.version))) == (1, 3)
    engine.close()


def test_decoded_sub_blocks_are_kept_within_their_bytes(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=Limits(memtable_entries_max=8, cache_bytes_max=99_999))
    write(engine, [Entry(0, b"%d" % number, b"v" * 70_000) for number in range(8)])
    work(engine)
    assert len(rows(engine, engine.version, rows_max=1)) == 8
    assert 70_000 < engine.statistics().cache_bytes <= 99_999
    engine.close()


def test_a_batch_missing_from_the_log_is_corruption(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=SMALL)
    for _ in range(3):
        put(engine, b"a")
    engine._database.con.execute("DELETE FROM log")
    meta.write_number(engine._database.con, meta.FLOOR, 4)
    engine.close()
    with pytest.raises(CorruptionError):
        open_duckdb_engine(path, limits=SMALL)


def test_many_cold_keys_are_fetched_in_bounded_queries(path: Path) -> None:
    engine = open_duckdb_engine(path, limits=Limits(memtable_entries_max=80))
    keys = [b"%03d" % number for number in range(80)]
    write(engine, [Entry(0, key, key * 33_000) for key in keys])
    work(engine)
    wanted = [row_key(0, key) for key in reversed(keys)]
    found = engine.open_reader().fetch(engine.version, wanted)
    assert [row and row.value for row in found] == [key * 33_000 for key in reversed(keys)]
    assert [row.value for row in rows(engine, engine.version)] == [key * 33_000 for key in keys]
    engine.close()


def test_only_an_engine_that_was_asked_for_it_by_its_name_never_syncs(path: Path) -> None:
    asked = "SELECT current_setting('fsync_mode')"
    for unsafe_nosync, mode in ((True, "NONE"), (False, "STANDARD")):
        engine = open_duckdb_engine(path, unsafe_nosync=unsafe_nosync)
        assert engine._database.con.execute(asked).fetchall() == [(mode,)]
        put(engine, b"a")
        engine.close()
