"""Whatever moment a process is killed at: what it acknowledged is there, whole, once, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from exo_stream.model import Entry, Keyspace
from tests.torture import workload
from tests.torture.campaign import campaign
from tests.torture.journal import Journal
from tests.torture.life import AtSyscall, can_trace, traced

KILLS = 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["first", "second"])
async def test_what_was_acknowledged_survives_kills(seed: str, tmp_path: Path) -> None:
    tally = await campaign(seed, KILLS, tmp_path / "file")
    assert tally.kills == KILLS
    assert tally.acknowledged > KILLS
    assert tally.batches >= tally.acknowledged
    assert 0 < tally.pruned < tally.batches


def test_strace_can_be_used_here() -> None:
    if not can_trace():
        pytest.skip("strace is not installed, or not allowed: kills come at moments only")
    assert AtSyscall("write", 3).wrap(["true"])[0] == "strace"
    assert "-P" in traced(["true"], "fdatasync:error=EIO", path=Path("a.wal"))


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
