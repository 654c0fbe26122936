"""The database file: opened, refused, written, opened again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import trio
from structlog.testing import capture_logs

from exo_stream.errors import (
    CorruptionError,
    FileInUseError,
    OutcomeUnknownError,
    OverloadedError,
    StoreError,
    StoreFullError,
)
from exo_stream.storage import batch_log, database, directory, failures, meta
from exo_stream.storage.database import Database, open_database
from exo_stream.storage.hop import open_thread_hop
from exo_stream.storage.schema import FORMAT, number
from tests.batches import make_batch
from tests.database_files import MEMORY, digest, leave_with_wal, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feed.duckdb"


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    db = open_database(path, memory_bytes=MEMORY)
    yield db
    db.close()


def newest(db: Database) -> int:
    with db.open_cursor().transaction() as rows:
        return batch_log.ends(rows).newest


def test_a_new_file_is_whole_and_empty(db: Database, path: Path) -> None:
    assert len(db.log_id) == 32
    assert db.was_clean
    assert db.path == path
    assert newest(db) == 0
    assert meta.load(db.con)[meta.FORMAT] == number(FORMAT)
    assert not path.with_name("feed.duckdb.new").exists()


def test_the_settings_are_those_we_rely_on_and_locked(db: Database) -> None:
    found = dict(db.con.execute("SELECT name, value FROM duckdb_settings()").fetchall())

    assert found["fsync_mode"] == "STANDARD"
    assert found["threads"] == "1"
    assert found["temp_directory"] == ""
    assert found["enable_external_access"] == "false"
    assert found["checkpoint_on_detach"] == "DISABLED"
    assert "BitPacking" in found["disabled_compression_methods"]
    assert found["memory_limit"] == "64.0 MiB"
    for statement in ("SET threads = 2", "ATTACH 'other.duckdb'", "SELECT * FROM 'a.csv'"):
        with pytest.raises(duckdb.Error):
            db.con.execute(statement)


def test_python_variables_are_not_tables(db: Database) -> None:
    secret = [1]
    with pytest.raises(duckdb.CatalogException):
        db.con.execute("SELECT * FROM secret")
    assert secret


def test_a_clean_stop_leaves_no_wal_and_is_remembered(path: Path) -> None:
    first = open_database(path, memory_bytes=MEMORY)
    write(first, 1, 3)
    first.close()
    assert first.wal_bytes == 0

    second = open_database(path, memory_bytes=MEMORY)
    assert second.log_id == first.log_id
    assert second.was_clean
    assert newest(second) == 3
    second.close()


def test_what_a_killed_process_committed_is_in_the_file_before_anybody_sees_it(path: Path) -> None:
    leave_with_wal(path)
    db = open_database(path, memory_bytes=MEMORY)
    assert not db.was_clean
    assert newest(db) == 3
    assert db.wal_bytes == 0
    with duckdb.connect(":memory:") as other:
        shutil.copy(path, path.with_name("copy.duckdb"))
        other.execute(f"ATTACH '{path.with_name('copy.duckdb')}' AS copy (READ_ONLY)")
        assert other.execute("SELECT count(*) FROM copy.log").fetchall() == [(3,)]
    db.close()


def test_row_groups_stay_small_after_reopening(path: Path) -> None:
    open_database(path, memory_bytes=MEMORY).close()
    db = open_database(path, memory_bytes=MEMORY)
    with db.transaction() as con:
        con.execute("INSERT INTO kv SELECT range, 0, 'k'::BLOB, range, NULL FROM range(70_000)")
    db.checkpoint()
    groups = "SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('kv')"
    assert db.con.execute(groups).fetchall() == [(3,)]
    db.close()


def test_a_symbolic_link_leads_to_the_same_lock(db: Database, path: Path) -> None:
    link = path.with_name("link.duckdb")
    link.symlink_to(path)
    with pytest.raises(FileInUseError):
        open_database(link, memory_bytes=MEMORY)


def test_a_birth_cut_short_is_begun_again(path: Path) -> None:
    path.with_name("feed.duckdb.new").write_bytes(b"half a file")
    path.with_name("feed.duckdb.new.wal").write_bytes(b"half a log")
    open_database(path, memory_bytes=MEMORY).close()
    assert sorted(digest(path.parent)) == ["feed.duckdb"]


def test_a_failed_statement_keeps_nothing_and_the_database_goes_on(db: Database) -> None:
    write(db, 1, 1)
    with pytest.raises(StoreError, match="refused the write") as caught, db.transaction() as con:
        batch_log.append(con.appender("log"), [make_batch(2)])
        con.execute("SELECT error('no')").fetchall()
    assert not isinstance(caught.value, StoreFullError)
    assert newest(db) == 1
    write(db, 2, 2)
    assert newest(db) == 2


def test_a_bug_in_the_block_rolls_back_and_leaves_as_itself(db: Database) -> None:
    with pytest.raises(ZeroDivisionError), db.transaction() as con:
        batch_log.append(con.appender("log"), [make_batch(1)])
        raise ZeroDivisionError
    assert newest(db) == 0
    write(db, 1, 1)


def test_a_cursor_cannot_write(db: Database) -> None:
    with pytest.raises(StoreError, match="refused the query"):
        with db.open_cursor().transaction() as rows:
            rows.fetch("DELETE FROM log")


def test_a_cursor_sees_one_state_and_survives_a_reopening(db: Database) -> None:
    cursor = db.open_cursor()
    write(db, 1, 1)
    with cursor.transaction() as rows:
        assert batch_log.ends(rows).newest == 1
        write(db, 2, 2)
        assert batch_log.ends(rows).newest == 1
    db.checkpoint()
    db.reopen()
    with cursor.transaction() as rows:
        assert batch_log.ends(rows).newest == 2
    db.reopen()
    write(db, 3, 3)
    assert newest(db) == 3


@pytest.mark.slow
async def test_a_long_query_can_be_interrupted_and_does_not_hold_up_a_reopening(
    db: Database,
) -> None:
    cursor = db.open_cursor()
    outcomes: list[str] = []

    def query() -> None:
        try:
            with cursor.transaction() as rows:
                rows.fetch("SELECT count(*) FROM range(1_000_000) a, range(1_000_000) b")
        except OverloadedError as error:
            outcomes.append(str(error))

    async with open_thread_hop("reader") as hop:
        for stop in (cursor.interrupt, db.reopen):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hop, query)
                while not outcomes:
                    await trio.sleep(0.01)  # nothing tells that a query has begun
                    stop()
            assert outcomes.pop() == "the query took too long and was stopped"
            assert not outcomes
    cursor.interrupt()
    with cursor.transaction() as rows:
        assert rows.fetch("SELECT 1") == [(1,)]


def test_an_interruption_between_two_queries_counts_too(db: Database) -> None:
    cursor = db.open_cursor()
    with pytest.raises(OverloadedError), cursor.transaction() as rows:
        rows.fetch("SELECT 1")
        cursor.interrupt()
        rows.fetch("SELECT 2")
    with cursor.transaction() as rows:
        assert rows.fetch("SELECT 3") == [(3,)]


def test_a_fatal_statement_gives_the_file_up(db: Database) -> None:
    with pytest.raises(OutcomeUnknownError), db.transaction():
        raise duckdb.FatalException("fsync failed!")
    with pytest.raises(OutcomeUnknownError):
        write(db, 1, 1)


def test_a_file_that_cannot_be_marked_as_open_is_let_go(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(path, memory_bytes=MEMORY).close()

    def fail(*_args: object) -> None:
        raise duckdb.IOException("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(meta, "write_number", fail)
        with pytest.raises(StoreError):
            open_database(path, memory_bytes=MEMORY)
    open_database(path, memory_bytes=MEMORY).close()


def test_a_checkpoint_waits_for_readers_that_are_ending_but_not_for_ever(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write transaction stands in for a reader that clears up: DuckDB refuses in both cases."""
    monkeypatch.setattr(database, "_CHECKPOINT_TRIES", 3)
    other = db.connect()
    other.execute("BEGIN TRANSACTION")
    other.execute("UPDATE meta SET value = 'x'::BLOB WHERE name = 'clean'")
    with pytest.raises(StoreError, match="no moment for a CHECKPOINT"):
        db.checkpoint()
    other.execute("ROLLBACK")
    other.close()
    db.checkpoint()


