"""The disk fails beneath the file: what was acknowledged is there, and nothing else is claimed.

Each life runs in a process of its own, under a full disk, a limit, or strace's injected errors.
It prints what it was acknowledged; what the file holds afterwards is compared with that.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from exo_stream.limits import MIB
from exo_stream.storage import batch_log
from exo_stream.storage.database import open_database
from exo_stream.storage.verify import verify
from tests.tracing import traced

pytestmark = pytest.mark.slow

LIFE = """
import os, resource, signal, sys
from exo_stream.errors import ExoStreamError, StoreFullError
from exo_stream.storage import batch_log
from exo_stream.storage.database import open_database
from tests.batches import make_batch

path, commits, value_bytes, checkpoint_every, limit = sys.argv[1], *map(int, sys.argv[2:])
say = lambda *words: os.write(1, (" ".join(map(str, words)) + chr(10)).encode())
try:
    db = open_database(path, memory_bytes=64 << 20)
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    with db.open_cursor().transaction() as rows:
        first = batch_log.ends(rows).newest + 1
    say("opened")
    for sequence in range(first, first + commits):
        with db.transaction() as con:
            batch_log.append(con.appender("log"), [make_batch(sequence, value_bytes=value_bytes)])
        say("acknowledged", sequence)
        if checkpoint_every and sequence % checkpoint_every == 0:
            db.checkpoint()
            say("checkpointed", sequence)
except ExoStreamError as error:
    say("failed", error.code)
    try:
        with db.transaction() as con:
            batch_log.append(con.appender("log"), [make_batch(1 << 40)])
        say("wrote on")
    except ExoStreamError as again:
        say("refused", again.code)
    if isinstance(error, StoreFullError):
        try:
            db.reopen()
            say("reopened too early")
        except StoreFullError as again:
            say("still", again.code)
        for name in filter(None, os.environ.get("BALLAST", "").split(":")):
            os.unlink(name)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        db.reopen()
        with db.open_cursor().transaction() as rows:
            last = batch_log.ends(rows).newest
        say("reopened", last)
        with db.transaction() as con:
            batch_log.append(con.appender("log"), [make_batch(last + 1)])
        say("acknowledged", last + 1)
