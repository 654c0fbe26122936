"""A disk that is full or fails: no acknowledgement is false, and what is unknown is called so."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from exo_stream.errors import StoreError
from exo_stream.limits import KIB, MIB
from exo_stream.storage.database import open_database
from tests.torture import verifier
from tests.torture.child import Assignment
from tests.torture.journal import Journal
from tests.torture.life import Death, Ended, Fault, live
from tests.tracing import traced

WRITERS = 4

pytestmark = pytest.mark.slow


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


def fault(text: str, path: Path) -> Fault:
    """The fault, on calls that touch the WAL only if its text says so."""
    injection, _, where = text.partition(" ")
    return Fault(injection, path.with_name(path.name + ".wal") if where else None)


def codes(journal: Journal) -> set[str]:
    return {code for _, code in journal.refusals}


@traced
@pytest.mark.parametrize(
    "injection",
    [
        pytest.param("fdatasync:error=EIO:when=6", id="a WAL that is not synced"),
        pytest.param("fdatasync:error=EIO:when=25", id="later"),
        pytest.param("write:error=EIO:when=12 WAL", id="a WAL that cannot be written"),
        pytest.param("pwrite64:error=EIO:when=9", id="a CHECKPOINT that cannot be written"),
        pytest.param("fsync:error=EIO:when=3", id="a directory that is not synced"),
    ],
)
async def test_a_disk_that_fails_stops_the_platform(injection: str, tmp_path: Path) -> None:
    """What was in flight is unknown, nothing else; the next life has what was acknowledged."""
    path = tmp_path / "feed.duckdb"
    journal = Journal("faults", writers=WRITERS)
    ended = await lives_on(path, journal, fault(injection, path))
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
        pytest.param("write:error=ENOSPC:when=12 WAL", id="in a WAL write"),
        pytest.param("fdatasync:error=ENOSPC:when=12", id="when the WAL is synced"),
        pytest.param("pwrite64:error=ENOSPC:when=9", id="in a CHECKPOINT"),
    ],
)
async def test_no_space_for_a_moment_is_no_end(injection: str, tmp_path: Path) -> None:
    """The same process goes on, and each write has taken effect once."""
    path = tmp_path / "feed.duckdb"
    journal = Journal("faults", writers=WRITERS)
    ended = await lives_on(path, journal, fault(injection, path))
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


class Listener:
    """Hears what a child says, and acts once it has said a word so many times."""

    def __init__(self, journal: Journal, **acts: tuple[int, Callable[[], object]]) -> None:
        self._journal = journal
        self._acts = acts
        self._said = dict.fromkeys(acts, 0)

    def hear(self, line: str) -> None:
        self._journal.hear(line)
        word = line.partition(" ")[0]
        if word in self._acts:
            self._said[word] += 1
            times, act = self._acts[word]
            if self._said[word] == times:
                act()


def fill(ballast: Path) -> None:
    """Leave not a byte free on the disk that the ballast lies on."""
    with ballast.open("wb", buffering=0) as file:
        for chunk in (MIB, 4 * KIB, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * chunk)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of our own with 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        # Only root may mount, and in a container not even root: nothing else makes a small disk.
        # The test that limits the size of files runs everywhere, and fills them as a disk would.
        pytest.skip("may not mount a small disk; a limit on the size of files is tested instead")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_below_the_low_disk_mark_writes_are_refused(small_disk: Path) -> None:
    """Before anything is tried; the same process goes on once there is space."""
    path, ballast = small_disk / "feed.duckdb", small_disk / "ballast"
    ballast.write_bytes(b"x" * 50 * MIB)
    journal = Journal("faults", writers=WRITERS)
    listener = Listener(journal, refused=(20, ballast.unlink))
    child = replace(assignment(path, journal, free_bytes_min=10 * MIB), batches=150)
    ended = await live(child.command(), listener.hear, None)
    assert ended.last_line == "closed", ended
    assert codes(journal) == {"store_full"}
    assert "space ran out" not in ended.log
    await verifier.judge(verifier.copy(path, small_disk.parent / "copy"), journal)
    assert journal.judged == sum(journal.next_numbers) == 150 * WRITERS


async def test_a_disk_without_a_byte_left_stops_writes_until_there_is_space(
    small_disk: Path,
) -> None:
    """Without a restart; what was acknowledged before, and after, is there."""
    path, ballast = small_disk / "feed.duckdb", small_disk / "ballast"
    journal = Journal("faults", writers=WRITERS)
    listener = Listener(
        journal,
        ack=(100, partial(fill, ballast)),
        # Refused so often, it has been idle for so long that it tried a CHECKPOINT, if no
        # COMMIT ran into the end of the disk before.
        refused=(500, ballast.unlink),
    )
    never = {"memtable_entries_max": 100_000, "memtable_bytes_max": 64 * MIB}  # a fold
    changes = {"free_bytes_min": 0, "checkpoint_idle_wal_bytes": 1, **never}
    child = replace(assignment(path, journal, **changes), batches=100)
    ended = await live(child.command(), listener.hear, None)
    assert ended.last_line == "closed", ended
    assert codes(journal) <= {"store_full", "outcome_unknown"}
    assert "space ran out" in ended.log
    assert "space came back" in ended.log
    await verifier.judge(verifier.copy(path, small_disk.parent / "copy"), journal)
    assert journal.judged == sum(journal.next_numbers) == 100 * WRITERS


@pytest.mark.parametrize("size", [600 * KIB, 900 * KIB, 3 * MIB])
async def test_files_that_may_not_grow_are_no_space_either(size: int, tmp_path: Path) -> None:
    """Nobody needs to be root to see a WAL, or a file, that cannot grow, and then can."""
    path = tmp_path / "feed.duckdb"
    journal = Journal("faults", writers=WRITERS)
    pids: list[int] = []
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    listener = Listener(
        journal, refused=(5, lambda: resource.prlimit(pids[0], resource.RLIMIT_FSIZE, unlimited))
    )

    def hear(line: str) -> None:
        if line.startswith("started"):
            pids.append(int(line.split()[1]))
        listener.hear(line)

    changes = {} if size > MIB else {"checkpoint_wal_bytes": 64 * MIB}
    child = replace(assignment(path, journal, **changes), batches=60)
    ended = await live(["prlimit", f"--fsize={size}:", *child.command()], hear, None)
    assert ended.last_line == "closed", ended
    assert codes(journal)
    assert codes(journal) <= {"store_full", "outcome_unknown"}
    assert "space ran out" in ended.log
    await verifier.judge(verifier.copy(path, tmp_path / "copy"), journal)
    assert journal.judged == sum(journal.next_numbers) == 60 * WRITERS


async def test_a_life_that_ended_on_a_full_disk_goes_on_later(small_disk: Path) -> None:
    """Closed, or given up: the next life has what was acknowledged, and goes on."""
    path, ballast = small_disk / "feed.duckdb", small_disk / "ballast"
    journal = Journal("faults", writers=WRITERS)
    listener = Listener(journal, ack=(50, partial(fill, ballast)))
    child = replace(assignment(path, journal, free_bytes_min=0), batches=150, tries=3)
    ended = await live(child.command(), listener.hear, None)
    assert "store_full" in codes(journal), ended
    ballast.unlink()
    ended = await lives_on(path, journal, None)
    assert ended.last_line == "closed", ended


def test_a_checkpoint_that_finds_no_moment_is_postponed(tmp_path: Path) -> None:
    """DuckDB refuses it while a transaction ends elsewhere; that is no failure of the file."""
    database = open_database(tmp_path / "feed.duckdb", memory_bytes=64 * MIB)
    other = database.connect()
    other.execute("BEGIN TRANSACTION")
    other.execute("CREATE TABLE exo.another (number INTEGER)")
    with pytest.raises(StoreError, match="no moment"):
        database.checkpoint()
    other.execute("ROLLBACK")
    other.close()
    database.checkpoint()
    database.close()
