"""Verification: a sound file is sound, and every kind of damage has its sentence."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from exo_stream.errors import FileInUseError, ForeignFileError, StoreError
from exo_stream.limits import MIB
from exo_stream.model import Entry
from exo_stream.payload import EncodedBatch, encode_entries
from exo_stream.storage import block_check, fold_check, inspection, log_check
from exo_stream.storage.batch_log import append, move_floor
from exo_stream.storage.database import open_database
from exo_stream.storage.duckdb_engine import open_duckdb_engine
from exo_stream.storage.findings import FINDINGS_MAX, Report
from exo_stream.storage.lock_file import LockFile
from exo_stream.storage.verify import verify
from tests.batches import make_batch, make_batches
from tests.lived_files import LIMITS, live


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a pruned log and several runs, closed in order. Do not change it."""
    path = tmp_path_factory.mktemp("lived") / "feed.duckdb"
    engine = open_duckdb_engine(path, limits=LIMITS)
    live(engine, 1, 200)
    engine.prune_batch_log(61)
    live(engine, 2, 100)
    engine.close()
    return path


def damage(lived: Path, folder: Path, *statements: str) -> Path:
    """A copy of the file, changed behind our back."""
    path = folder / "feed.duckdb"
    shutil.copy(lived, path)
    with duckdb.connect(str(path)) as con:
        for statement in statements:
            con.execute(statement)
    return path


def sentences(report: Report) -> list[str]:
    return [f"{finding.where}: {finding.sentence}" for finding in report.findings]


@pytest.mark.slow
def test_a_file_that_lived_is_sound_and_is_not_written(lived: Path) -> None:
    before = lived.read_bytes()
    report = verify(lived)

    assert sentences(report) == []
    assert report.sound
    assert (report.floor, report.newest) == (61, 300)
    assert report.batches == 240
    assert report.blocks >= 2
    assert report.rows > 100
    assert 200 < report.folded_through <= 300
    assert lived.read_bytes() == before


@pytest.mark.slow
def test_a_file_is_sound_whatever_the_size_of_the_buffers(
    lived: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_check, "_BUFFER_ROWS", 7)
    monkeypatch.setattr(block_check, "_BYTES_MAX", 1)
    monkeypatch.setattr(log_check, "_BYTES_MAX", 1)
    assert sentences(verify(lived)) == []