def test_space_is_low_below_the_mark_or_below_twice_the_wal(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not db.space_low(1)
    assert db.space_low(1 << 60)
    monkeypatch.setattr(directory, "disk_free_bytes", lambda _path: 2 * db.wal_bytes - 1)
    assert db.wal_bytes > 1
    assert db.space_low(1)


def test_sizes_are_told(db: Database) -> None:
    write(db, 1, 1000)
    before = db.wal_bytes
    db.checkpoint()
    with db.transaction() as con:
        batch_log.delete_below(con, 1001, rows_max=1000)
    db.checkpoint()
    assert before > 10_000
    assert db.wal_bytes == 0
    assert db.file_bytes > 0
    assert db.free_bytes > 0
    assert db.disk_free_bytes > 0


def test_the_directory_is_synced_after_the_first_commit_of_each_wal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(directory, "sync", synced.append)
    db = open_database(path, memory_bytes=MEMORY)
    assert synced == [path, path]  # the file's name; the WAL's
    write(db, 1, 1)
    assert len(synced) == 2
    db.checkpoint()
    assert len(synced) == 3  # the WAL's name is gone
    write(db, 2, 2)
    write(db, 3, 3)
    assert len(synced) == 4
    db.close()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("No space left on device", StoreFullError, id="full"),
        pytest.param("Disk quota exceeded", StoreFullError, id="quota"),
        pytest.param("File too large", StoreFullError, id="size limit"),
        pytest.param("Input/output error", OutcomeUnknownError, id="anything else"),
    ],
)
def test_a_commit_whose_directory_cannot_be_synced_is_not_acknowledged(
    db: Database, monkeypatch: pytest.MonkeyPatch, text: str, error: type[Exception]
) -> None:
    def fail(_path: Path) -> None:
        raise OSError(text)

    db.checkpoint()
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(directory, "sync", fail)
        with pytest.raises(error):
            write(db, 1, 1)
        with pytest.raises(error):  # and nothing is written on top of it
            write(db, 2, 2)
    assert [line["event"] for line in logs] == ["file failed"]
    if error is StoreFullError:
        db.reopen()
        assert newest(db) == 1
        write(db, 2, 2)


