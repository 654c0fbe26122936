"""Whatever moment a process is killed at: what it acknowledged is there, whole, once, in order."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from exo_stream.client import connect
from exo_stream.client.patience import Patience
from exo_stream.errors import OutcomeUnknownError, UnavailableError
from exo_stream.model import Entry, Keyspace
from exo_stream.opening import open_platform
from exo_stream.storage.verify import verify
from tests.served import EXO_STREAM
from tests.torture import sync_order, workload
from tests.torture.campaign import campaign
from tests.torture.child import Assignment
from tests.torture.journal import Journal
from tests.torture.life import (
    LIFE_SECONDS_MAX,
    ROOT,
    AtSyscall,
    environment,
    live,
    under_strace,
)
from tests.tracing import traced

KILLS = 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["first", "second", "third", "fourth"])
async def test_what_was_acknowledged_survives_kills(seed: str, tmp_path: Path) -> None:
    tally = await campaign(seed, KILLS, tmp_path / "file")
    assert tally.kills == KILLS
    assert tally.acknowledged > KILLS
    assert tally.batches >= tally.acknowledged
    assert 0 < tally.pruned < tally.batches


@traced
def test_strace_can_be_used_here() -> None:
    assert AtSyscall("write", 3).wrap(["true"])[0] == "strace"
    assert "-P" in under_strace(["true"], "fdatasync:error=EIO", path=Path("a.wal"))


@traced
@pytest.mark.slow
async def test_nothing_is_acknowledged_before_it_is_synced(tmp_path: Path) -> None:
    """The WAL by fdatasync, and its name, which each CHECKPOINT takes away, by an fsync."""
    path, record = tmp_path / "feed.duckdb", tmp_path / "record"
    for first in (0, 20):
        # One writer and no folds: what is written is what is about to be acknowledged.
        assignment = Assignment(
            str(path), "seed", [first], batches=20, limits={"memtable_entries_max": 100_000}
        )
        command = sync_order.recorded(assignment.command(), record)
        ended = await live(command, lambda _: None, None)
        assert ended.last_line == "closed", ended
        lines = record.read_text().splitlines()
        assert sync_order.acknowledgements(lines, path.with_name("feed.duckdb.wal")) >= 20


async def put_until_killed(command: list[str]) -> dict[int, int]:
    """Write to a server that is about to be killed; the sequence of each acknowledged number."""
    acknowledged: dict[int, int] = {}
    with trio.fail_after(LIFE_SECONDS_MAX):
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, cwd=ROOT, env=environment()
        )
        assert process.stdout is not None
        told = b""
        while not told.endswith(b"\n") and (chunk := await process.stdout.receive_some()):
            told += bytes(chunk)
        with suppress(UnavailableError, OutcomeUnknownError):
            url = json.loads(told)["url"] if told else "ws://127.0.0.1:1"
            async with connect(url, patience=Patience(attempts_max=1)) as client:
                for number in range(2_000):
                    sequence = await client.put_batch([(b"key/%d" % (number % 50), b"%d" % number)])
                    acknowledged[number] = sequence
        process.kill()  # nothing to do if it has ended
        await process.wait()
    return acknowledged


@traced
@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "count"),
    [("fdatasync", 2), ("fdatasync", 3), ("fdatasync", 30), ("write", 90), ("pwrite64", 12)],
)
async def test_the_command_serve_keeps_what_it_acknowledged(
    call: str, count: int, tmp_path: Path
) -> None:
    """As an operator runs it, killed at a system call that writes."""
    path = tmp_path / "feed.duckdb"
    command = [*EXO_STREAM, "serve", str(path), "--listen", "127.0.0.1:0", "--json"]
    small = ["--limit", "memtable_entries_max=20", "--limit", "checkpoint_wal_bytes=20000"]
    acknowledged = await put_until_killed(AtSyscall(call, count).wrap([*command, *small]))
    assert len(acknowledged) < 2_000, "it was to be killed"
    async with open_platform(path) as platform:
        frontier = await platform.current_sequence()
        assert len(acknowledged) <= frontier <= len(acknowledged) + 1
        for number, sequence in acknowledged.items():
            batch = await platform.get_batch(sequence)
            assert batch is not None
            assert [entry.value for entry in batch.entries] == [b"%d" % number]
    assert verify(path).sound


def test_a_missing_sync_is_noticed() -> None:
    wal = Path("f.wal")
    written, synced, acknowledged = (
        '7 write(3<f.wal>, "x", 1) = 1',
        "7 fdatasync(3<f.wal>) = 0",
        '6 write(1<pipe:[1]>, "ack 0 1 2", 9) = 9',
    )
    begun, over = "7 fdatasync(3<f.wal> <unfinished ...>", "7 <... fdatasync resumed>) = 0"
    created = '7 openat(AT_FDCWD, "f.wal", O_WRONLY|O_CREAT) = 3<f.wal>'
    named = "7 fsync(4<.>) = 0"
    assert sync_order.acknowledgements([written, synced, acknowledged], wal) == 1
    assert sync_order.acknowledgements([written, begun, over, acknowledged], wal) == 1
    assert sync_order.acknowledgements([created, written, synced, named, acknowledged], wal) == 1
    for missing in ([written, acknowledged], [written, begun, acknowledged]):
        with pytest.raises(AssertionError, match="before it was synced"):
            sync_order.acknowledgements(missing, wal)
    with pytest.raises(AssertionError, match="before its name was synced"):
        sync_order.acknowledgements([created, written, synced, acknowledged], wal)


def journal_of_one() -> tuple[Journal, tuple[Entry, ...]]:
    """A journal in which batch 1 is acknowledged, and the entries of that batch."""
    journal = Journal("seed", writers=2)
    for line in ("started 7", "opened id 0 1", "try 0 0", "ack 0 0 1"):
        journal.hear(line)
    return journal, workload.work("seed", 0, 0).entries


def test_the_journal_accepts_what_is_as_it_was_told() -> None:
    journal, entries = journal_of_one()
    journal.see(1, entries)
    journal.see(2, workload.work("seed", 1, 0).entries)  # durable, and never acknowledged
    journal.conclude(2)
    journal.hear("opened id 2 1")
    journal.hear("try 1 0")
    journal.hear("ack 1 0 2")
    assert journal.next_numbers == [1, 1]
    assert journal.table[workload.author_key(1)][1] == 2


def test_the_journal_notices_a_lost_batch() -> None:
    journal, _ = journal_of_one()
    with pytest.raises(AssertionError, match="the log ends at 0, but 1 was known"):
        journal.conclude(0)
    with pytest.raises(AssertionError, match="batch 2 is missing"):
        journal.conclude(2)
    with pytest.raises(AssertionError, match="the log ends at 0"):
        journal.hear("opened id 0 1")


def test_the_journal_notices_a_torn_batch() -> None:
    journal, entries = journal_of_one()
    torn = Entry(Keyspace.STORE, b"key/0000", b"torn")
    with pytest.raises(AssertionError, match="is torn"):
        journal.see(1, entries[:-1])
    with pytest.raises(AssertionError, match="is torn"):
        journal.see(1, (*entries, torn))


def test_the_journal_notices_a_write_that_took_effect_twice() -> None:
    journal, entries = journal_of_one()
    with pytest.raises(AssertionError, match=r"took effect as 1 and as 2"):
        journal.see(2, entries)
    with pytest.raises(AssertionError, match=r"took effect as 1 and as 3"):
        journal.hear("ack 0 0 3")


def test_the_journal_notices_a_wrong_order() -> None:
    journal, _ = journal_of_one()
    journal.see(2, workload.work("seed", 0, 2).entries)
    with pytest.raises(AssertionError):
        journal.conclude(2)  # number 2 before number 1
    journal.hear("try 1 0")
    journal.acknowledged = 5
    journal.hear("try 1 1")
    with pytest.raises(AssertionError, match="was acknowledged before it"):
        journal.hear("ack 1 1 4")


def test_the_journal_notices_a_floor_that_nobody_asked_for() -> None:
    journal, _ = journal_of_one()
    journal.hear("prune 1")
    with pytest.raises(AssertionError):
        journal.hear("opened id 1 2")
    journal.hear("prune 2")
    journal.hear("pruned 2 1")
    with pytest.raises(AssertionError):
        journal.hear("opened id 1 1")  # what was evicted is back
    with pytest.raises(AssertionError, match="changed its identity"):
        journal.hear("opened another 1 2")
    with pytest.raises(AssertionError, match="nonsense"):
        journal.hear("nonsense")