def test_people_can_look_at_the_log_and_the_rows_of_the_blocks(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    engine = open_duckdb_engine(path, limits=replace(LIMITS, memtable_entries_max=2))
    engine.put_batch([(b"a", b"1"), (b"b", b"1")])
    engine.put_batch([(b"a", b"2"), (b"c", b"")])
    engine.delete_batch([b"b", b"d"])
    engine.put_batch([(b"z", b"not yet folded")])
    engine.prune_batch_log(2)
    engine.close()

    with duckdb.connect(str(path), read_only=True) as con:
        rows = con.execute("SELECT key, value, version, folded_through FROM exo_kv").fetchall()
        log = con.execute("SELECT sequence, entries, bytes FROM exo_log").fetchall()
    assert rows == [(b"a", b"2", 2, 3), (b"c", b"", 2, 3)]
    assert [row[:2] for row in log] == [(2, 2), (3, 2), (4, 1)]


def test_an_empty_file_is_sound(tmp_path: Path) -> None:
    open_database(tmp_path / "feed.duckdb", memory_bytes=64 * MIB).close()
    report = verify(tmp_path / "feed.duckdb")
    assert report.sound
    assert (report.newest, report.batches, report.blocks, report.rows) == (0, 0, 0, 0)


@pytest.mark.slow
def test_an_emptied_log_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    engine = open_duckdb_engine(path, limits=LIMITS)
    live(engine, 1, 50)
    engine.prune_batch_log(51)
    live(engine, 2, 50)
    engine.close()
    assert sentences(verify(path)) == []


@pytest.mark.slow
def test_what_a_killed_process_left_is_verified_with_its_wal(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    engine = open_duckdb_engine(path, limits=LIMITS)
    live(engine, 1, 60)
    engine._database.abandon()
    wal = path.with_name("feed.duckdb.wal")
    before = (path.read_bytes(), wal.read_bytes())

    report = verify(path)
    assert sentences(report) == []
    assert report.newest == 60
    assert (path.read_bytes(), wal.read_bytes()) == before


def meta_number(name: str, value: int) -> str:
    literal = "".join(f"\\x{byte:02X}" for byte in value.to_bytes(8, "big"))
    return f"UPDATE meta SET value = '{literal}'::BLOB WHERE name = '{name}'"


ONE_ROW = "rowid = (SELECT min(kv.rowid) FROM kv JOIN manifest ON sub_block BETWEEN"
ONE_ROW += " first_sub_block AND last_sub_block WHERE value IS NOT NULL)"
NEWEST = "SELECT max(sequence) FROM kv"
ONE_BLOCK = "block = (SELECT min(block) FROM manifest)"


@pytest.mark.parametrize(
    ("statements", "sentence"),
    [
        pytest.param(
            ["DELETE FROM log WHERE sequence = 150"],
            "log: after batch 149 comes batch 151",
            id="a missing batch",
        ),
        pytest.param(
            ["INSERT INTO log SELECT * FROM log WHERE sequence = 150"],
            "log: after batch 150 comes batch 150",
            id="a batch twice",
        ),
        pytest.param(
            ["UPDATE log SET payload = payload || 'x'::BLOB WHERE sequence = 150"],
            "log: batch 150 does not match its checksum or its length",
            id="a changed batch",
        ),
        pytest.param(
            ["UPDATE log SET bytes = bytes + 1 WHERE sequence = 150"],
            "log: batch 150 does not match its checksum or its length",
            id="a wrong length",
        ),
        pytest.param(
            ["UPDATE log SET entries = entries + 1 WHERE sequence = 150"],
            "log: batch 150 does not hold the 21 entries it names",
            id="a wrong count",
        ),
        pytest.param(
            ["UPDATE log SET committed_at = 1 WHERE sequence = 150"],
            "log: batch 150 was committed before its predecessor",
            id="back in time",
        ),
        pytest.param(
            [meta_number("floor", 7), "DELETE FROM log WHERE sequence < 61"],
            "log: it begins with batch 61, but its floor is 7",
            id="a floor below the log",
        ),
        pytest.param(
            ["DELETE FROM log WHERE sequence > 100"],
            "log: it ends with batch 100, but its floor is 61 and the table is folded",
            id="a lost end",
        ),
        pytest.param(
            [meta_number("folded_through", 20), "DELETE FROM log WHERE sequence < 61"],
            "log: it begins with batch 61, but the table is folded to 20",
            id="a fold that the log cannot continue",
        ),
        pytest.param(
            [meta_number("folded_through", 20), "DELETE FROM log"],
            "log: it is empty, but the table is folded only to 20",
            id="an empty log that was not folded",
        ),
        pytest.param(
            [meta_number("folded_through", 150)],
            "the table only through 150",
            id="blocks beyond the fold",
        ),
        pytest.param(
            [f"UPDATE kv SET value = 'x'::BLOB WHERE {ONE_ROW}"],
            "does not match its checksum",
            id="a changed row",
        ),
        pytest.param(
            [f"UPDATE kv SET value = 'x'::BLOB WHERE {ONE_ROW}"],
            "rows of",
            id="a row of another size",
        ),
        pytest.param(
            [f"UPDATE kv SET sequence = sequence - 1 WHERE sequence = ({NEWEST})"],
            "but batch",
            id="a row of another batch",
        ),
        pytest.param(
            [f"UPDATE kv SET sequence = 100000 WHERE {ONE_ROW}"],
            "holds rows newer than",
            id="a row from the future",
        ),
        pytest.param(
            [f"UPDATE kv SET key = 'k00'::BLOB WHERE {ONE_ROW}"],
            "does not begin with the key of its fence",
            id="a fence that is not a key",
        ),
        pytest.param(
            [f"UPDATE kv SET key = 'zzz'::BLOB WHERE {ONE_ROW}"],
            "is not sorted, or overlaps the one before it",
            id="rows out of order",
        ),
        pytest.param(
            [f"UPDATE kv SET key = 'zzz'::BLOB WHERE {ONE_ROW}"],
            "holds a key that the filter of its block denies",
            id="a key the filter denies",
        ),
        pytest.param(
            [f"UPDATE kv SET keyspace = 4 WHERE {ONE_ROW}"],
            "holds rows of another keyspace",
            id="a row of another keyspace",
        ),
        pytest.param(
            [f"DELETE FROM kv WHERE {ONE_ROW}"],
            "rows instead of",
            id="a lost row",
        ),
        pytest.param(
            [f"DELETE FROM kv WHERE sub_block = (SELECT sub_block FROM kv WHERE {ONE_ROW})"],
            "has 0 rows of 0 bytes, unlike its fence",
            id="a lost sub-block",
        ),
        pytest.param(
            ["DELETE FROM kv"],
            "does not end with its last key",
            id="a lost table",
        ),
        pytest.param(
            [f"UPDATE manifest SET entries = entries + 1 WHERE {ONE_BLOCK}"],
            "is not as large as its fences together",
            id="a wrong number of entries",
        ),
        pytest.param(
            [f"UPDATE manifest SET last_sub_block = last_sub_block + 1 WHERE {ONE_BLOCK}"],
            "has other sub-blocks in the manifest than fences",
            id="a wrong range",
        ),
        pytest.param(
            ["UPDATE manifest SET run = 1"],
            "of run 1 overlap",
            id="overlapping blocks",
        ),
        pytest.param(
            [f"DELETE FROM filters WHERE {ONE_BLOCK}"],
            "the manifest and the filters do not name the same blocks once each",
            id="a lost filter",
        ),
        pytest.param(
            ["INSERT INTO manifest SELECT * FROM manifest", "INSERT INTO filters FROM filters"],
            "the manifest and the filters do not name the same blocks once each",
            id="a manifest twice",
        ),
        pytest.param(
            [f"UPDATE filters SET fences = 'x'::BLOB WHERE {ONE_BLOCK}"],
            "block: the fences or the filter of a block cannot be read",
            id="unreadable fences",
        ),
        pytest.param(
            [f"UPDATE filters SET bloom = 'x'::BLOB WHERE {ONE_BLOCK}"],
            "block: the fences or the filter of a block cannot be read",
            id="an unreadable filter",
        ),
        pytest.param(
            ["DELETE FROM manifest", "DELETE FROM filters"],
            "is not in the table",
            id="a table that forgot",
        ),
        pytest.param(
            ["UPDATE manifest SET folded_through = 0 WHERE run = (SELECT max(run) FROM manifest)"],
            "a newer run hides the write",
            id="runs in the wrong order",
        ),
    ],
)
def test_damage_is_found(lived: Path, tmp_path: Path, statements: list[str], sentence: str) -> None:
    report = verify(damage(lived, tmp_path, *statements))
    assert not report.sound
    assert any(sentence in found for found in sentences(report)), sentences(report)


@pytest.mark.slow
def test_a_write_that_the_table_lost_is_found_by_its_batch(tmp_path: Path) -> None:
    """The log is whole and the blocks are whole, and yet they do not say the same."""
    path = tmp_path / "feed.duckdb"
    engine = open_duckdb_engine(path, limits=LIMITS)
    engine.put_batch([(b"a", b"1")])
    live(engine, 1, 60)
    engine.close()
    db = open_database(path, memory_bytes=64 * MIB)
    with db.transaction() as con:
        found = con.execute("SELECT payload FROM log WHERE sequence = 1").fetchall()
        con.execute("DELETE FROM log WHERE sequence = 1")
        changed = make_batch(1, committed_at=1)
        append(con.appender("log"), [changed])
    db.close()
    assert found[0][0] != changed.payload

    assert sentences(verify(path)) == [
        "table: a key that batch 1 wrote is not in the table",
        "table: a row is of batch 1, which did not write its key",
    ]


@pytest.mark.slow
def test_a_value_that_differs_is_found_by_its_batch(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    engine = open_duckdb_engine(path, limits=LIMITS)
    engine.put_batch([(b"k1", b"one")])
    live(engine, 1, 60)
    engine.close()
    db = open_database(path, memory_bytes=64 * MIB)
    with db.transaction() as con:
        con.execute("DELETE FROM log WHERE sequence = 1")
        append(con.appender("log"), [make_batch(1, committed_at=1)])
    db.close()
    assert sentences(verify(path)) == ["table: the row of a key is not what batch 1 wrote"]


def test_findings_beyond_the_first_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    db = open_database(path, memory_bytes=64 * MIB)
    with db.transaction() as con:
        append(con.appender("log"), make_batches(1, 3 * FINDINGS_MAX))
        con.execute("UPDATE log SET checksum = 0")
    db.close()
    report = verify(path)
    assert (len(report.findings), report.more) == (FINDINGS_MAX, 2 * FINDINGS_MAX)


def test_large_batches_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_check, "_BYTES_MAX", 100)
    path = tmp_path / "feed.duckdb"
    db = open_database(path, memory_bytes=64 * MIB)
    with db.transaction() as con:
        append(con.appender("log"), make_batches(1, 10, value_bytes=90))
        append(con.appender("log"), [EncodedBatch(11, 11_000_000, b"\x80")])
        move_floor(con, 1)
    db.close()
    assert verify(path).batches == 11


def test_a_payload_that_is_no_batch_is_found(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    db = open_database(path, memory_bytes=64 * MIB)
    with db.transaction() as con:
        append(con.appender("log"), [EncodedBatch(1, 1, b"\x82"), EncodedBatch(2, 2, b"\x81\x01")])
    db.close()
    assert sentences(verify(path)) == [
        "log: batch 1 does not hold the 2 entries it names",
        "log: batch 2 does not hold the 1 entries it names",
    ]


@pytest.mark.slow
def test_damaged_bytes_of_the_file_are_a_finding(lived: Path, tmp_path: Path) -> None:
    """DuckDB's own checksums find them, wherever they are."""
    whole = lived.read_bytes()
    path = tmp_path / "feed.duckdb"
    found = 0
    for at in range(4096 * 3 + 500, len(whole), len(whole) // 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        report = verify(path)
        found += not report.sound
        assert all(finding.where == "file" for finding in report.findings)
    assert found


def test_a_damaged_wal_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    engine = open_duckdb_engine(path, limits=LIMITS)
    live(engine, 1, 5)
    engine._database.abandon()
    wal = path.with_name("feed.duckdb.wal")
    data = wal.read_bytes()
    wal.write_bytes(data[:-60] + b"\xff" + data[-59:])
    (sentence,) = sentences(verify(path))
    assert sentence.startswith("file: the write-ahead log of")


def test_a_file_in_use_absent_or_foreign_is_refused(
    lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = damage(lived, tmp_path)
    lock = LockFile(path)
    with pytest.raises(FileInUseError):
        verify(path)
    lock.close()
    with pytest.raises(ForeignFileError):
        verify(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ForeignFileError):
        verify(tmp_path / "text")
    with duckdb.connect(str(path)) as con:
        con.execute("ALTER TABLE log RENAME payload TO p")
    monkeypatch.setattr(inspection, "inspect", lambda *_args, **_kwargs: None)
    with pytest.raises(StoreError):
        verify(path)


@pytest.mark.slow
def test_memory_is_bounded_by_spilling(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    db = open_database(path, memory_bytes=64 * MIB)
    entries = [[Entry(0, b"%d" % (i * 1000 + j), b"v") for j in range(1000)] for i in range(300)]
    with db.transaction() as con:
        append(
            con.appender("log"),
            [EncodedBatch(i + 1, i, encode_entries(e)) for i, e in enumerate(entries)],
        )
    db.close()
    assert verify(path, memory_bytes=24 * MIB).batches == 300
