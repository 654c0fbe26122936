"""The write-ahead log read without DuckDB, damaged in every way we know, and repaired."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from structlog.testing import capture_logs

from exo_stream.errors import CorruptionError, FileInUseError, ForeignFileError
from exo_stream.limits import MIB
from exo_stream.storage import batch_log, wal
from exo_stream.storage.database import open_database
from exo_stream.storage.lock_file import LockFile
from exo_stream.storage.repair import WalVerdict, repair_wal
from exo_stream.storage.verify import verify
from tests.batches import make_batch

MEMORY = 64 * MIB
COMMITS = 3


@dataclass(frozen=True)
class Crashed:
    """A file and its WAL as a killed process left them, with where each transaction ends."""

    path: Path
    log: bytes
    ends: list[int]

    @property
    def wal_path(self) -> Path:
        return self.path.with_name(self.path.name + ".wal")

    def copy(self, folder: Path, log: bytes) -> Path:
        """The same file with another WAL, in a folder of its own."""
        folder.mkdir()
        path = folder / self.path.name
        shutil.copy(self.path, path)
        path.with_name(path.name + ".wal").write_bytes(log)
        return path


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    path = tmp_path_factory.mktemp("crashed") / "feed.duckdb"
    db = open_database(path, memory_bytes=MEMORY)
    wal_path = path.with_name("feed.duckdb.wal")
    ends = []
    for sequence in range(1, COMMITS + 1):
        with db.transaction() as con:
            batch_log.append(con.appender("log"), [make_batch(sequence, value_bytes=40)])
        ends.append(wal_path.stat().st_size)
    log = wal_path.read_bytes()
    db.abandon()
    return Crashed(path, log, ends)


def newest(path: Path) -> int:
    """The newest batch of the file, after opening it as any process would."""
    db = open_database(path, memory_bytes=MEMORY)
    with db.open_cursor().transaction() as rows:
        found = batch_log.ends(rows).newest
    db.close()
    return found


def flip(log: bytes, at: int) -> bytes:
    return log[:at] + bytes([log[at] ^ 0x10]) + log[at + 1 :]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def test_an_intact_log_is_read_to_its_end(crashed: Crashed) -> None:
    scan = wal.scan(crashed.log)

    assert scan.damage is None
    assert scan.intact_bytes == scan.size == crashed.ends[-1]
    assert scan.transactions == COMMITS + 1  # the first says that the file is open
    assert scan == wal.scan_structure(crashed.log)


def test_every_flipped_byte_of_the_last_transaction_is_found(crashed: Crashed) -> None:
    for at in range(crashed.ends[-2], crashed.ends[-1]):
        scan = wal.scan(flip(crashed.log, at))
        assert scan.damage is not None, at
        assert scan.intact_bytes == crashed.ends[-2], at
        assert not scan.flush_follows, at


def test_every_flipped_byte_of_an_earlier_transaction_was_durable(crashed: Crashed) -> None:
    for at in range(crashed.ends[0], crashed.ends[1]):
        scan = wal.scan(flip(crashed.log, at))
        assert scan.damage is not None, at
        assert scan.flush_follows, at


def test_every_shorter_log_lost_its_last_transaction_only(crashed: Crashed) -> None:
    for size in range(crashed.ends[-2], crashed.ends[-1]):
        scan = wal.scan(crashed.log[:size])
        assert scan.intact_bytes == crashed.ends[-2], size
        assert (scan.damage is None) == (size == crashed.ends[-2]), size
        assert not scan.flush_follows, size


def test_nothing_is_trusted_behind_a_damaged_header(crashed: Crashed) -> None:
    for at in range(9):
        scan = wal.scan(flip(crashed.log, at))
        assert (scan.intact_bytes, scan.header_lost) == (0, True), at


def test_a_first_write_that_was_torn_is_no_lost_header(crashed: Crashed) -> None:
    header = crashed.log[: crashed.log.index(b"\xff\xff") + 2]
    torn = [header[:size] for size in range(len(header))] + [bytes(7), bytes(5000)]
    for data in torn:
        scan = wal.scan(data)
        assert scan.damage == "its first write is not complete", data
        assert (scan.intact_bytes, scan.flush_follows, scan.header_lost) == (0, False, False), data
    damaged_field, damaged_end = header[:-5] + b"\x68", header[:-2] + b"\xfe"
    for data in (damaged_field, damaged_end, bytes(7) + b"\1", bytes(40) + crashed.log[40:90]):
        assert wal.scan(data).header_lost, data


@pytest.mark.parametrize(
    "log", [b"\xa5\x5a" * 2500, b"\xa5", bytes(40) + b"\xa5" * 9], ids=["long", "short", "behind"]
)
def test_a_log_that_is_garbage_is_refused_and_left_untouched(
    crashed: Crashed, tmp_path: Path, log: bytes
) -> None:
    """DuckDB would take it for an empty one."""
    path = crashed.copy(tmp_path / "garbage", log)
    before = contents(path.parent)
    with pytest.raises(CorruptionError, match="exo-stream repair-wal"):
        open_database(path, memory_bytes=MEMORY)
    (finding,) = verify(path).findings
    assert "exo-stream repair-wal" in finding.sentence
    assert repair_wal(path).verdict is WalVerdict.BEYOND_REPAIR
    assert contents(path.parent) == before


def hole(log: bytes, start: int) -> bytes:
    return log[:start] + bytes(60) + log[start + 60 :]


def damaged(log: bytes, start: int, kind: str) -> bytes:
    """The log with damage in or after its last transaction, which begins at ``start``."""
    return {
        "cut at its start": log[:start],
        "cut in a head": log[: start + 9],
        "last byte missing": log[:-1],
        "zeros after it": log + bytes(4096),
        "garbage after it": log + b"\xa5" * 300,
        "zero-filled": log[:start] + bytes(len(log) - start),
        "a flipped bit": flip(log, (start + len(log)) // 2),
        "a hole": hole(log, start + 50),
        "a hole at its start": hole(log, start),
        "a flipped length": flip(log, start + 3),
        "a flipped checksum": flip(log, start + 9),
        "a hole, and zeros after it": hole(log, start + 50) + bytes(4096),
    }[kind]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("cut at its start", False),
        ("cut in a head", False),
        ("last byte missing", False),
        ("zeros after it", False),
        ("garbage after it", False),
        ("zero-filled", False),
        ("a flipped bit", True),
        ("a hole", True),
        ("a hole at its start", True),
        ("a flipped length", True),
        ("a flipped checksum", True),
        ("a hole, and zeros after it", True),
    ],
)
def test_damage_of_the_last_transaction_never_loses_an_earlier_one(
    crashed: Crashed, tmp_path: Path, kind: str, refused: bool
) -> None:
    log = damaged(crashed.log, crashed.ends[-2], kind)
    path = crashed.copy(tmp_path / "damaged", log)
    before = contents(path.parent)
    report = repair_wal(path)
    assert contents(path.parent) == before

    if refused:
        assert report.verdict is WalVerdict.REPAIRABLE
        with pytest.raises(CorruptionError, match="exo-stream repair-wal"):
            newest(path)
        assert contents(path.parent) == before
        assert repair_wal(path, apply=True).verdict is WalVerdict.REPAIRED
    assert newest(path) == COMMITS - (kind not in {"zeros after it", "garbage after it"})


@pytest.mark.slow
def test_repair_keeps_everything_up_to_the_damage_wherever_it_is(
    crashed: Crashed, tmp_path: Path
) -> None:
    """Each byte would take minutes; one in seven meets every kind of field."""
    for at in range(crashed.ends[-2], crashed.ends[-1], 7):
        path = crashed.copy(tmp_path / str(at), flip(crashed.log, at))
        report = repair_wal(path, apply=True)
        assert report.verdict is WalVerdict.REPAIRED, at
        assert newest(path) == COMMITS - 1, at


@pytest.mark.slow
def test_damage_before_the_last_transaction_is_never_passed_over(
    crashed: Crashed, tmp_path: Path
) -> None:
    """A flipped length is what DuckDB alone would take for the end, dropping what follows."""
    start, end = crashed.ends[0], crashed.ends[1]
    for at in (*range(start, start + 16), *range(start + 16, end, 31)):
        path = crashed.copy(tmp_path / str(at), flip(crashed.log, at))
        before = contents(path.parent)
        with pytest.raises(CorruptionError, match="exo-stream repair-wal"):
            open_database(path, memory_bytes=MEMORY)
        assert repair_wal(path).verdict is WalVerdict.BEYOND_REPAIR, at
        with pytest.raises(CorruptionError, match="Restore a backup"):
            repair_wal(path, apply=True)
        assert contents(path.parent) == before


def test_a_tail_that_is_dropped_is_told_of(crashed: Crashed, tmp_path: Path) -> None:
    torn = crashed.log[: crashed.ends[-2] + 9]
    path = crashed.copy(tmp_path / "torn", torn)
    report = verify(path)
    assert report.sound
    (note,) = report.notes
    assert note.startswith("the last 9 bytes of the write-ahead log are no whole transaction")
    with capture_logs() as logs:
        assert newest(path) == COMMITS - 1
    told = {"event": "log tail cut", "path": str(path), "bytes": 9, "log_level": "warning"}
    assert told in logs


def test_a_whole_log_is_not_told_of(crashed: Crashed, tmp_path: Path) -> None:
    path = crashed.copy(tmp_path / "whole", crashed.log)
    assert verify(path).notes == ()
    with capture_logs() as logs:
        assert newest(path) == COMMITS
    assert "log tail cut" not in [line["event"] for line in logs]


def test_repair_keeps_copies_and_never_overwrites_them(crashed: Crashed, tmp_path: Path) -> None:
    log = flip(crashed.log, crashed.ends[-1] - 30)
    path = crashed.copy(tmp_path / "damaged", log)
    original = path.read_bytes()
    first = repair_wal(path, apply=True)
    path.with_name("feed.duckdb.wal").write_bytes(log)
    second = repair_wal(path, apply=True)

    assert first.copies == (f"{path}.before-repair-1", f"{path}.wal.before-repair-1")
    assert second.copies == (f"{path}.before-repair-2", f"{path}.wal.before-repair-2")
    for name in first.copies + second.copies:
        assert Path(name).read_bytes() in (original, log)
    assert first.kept_bytes == crashed.ends[-2] < first.wal_bytes
    assert path.with_name("feed.duckdb.wal").read_bytes() == crashed.log[: crashed.ends[-2]]


def test_what_is_sound_is_left_alone(crashed: Crashed, tmp_path: Path) -> None:
    path = crashed.copy(tmp_path / "sound", crashed.log)
    assert repair_wal(path, apply=True).verdict is WalVerdict.SOUND
    path.with_name("feed.duckdb.wal").unlink()
    report = repair_wal(path, apply=True)
    assert (report.verdict, report.transactions) == (WalVerdict.SOUND, 0)
    assert sorted(contents(path.parent)) == ["feed.duckdb"]


@pytest.mark.slow
def test_a_damaged_first_transaction_or_header_is_judged(crashed: Crashed, tmp_path: Path) -> None:
    torn = crashed.copy(tmp_path / "torn", crashed.log[:60])
    assert repair_wal(torn, apply=True).verdict is WalVerdict.REPAIRED
    assert newest(torn) == 0
    unborn = crashed.copy(tmp_path / "unborn", crashed.log[:20])
    assert repair_wal(unborn).verdict is WalVerdict.REPAIRABLE
    assert repair_wal(unborn).reason.endswith("whose COMMIT may not have returned")
    assert newest(crashed.copy(tmp_path / "opened", crashed.log[:20])) == 0
    assert repair_wal(unborn, apply=True).verdict is WalVerdict.REPAIRED
    assert repair_wal(unborn).verdict is WalVerdict.SOUND
    assert newest(unborn) == 0
    headless = crashed.copy(tmp_path / "headless", flip(crashed.log, 2))
    assert repair_wal(headless).verdict is WalVerdict.BEYOND_REPAIR


def test_logs_that_only_duckdb_itself_writes_are_not_touched(
    crashed: Crashed, tmp_path: Path
) -> None:
    path = crashed.copy(tmp_path / "rare", crashed.log)
    path.with_name("feed.duckdb.wal.checkpoint").write_bytes(b"")
    report = repair_wal(path)
    assert report.verdict is WalVerdict.BEYOND_REPAIR
    assert report.reason == "there is a feed.duckdb.wal.checkpoint, not ours"


@pytest.mark.parametrize("content", [b"", b"\xa5" * 5000, b"SQLite format 3\0" * 512])
def test_a_file_of_another_kind_is_not_repaired(
    crashed: Crashed, tmp_path: Path, content: bytes
) -> None:
    path = crashed.copy(tmp_path / "foreign", crashed.log[:-1])
    path.write_bytes(content)
    before = contents(path.parent)
    with pytest.raises(ForeignFileError, match="is not an exo-stream file"):
        repair_wal(path, apply=True)
    assert contents(path.parent) == before


def test_the_log_of_another_duckdb_file_is_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("PRAGMA disable_checkpoint_on_shutdown")
        con.execute("CREATE TABLE t (a INTEGER)")
        con.execute("INSERT INTO t VALUES (1)")
    wal_path = tmp_path / "other.duckdb.wal"
    for log in (wal_path.read_bytes()[:-1], b"\xa5" * 50):
        wal_path.write_bytes(log)
        before = contents(tmp_path)
        with pytest.raises(ForeignFileError, match="but not an exo-stream file"):
            repair_wal(path, apply=True)
        with pytest.raises(ForeignFileError, match="but not an exo-stream file"):
            open_database(path, memory_bytes=MEMORY)
        assert contents(tmp_path) == before


def test_a_file_in_use_or_absent_is_refused(crashed: Crashed, tmp_path: Path) -> None:
    path = crashed.copy(tmp_path / "used", crashed.log)
    lock = LockFile(path)
    with pytest.raises(FileInUseError):
        repair_wal(path)
    lock.close()
    with pytest.raises(ForeignFileError):
        repair_wal(tmp_path / "absent")