def test_a_file_that_failed_is_closed_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> None:
        raise OSError("Input/output error")

    db = open_database(path, memory_bytes=MEMORY)
    with monkeypatch.context() as patch:
        patch.setattr(directory, "sync", fail)
        with pytest.raises(OutcomeUnknownError):
            db.checkpoint()
    db.close()
    again = open_database(path, memory_bytes=MEMORY)
    assert not again.was_clean
    again.close()


@pytest.mark.parametrize("finder", ["writer", "reader"])
def test_a_file_that_contradicts_itself_is_closed_as_it_is(path: Path, finder: str) -> None:
    """No CHECKPOINT writes over the evidence, and nothing calls the shutdown clean."""
    db = open_database(path, memory_bytes=MEMORY)
    with db.transaction() as con:
        con.execute(
            "INSERT INTO filters SELECT i, (hash(i)::VARCHAR)::BLOB, '' FROM range(50000) t(i)"
        )
    db.close()
    content = bytearray(path.read_bytes())
    content[3 * 4096 + len(content) // 2] ^= 1
    path.write_bytes(content)
    db = open_database(path, memory_bytes=MEMORY)
    files = path, directory.beside(path, ".wal")
    before = [each.read_bytes() for each in files]
    query = "SELECT count(DISTINCT fences), bit_xor(block) FROM filters"
    with pytest.raises(CorruptionError):
        if finder == "writer":
            with db.transaction() as con:
                con.execute(query)
        else:
            with db.open_cursor().transaction() as rows:
                rows.fetch(query)
    db.close()
    assert [each.read_bytes() for each in files] == before


def test_a_stop_that_cannot_be_clean_says_so_and_lets_go(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path) -> None:
        raise OSError("No space left on device")

    db = open_database(path, memory_bytes=MEMORY)
    write(db, 1, 1)
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(directory, "sync", fail)
        db.close()
    assert "shutdown not clean" in [line["event"] for line in logs]
    again = open_database(path, memory_bytes=MEMORY)
    assert newest(again) == 1
    again.close()


def test_without_hope_of_space_a_reopening_leaves_the_readers_alone(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, 1, 1)
    cursor = db.open_cursor()
    with monkeypatch.context() as patch:
        patch.setattr(directory, "disk_free_bytes", lambda _path: 0)
        with pytest.raises(StoreFullError, match="still no space"):
            db.reopen()
        with cursor.transaction() as rows:
            assert batch_log.ends(rows).newest == 1
    db.reopen()


def test_while_it_is_closed_readers_are_told_to_come_back(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, 1, 1)
    cursor = db.open_cursor()

    def fail(*_args: object, **_kwargs: object) -> None:
        raise duckdb.IOException("Could not write file: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(database, "attach", fail)
        with pytest.raises(StoreFullError, match="no space to open"):
            db.reopen()
        with pytest.raises(OverloadedError), cursor.transaction():
            pytest.fail("there is nothing to read")
        with pytest.raises(StoreFullError):
            write(db, 2, 2)
    db.reopen()
    write(db, 2, 2)


def test_a_file_that_cannot_be_opened_again_says_why_and_stays_closed(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise duckdb.IOException("Corrupt database file")

    with monkeypatch.context() as patch:
        patch.setattr(database, "attach", fail)
        with pytest.raises(CorruptionError):
            db.reopen()
    with pytest.raises(OutcomeUnknownError):
        write(db, 1, 1)


def test_what_duckdb_says_is_put_into_our_words() -> None:
    assert isinstance(failures.of_read(duckdb.IOException("Corrupt block")), CorruptionError)
    assert isinstance(failures.of_read(duckdb.InterruptException("stop")), OverloadedError)
    assert isinstance(failures.of_read(duckdb.FatalException("invalid")), OverloadedError)
    closed = OutcomeUnknownError("closed")
    assert failures.as_closed(closed) is closed
    assert failures.is_fatal(duckdb.FatalException("fsync failed!"))
    assert isinstance(failures.of_creation(Path("a"), OSError(28, os.strerror(28))), StoreFullError)
    assert str(failures.of_creation(Path("a"), OSError(13, "Permission denied"))) == (
        "a cannot be created (Permission denied)"
    )
    assert str(failures.of_creation(Path("a"), duckdb.IOException("b"))) == (
        "a cannot be created (IOException)"
    )
