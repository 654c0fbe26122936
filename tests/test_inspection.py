"""The inspection of a file before it is opened: what is not ours is refused and left untouched."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from exo_stream.errors import CorruptionError, FileInUseError, ForeignFileError, StoreError
from exo_stream.storage import batch_log, inspection, meta
from exo_stream.storage.database import Database, open_database
from exo_stream.storage.schema import FORMAT
from tests.batches import make_batches
from tests.database_files import MEMORY, digest, leave_with_wal, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feed.duckdb"


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    db = open_database(path, memory_bytes=MEMORY)
    yield db
    db.close()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"", "has 0 bytes: it was cut off, or is not an exo-stream", id="empty"),
        pytest.param(b"hello", "has 5 bytes: it was cut off, or is not an exo-", id="text"),
        pytest.param(os.urandom(100_000), "is not an exo-stream file", id="random"),
        pytest.param(b"SQLite format 3\0" * 512, "is not an exo-stream file", id="sqlite"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_left_untouched(
    path: Path, content: bytes, sentence: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(ForeignFileError, match=sentence):
        open_database(path, memory_bytes=MEMORY)
    assert path.read_bytes() == content


def test_a_real_sqlite_file_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE log (a)")
    con.close()
    with pytest.raises(ForeignFileError):
        open_database(path, memory_bytes=MEMORY)


@pytest.mark.parametrize("tables", ["t", "log, kv, manifest, filters, meta", "meta"])
def test_another_duckdb_file_is_refused_and_left_untouched_with_its_wal(
    path: Path, tables: str
) -> None:
    con = duckdb.connect(str(path))
    con.execute("PRAGMA disable_checkpoint_on_shutdown")
    for table in tables.split(", "):
        con.execute(f"CREATE TABLE {table} (a INTEGER)")
    con.close()
    before = digest(path.parent)
    assert "feed.duckdb.wal" in before

    with pytest.raises(ForeignFileError, match="is a DuckDB file, but not an exo-stream file"):
        open_database(path, memory_bytes=MEMORY)
    assert digest(path.parent) == before


def test_a_newer_format_is_refused_and_left_untouched(path: Path) -> None:
    db = open_database(path, memory_bytes=MEMORY)
    with db.transaction() as con:
        meta.write_number(con, meta.FORMAT, FORMAT + 1)
    db.close()
    before = digest(path.parent)

    with pytest.raises(ForeignFileError, match=f"has format {FORMAT + 1}, and this version"):
        open_database(path, memory_bytes=MEMORY)
    assert digest(path.parent) == before


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForeignFileError, match="is no file"):
        open_database(tmp_path, memory_bytes=MEMORY)


def test_a_device_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ForeignFileError, match="is no file"):
        open_database(fifo, memory_bytes=MEMORY)


def test_a_path_that_leads_nowhere_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        open_database(tmp_path / "absent" / "feed.duckdb", memory_bytes=MEMORY)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="Not a directory"):
        open_database(tmp_path / "file" / "feed.duckdb", memory_bytes=MEMORY)


def test_a_damaged_file_is_refused_and_left_untouched(path: Path) -> None:
    db = open_database(path, memory_bytes=MEMORY)
    write(db, 1, 3)
    db.close()
    whole = path.read_bytes()
    for damaged in (whole[:5000], whole[:12] + bytes(4084) + whole[4096:], whole[:20_000]):
        path.write_bytes(damaged)
        with pytest.raises(CorruptionError, match=r"is damaged: .*if the power went"):
            open_database(path, memory_bytes=MEMORY)
        assert path.read_bytes() == damaged


@pytest.mark.parametrize("lost", [1, 4_096, 262_144 + 1, 600_000])
def test_a_file_whose_end_was_cut_off_is_damaged_and_not_somebody_elses(
    path: Path, lost: int
) -> None:
    db = open_database(path, memory_bytes=MEMORY)
    with db.transaction() as con:
        batch_log.append(con.appender("log"), make_batches(1, 40, value_bytes=40_000))
    db.close()
    os.truncate(path, path.stat().st_size - lost)
    with pytest.raises(CorruptionError, match="is damaged: it was cut off"):
        open_database(path, memory_bytes=MEMORY)


def test_a_wal_without_its_file_is_refused(path: Path) -> None:
    leave_with_wal(path)
    path.unlink()
    with pytest.raises(CorruptionError, match="is gone, but its write-ahead log is there"):
        open_database(path, memory_bytes=MEMORY)
    assert not path.exists()


def test_a_file_held_by_plain_duckdb_is_in_use(path: Path) -> None:
    open_database(path, memory_bytes=MEMORY).close()
    hold = (
        "import duckdb, sys\ncon = duckdb.connect(sys.argv[1])\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FileInUseError) as caught:
            open_database(path, memory_bytes=MEMORY)
        assert caught.value.pid == holder.pid
        holder.communicate()


@pytest.mark.slow
def test_opening_and_closing_the_file_elsewhere_in_the_process_does_not_let_another_in(
    db: Database, path: Path
) -> None:
    """It drops DuckDB's lock, a POSIX record lock; ours holds."""
    path.open("rb").close()
    code = (
        "import sys\nfrom exo_stream.storage.database import open_database\n"
        "open_database(sys.argv[1], memory_bytes=64 << 20)"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert f"FileInUseError: {path} is in use by process {os.getpid()}" in other.stderr


def test_what_cannot_even_be_looked_at_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened: File name too long"):
        inspection.exists(tmp_path / ("a" * 300))
    with pytest.raises(StoreError, match="cannot be read: Is a directory"):
        inspection.inspect(tmp_path, memory_bytes=MEMORY)
    newer = duckdb.IOException("Trying to read a database file with version number 999")
    assert isinstance(inspection.refusal(tmp_path, newer), ForeignFileError)
    assert str(inspection.refusal(tmp_path, duckdb.IOException("?"))).endswith(
        "cannot be opened (IOException)"
    )
