"""A disk that is full or fails: nothing is acknowledged that is not there, and every loss is told."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exo_stream.errors import StoreError
from exo_stream.limits import KIB, MIB
from exo_stream.storage.database import open_database
from tests.torture import verifier
from tests.torture.child import Assignment
from tests.torture.journal import Journal
from tests.torture.life import AtMoment, Death, Ended, Fault, can_trace, live

WRITERS = 4

pytestmark = pytest.mark.slow

traced = pytest.mark.skipif(not can_trace(), reason="strace is not installed, or not allowed")


def assignment(path: Path, journal: Journal, **changes: int) -> Assignment:
    return Assignment(
        path=str(path),
        seed=journal.seed,
        first_numbers=list(journal.next_numbers),
        batches=25,
        limits=changes,
    )


async def lives_on(path: Path, journal: Journal, death: Death | None, **changes: int) -> Ended:
    """A life on ``path``, and what it left is judged."""
    ended = await live(assignment(path, journal, **changes).command(), journal.hear, death)
    await verifier.judge(verifier.copy(path, path.parent / "copy"), journal)
    return ended


def codes(journal: Journal) -> set[str]:
    return {code for _, code in journal.refusals}


@traced
@pytest.mark.parametrize(
    "injection",
    [
        pytest.param("fdatasync:error=EIO:when=6", id="a WAL that is not synced"),
        pytest.param("fdatasync:error=EIO:when=25", id="later"),
        pytest.param("write:error=EIO:when=12", id="a WAL that cannot be written"),
        pytest.param("pwrite64:error=EIO:when=9", id="a CHECKPOINT that cannot be written"),
        pytest.param("fsync:error=EIO:when=3", id="a directory that is not synced"),
    ],
)
async def test_a_disk_that_fails_stops_the_platform(injection: str, tmp_path: Path) -> None:
    """What was in flight is unknown, nothing else; the next life has what was acknowledged."""
    path = tmp_path / "feed.duckdb"
    journal = Journal("faults", writers=WRITERS)
    ended = await lives_on(path, journal, Fault(injection))
    assert ended.last_line == "stopped outcome_unknown", ended
    assert codes(journal) <= {"outcome_unknown", "platform_closed"}
    assert "file failed" in ended.log
    ended = await lives_on(path, journal, None)
    assert ended.last_line == "closed", ended
    assert journal.judged == sum(journal.next_numbers)


@traced
@pytest.mark.parametrize(
    "injection",
    [
        pytest.param("write:error=ENOSPC:when=12", id="in a WAL write"),
        pytest.param("fdatasync:error=ENOSPC:when=12", id="when the WAL is synced"),
        pytest.param("pwrite64:error=ENOSPC:when=9", id="in a CHECKPOINT"),
    ],
)
async def test_no_space_for_a_moment_is_no_end(injection: str, tmp_path: Path) -> None:
    """The same process goes on, and each write has taken effect once."""
    path = tmp_path / "feed.duckdb"
    journal = Journal("faults", writers=WRITERS)
    ended = await lives_on(path, journal, Fault(injection))
    assert ended.last_line == "closed", ended
    assert codes(journal) <= {"store_full", "outcome_unknown"}
    assert "space ran out" in ended.log
    assert "space came back" in ended.log
    assert journal.judged == sum(journal.next_numbers)


@traced
async def test_a_file_that_cannot_be_made_leaves_none_behind(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    journal = Journal("faults", writers=WRITERS)
    ended = await lives_on(path, journal, Fault("fdatasync:error=EIO:when=1"))
    assert ended.last_line == "stopped store_failed", ended
    assert not path.exists()
    ended = await lives_on(path, journal, None)
    assert ended.last_line == "closed", ended


class Refusals:
    """Hears what a child says, and does something once a write has been refused."""

    def __init__(self, journal: Journal, then: Callable[[], None]) -> None:
        self._journal = journal
        self._then: Callable[[], None] | None = then
        self._pid = 0

    def hear(self, line: str) -> None:
        self._journal.hear(line)
        if line.startswith("refused") and self._then is not None:
            then, self._then = self._then, None
            then()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of our own with 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk; a limit on the size of files is tested instead")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    ("ballast_bytes", "changes", "log"),
    [
        pytest.param(
            19 * MIB,
            {"free_bytes_min": 0, "checkpoint_wal_bytes": 64 * MIB},
            "batches=",
            id="in a WAL write",
        ),
        pytest.param(
            20 * MIB,
            {"free_bytes_min": 0, "checkpoint_wal_bytes": 1 * MIB, "memtable_entries_max": 100_000},
            "no space for a checkpoint",
            id="in a CHECKPOINT",
        ),
        pytest.param(12 * MIB, {"free_bytes_min": 10 * MIB}, "", id="below the low-disk mark"),
    ],
)
async def test_a_full_disk_refuses_writes_until_there_is_space(
    ballast_bytes: int, changes: dict[str, int], log: str, small_disk: Path
) -> None:
    """Without a restart; what was acknowledged before, and after, is there."""
    path = small_disk / "feed.duckdb"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * ballast_bytes)
    journal = Journal("faults", writers=WRITERS)
    refusals = Refusals(journal, ballast.unlink)
    child = replace(assignment(path, journal, **changes), batches=150)
    ended = await live(child.command(), refusals.hear, None)
    assert ended.last_line == "closed", ended
    assert "store_full" in codes(journal)
    assert codes(journal) <= {"store_full", "outcome_unknown"}
    assert log in ended.log
    await verifier.judge(verifier.copy(path, small_disk.parent / "copy"), journal)
    assert journal.judged == sum(journal.next_numbers) == 150 * WRITERS


async def test_a_limit_on_the_size_of_files_is_no_space_either(tmp_path: Path) -> None:
    """Nobody needs to be root to see a WAL that cannot grow, and then can."""
    path = tmp_path / "feed.duckdb"
    journal = Journal("faults", writers=WRITERS)
    pids: list[int] = []

    def lift() -> None:
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(pids[0], resource.RLIMIT_FSIZE, unlimited)

    refusals = Refusals(journal, lift)

    def hear(line: str) -> None:
        if line.startswith("started"):
            pids.append(int(line.split()[1]))
        refusals.hear(line)

    child = replace(assignment(path, journal, checkpoint_wal_bytes=64 * MIB), batches=60)
    command = ["prlimit", f"--fsize={900 * KIB}:", *child.command()]
    ended = await live(command, hear, None)
    assert ended.last_line == "closed", ended
    assert codes(journal) <= {"store_full", "outcome_unknown"}
    assert codes(journal)
    await verifier.judge(verifier.copy(path, tmp_path / "copy"), journal)
    assert journal.judged == sum(journal.next_numbers) == 60 * WRITERS


async def test_killed_while_there_is_no_space(small_disk: Path) -> None:
    """The next life finds the disk full, says so, and opens the file once there is space."""
    path = small_disk / "feed.duckdb"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 19 * MIB)
    journal = Journal("faults", writers=WRITERS)
    changes = {"free_bytes_min": 0, "checkpoint_wal_bytes": 64 * MIB}
    child = replace(assignment(path, journal, **changes), batches=150)
    dying = AtMoment(10_000, 0)  # ever refused, it would try for ever
    del dying
    ended = await live(replace(child, tries=3).command(), journal.hear, None)
    assert "store_full" in codes(journal), ended
    ballast.unlink()
    ended = await lives_on(path, journal, None)
    assert ended.last_line == "closed", ended


def test_a_checkpoint_that_finds_no_moment_is_postponed(tmp_path: Path) -> None:
    """DuckDB refuses it while a transaction ends elsewhere; that is no failure of the file."""
    database = open_database(tmp_path / "feed.duckdb", memory_bytes=64 * MIB)
    other = database.connect()
    other.execute("BEGIN TRANSACTION")
    other.execute("DELETE FROM meta WHERE name = 'nothing'")
    other.execute("INSERT INTO meta VALUES ('another', 'x')")
    with pytest.raises(StoreError, match="no moment"):
        database.checkpoint()
    other.execute("ROLLBACK")
    other.close()
    database.checkpoint()
    database.close()
