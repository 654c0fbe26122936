"""Compaction: a small copy that is the same log and the same table, or no copy at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from exo_stream.errors import (
    CorruptionError,
    FileInUseError,
    ForeignFileError,
    InvalidRequestError,
    StoreFullError,
)
from exo_stream.limits import KIB, MIB
from exo_stream.payload import EncodedBatch
from exo_stream.storage import directory, rewrite
from exo_stream.storage.batch_log import append
from exo_stream.storage.database import open_database
from exo_stream.storage.duckdb_engine import open_duckdb_engine
from exo_stream.storage.engine import Group
from exo_stream.storage.lock_file import LockFile
from exo_stream.storage.rewrite import compact
from exo_stream.storage.verify import verify
from tests.batches import make_batch
from tests.lived_files import LIMITS, live


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose space was used several times over. Do not change it."""
    path = tmp_path_factory.mktemp("lived") / "feed.duckdb"
    engine = open_duckdb_engine(path, limits=LIMITS)
    live(engine, 1, 400)
    engine.put_batch([(b"large", bytes(70 * KIB)), (b"larger", bytes(90 * KIB)), (b"z", b"")])
    live(engine, 3, 40)
    engine.prune_batch_log(390)
    live(engine, 2, 50)
    engine.close()
    return path


@pytest.mark.slow
def test_a_copy_is_smaller_and_says_the_same(lived: Path, tmp_path: Path) -> None:
    before = lived.read_bytes()
    out = tmp_path / "small.duckdb"
    compaction = compact(lived, out)

    assert lived.read_bytes() == before
    assert compaction.report.sound
    assert (compaction.report.path, compaction.out) == (str(out), str(out))
    assert compaction.bytes_after == out.stat().st_size < compaction.bytes_before
    assert [path.name for path in tmp_path.iterdir()] == ["small.duckdb"]
    copy, original = open_duckdb_engine(out), open_duckdb_engine(lived)
    assert copy.log_id == original.log_id
    assert copy.current_sequence() == original.current_sequence() == 491
    assert copy.oldest_retained_batch() == original.oldest_retained_batch() == 390
    assert copy.last_committed_at == original.last_committed_at
    assert copy.range_scan(b"", b"", 1000, True) == original.range_scan(b"", b"", 1000, True)
    for sequence in range(389, 492):
        assert copy.get_batch(sequence) == original.get_batch(sequence)
    assert copy.put_batch([(b"k", b"v")]) == 492
    copy.close()
    original._database.abandon()
    assert verify(out).sound
    shutil.copyfile(out, tmp_path / "again.duckdb")
    assert compact(tmp_path / "again.duckdb", tmp_path / "third.duckdb").report.sound


@pytest.mark.slow
def test_what_is_not_folded_is_kept_though_it_is_evicted(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    engine = open_duckdb_engine(path)
    engine.put_batch([(b"a", b"1")])
    engine.put_batch([(b"b", b"2")])
    engine.prune_batch_log(3)
    engine.close()

    compact(path, tmp_path / "small.duckdb")
    copy = open_duckdb_engine(tmp_path / "small.duckdb")
    assert copy.range_scan(b"", b"", 10, True) == [(b"a", b"1"), (b"b", b"2")]
    assert copy.oldest_retained_batch() is None
    assert copy.current_sequence() == 2
    copy.close()


@pytest.mark.slow
def test_an_empty_file_and_an_emptied_table_can_be_copied(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    engine = open_duckdb_engine(path, limits=LIMITS)
    engine.close()
    assert compact(path, tmp_path / "1.duckdb").report.newest == 0

    engine = open_duckdb_engine(path, limits=LIMITS)
    keys = [b"%d" % number for number in range(600)]
    engine.put_batch([(key, b"v") for key in keys])
    engine.delete_batch(keys)
    engine.put_batch([(b"a", b"b")] * 600)
    engine.delete_batch([b"a"])
    engine.close()
    report = compact(path, tmp_path / "2.duckdb").report
    assert (report.newest, report.sound) == (4, True)


@pytest.mark.slow
def test_time_does_not_go_back_in_a_copy_without_batches(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    limits = replace(LIMITS, memtable_entries_max=2)
    engine = open_duckdb_engine(path, limits=limits, now=lambda: 10**15)
    engine.put_batch([(b"a", b"1"), (b"b", b"1")])
    engine.put_batch([(b"a", b"2"), (b"b", b"2")])
    engine.put_batch([(b"a", b"3"), (b"b", b"3")])
    engine.commit(Group((), floor=4))
    engine._database.close()

    compact(path, tmp_path / "small.duckdb")
    copy = open_duckdb_engine(tmp_path / "small.duckdb")
    assert copy.last_committed_at == 10**15
    copy.close()


@pytest.mark.slow
def test_an_existing_file_is_never_overwritten(lived: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.duckdb"
    out.write_bytes(b"precious")
    with pytest.raises(InvalidRequestError, match="exists already, and was left untouched"):
        compact(lived, out)
    assert out.read_bytes() == b"precious"
    with pytest.raises(InvalidRequestError):
        compact(lived, lived)


def test_a_file_in_use_absent_or_foreign_is_refused(lived: Path, tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    with pytest.raises(ForeignFileError):
        compact(path, tmp_path / "small.duckdb")
    path.write_bytes(b"hello")
    with pytest.raises(ForeignFileError):
        compact(path, tmp_path / "small.duckdb")
    shutil.copy(lived, path)
    lock = LockFile(path)
    with pytest.raises(FileInUseError):
        compact(path, tmp_path / "small.duckdb")
    lock.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("UPDATE log SET checksum = 0 WHERE sequence = 400", "batch 400 does not match"),
        ("UPDATE kv SET value = 'x'::BLOB", "does not match its checksum"),
        ("DELETE FROM log WHERE sequence = 400", "the copy is not sound: after batch 399 comes"),
    ],
)
def test_a_damaged_file_is_not_copied(
    lived: Path, tmp_path: Path, statement: str, sentence: str
) -> None:
    path = tmp_path / "feed.duckdb"
    shutil.copy(lived, path)
    with duckdb.connect(str(path)) as con:
        con.execute(statement)
    with pytest.raises(CorruptionError, match=sentence):
        compact(path, tmp_path / "small.duckdb")
    assert [each.name for each in tmp_path.iterdir()] == ["feed.duckdb"]


def test_without_space_nothing_is_left(
    lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(directory, "sync", full)
    with pytest.raises(StoreFullError):
        compact(lived, tmp_path / "small.duckdb")
    assert not (tmp_path / "small.duckdb.new").exists()


@pytest.mark.slow
def test_the_copy_is_checkpointed_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "_WAL_BYTES_MAX", 0)
    path = tmp_path / "feed.duckdb"
    db = open_database(path, memory_bytes=64 * MIB)
    with db.transaction() as con:
        append(con.appender("log"), [make_batch(1), EncodedBatch(2, 2_000_000, b"\x80")])
    db.close()
    assert compact(path, tmp_path / "small.duckdb").report.batches == 2