db.close()
say("closed")
"""


def live(
    path: Path,
    *,
    commits: int = 30,
    value_bytes: int = 100,
    checkpoint_every: int = 0,
    limit: int = 0,
    under: Sequence[str] = (),
    ballast: Path | None = None,
) -> list[str]:
    """What one life said, line by line."""
    numbers = [str(number) for number in (commits, value_bytes, checkpoint_every, limit)]
    done = subprocess.run(
        [*under, sys.executable, "-c", LIFE, str(path), *numbers],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"BALLAST": str(ballast or "")},
        timeout=120,
    )
    lines = [line for line in done.stdout.splitlines() if re.match(r"[a-z_ ]+\d*$", line)]
    assert lines, done.stderr
    return lines


def acknowledged(lines: Sequence[str]) -> int:
    """The last batch that was acknowledged."""
    return max([0, *(int(line.split()[1]) for line in lines if line.startswith("acknowledged"))])


def kept(path: Path) -> int:
    """The newest batch of the file, which must be sound, and its log without a hole."""
    report = verify(path)
    assert report.sound, report.findings
    db = open_database(path, memory_bytes=64 * MIB)
    with db.open_cursor().transaction() as rows:
        newest = batch_log.ends(rows).newest
    db.close()
    assert report.newest == newest
    return newest


def inject(call: str, path: Path, error: str, when: int) -> list[str]:
    return [
        *("strace", "-f", "-qq", "-o", os.devnull, "-P", str(path)),
        *("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}+"),
    ]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        # Only root may mount, and in a container not even root: nothing else makes a small disk.
        # The tests under RLIMIT_FSIZE run everywhere, and fill the file as a disk would.
        pytest.skip("only root may mount a small filesystem; RLIMIT_FSIZE stands in for it")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@traced
@pytest.mark.parametrize("when", [3, 10])
def test_a_commit_whose_sync_fails_is_not_acknowledged(tmp_path: Path, when: int) -> None:
    path = tmp_path / "feed.duckdb"
    open_database(path, memory_bytes=64 * MIB).close()
    lines = live(path, under=inject("fdatasync", Path(f"{path}.wal"), "EIO", when))

    assert lines[-3:] == ["failed outcome_unknown", "refused outcome_unknown", "closed"]
    assert kept(path) - acknowledged(lines) in (0, 1)


@traced
def test_a_checkpoint_whose_sync_fails_stops_everything_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    open_database(path, memory_bytes=64 * MIB).close()
    lines = live(path, checkpoint_every=10, under=inject("fdatasync", path, "EIO", 2))

    assert lines[-3:] == ["failed outcome_unknown", "refused outcome_unknown", "closed"]
    assert kept(path) == acknowledged(lines) == 10


@traced
def test_a_wal_write_that_fails_otherwise_stops_everything(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    open_database(path, memory_bytes=64 * MIB).close()
    lines = live(path, under=inject("write", Path(f"{path}.wal"), "EIO", 5))

    assert lines[-3:] == ["failed outcome_unknown", "refused outcome_unknown", "closed"]
    assert kept(path) == acknowledged(lines) > 0


def said_when_full(lines: Sequence[str]) -> list[str]:
    return [re.sub(r" \d+$", "", line) for line in lines[lines.index("failed store_full") :]]


FULL_THEN_SPACE = [
    "failed store_full",
    "refused store_full",
    "still store_full",
    "reopened",
    "acknowledged",
    "closed",
]


@pytest.mark.parametrize("checkpoint_every", [0, 20], ids=["in the WAL", "in a CHECKPOINT"])
def test_a_file_at_its_size_limit_goes_on_when_the_limit_is_lifted(
    tmp_path: Path, checkpoint_every: int
) -> None:
    path = tmp_path / "feed.duckdb"
    lines = live(
        path,
        commits=60,
        value_bytes=100_000,
        checkpoint_every=checkpoint_every,
        limit=3_000_000,
    )

    assert said_when_full(lines) == FULL_THEN_SPACE
    assert "wrote on" not in lines
    before = acknowledged(lines[: lines.index("failed store_full")])
    assert f"reopened {before}" in lines
    assert kept(path) == before + 1


@pytest.mark.parametrize("checkpoint_every", [0, 20], ids=["in the WAL", "in a CHECKPOINT"])
def test_a_full_disk_is_used_again_when_there_is_space(
    small_disk: Path, checkpoint_every: int
) -> None:
    path = small_disk / "feed.duckdb"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(4 * MIB))
    lines = live(
        path,
        commits=60,
        value_bytes=100_000,
        checkpoint_every=checkpoint_every,
        ballast=ballast,
    )

    assert said_when_full(lines) == FULL_THEN_SPACE
    before = acknowledged(lines[: lines.index("failed store_full")])
    assert f"reopened {before}" in lines
    assert kept(path) == before + 1


def test_a_new_file_on_a_full_disk_leaves_nothing_behind(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(8 * MIB - 200_000))
    path = small_disk / "feed.duckdb"
    code = (
        "import sys\nfrom exo_stream.storage.database import open_database\n"
        "open_database(sys.argv[1], memory_bytes=64 << 20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert f"StoreFullError: there is no space for {path}" in done.stderr
    assert not path.exists()
    (small_disk / "ballast").unlink()
    assert kept_after_creation(path) == 0


def kept_after_creation(path: Path) -> int:
    open_database(path, memory_bytes=64 * MIB).close()
    return kept(path)


@traced
def test_names_are_made_durable_before_anything_is_acknowledged(tmp_path: Path) -> None:
    """The file's name after its birth; the WAL's after its first COMMIT, and after a CHECKPOINT."""
    trace = tmp_path / "trace"
    folder = tmp_path / "data"
    folder.mkdir()
    live(
        folder / "feed.duckdb",
        commits=4,
        checkpoint_every=2,
        under=[
            "strace",
            "-f",
            "-qq",
            "-y",
            "-o",
            str(trace),
            "-e",
            "trace=fsync,fdatasync,rename,write",
        ],
    )
    events = []
    for line in trace.read_text().splitlines():
        if re.search(rf"fsync\(\d+<{re.escape(str(folder))}>\)", line):
            events.append("directory")
        elif re.search(r"fdatasync\(\d+<[^>]*feed\.duckdb\.wal>", line):
            events.append("wal")
        elif "rename(" in line and "feed.duckdb.new" in line:
            events.append("rename")
        elif acknowledgement := re.search(r'"(acknowledged|checkpointed) (\d)\\n"', line):
            events.append(" ".join(acknowledgement.groups()))
    start = events.index("rename")
    assert events[start : events.index("acknowledged 4")] == [
        *("rename", "directory"),
        *("wal", "directory"),  # marked as open
        *("wal", "acknowledged 1", "wal", "acknowledged 2"),
        *("wal", "directory", "checkpointed 2"),
        *("wal", "directory", "acknowledged 3", "wal"),
    ]
