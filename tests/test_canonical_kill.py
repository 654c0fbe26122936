"""Whatever moment a process is killed at: state and events of a transaction are both there.

X1, and X3: a torn tail of the write-ahead log costs the transaction that was never acknowledged.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from exo_stream import open_platform
from exo_stream.canonical.values import decode
from exo_stream.canonical.verify import CanonicalCheck
from exo_stream.storage.verify import verify
from tests.torture import transfers
from tests.torture.life import Death, can_trace, live, some_death

ROUNDS = 40
SECONDS_MAX = 40
"""No measure: on a machine that is busy with other things fewer rounds have to do."""


@dataclass(slots=True)
class Ledger:
    """What the parent knows: every event that was acknowledged, under its id."""

    acknowledged: dict[int, str] = field(default_factory=dict)
    opened: int = 0

    def hear(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        match verb:
            case "ack":
                number, _, event = rest.partition(" ")
                assert self.acknowledged.setdefault(int(number), event) == event, (
                    "an id given twice"
                )
            case "opened":
                self.opened += 1
                assert int(rest) >= max(self.acknowledged, default=-1) + 1, "events were lost"
            case _:
                assert verb in ("started", "closed"), line

    async def check(self, path: Path) -> int:
        """The sum holds, and the events tell how each balance came about; how many there are."""
        async with open_platform(path, limits=transfers.LIMITS) as platform:
            canonical = platform.canonical
            async with canonical.read_txn() as txn:
                found = {key: decode(value).as_i64() async for key, value in txn.range()}
                events = [event async for event in await txn.iter_events()]
            assert (await canonical.meta()).next_event_id == len(events)
        assert [number for number, _ in events] == list(range(len(events)))
        for number, known in self.acknowledged.items():
            assert events[number][1].decode() == known, number
        if not found:
            assert not events, "events without the accounts they are about"
            return 0
        balances = dict.fromkeys(transfers.ACCOUNTS, transfers.BALANCE)
        for _, event in events:
            source, target, amount, _ = json.loads(event.partition(b":")[2])
            balances[source.encode()] -= amount
            balances[target.encode()] += amount
        assert found == balances
        assert sum(found.values()) == len(found) * transfers.BALANCE
        return len(events)


@pytest.mark.slow
async def test_x1_state_and_events_survive_kills_together(tmp_path: Path) -> None:
    path = tmp_path / "file"
    ledger, dice, traceable = Ledger(), random.Random("transfers"), can_trace()
    command = [sys.executable, "-m", "tests.torture.transfers", str(path)]
    kills = events = 0
    deadline = trio.current_time() + SECONDS_MAX
    for _ in range(ROUNDS):
        death: Death = some_death(dice, traceable=traceable, unborn=not path.exists())
        ended = await live(command, ledger.hear, death)
        kills += ended.killed
        if path.exists():
            events = await ledger.check(path)
            report = await trio.to_thread.run_sync(partial(verify, path, faces=(CanonicalCheck,)))
            assert not report.findings, report
        if trio.current_time() > deadline:
            break
    assert kills >= 5
    assert ledger.opened >= 5
    assert events >= len(ledger.acknowledged) > 50


@pytest.mark.slow
async def test_x3_a_torn_tail_costs_one_transaction_whole_and_the_next_is_readable(
    tmp_path: Path,
) -> None:
    """Cut anywhere in its last transaction: the file opens, holds the two before, and goes on."""
    path = tmp_path / "file"
    ends: list[int] = []
    wal = trio.Path(f"{path}.wal")
    async with open_platform(path) as platform:
        for number in range(3):
            batch = platform.canonical.batch()
            batch.put(b"last", b"%d" % number)
            batch.append_event(b"event %d" % number)
            await batch.commit()
            ends.append((await wal.stat()).st_size)
        file, log = await trio.Path(path).read_bytes(), await wal.read_bytes()
    assert len(log) == ends[-1]
    for size in (ends[-2] + 1, (ends[-2] + ends[-1]) // 2, ends[-1] - 1):
        torn = tmp_path / f"cut at {size}"
        await trio.Path(torn).write_bytes(file)
        await trio.Path(f"{torn}.wal").write_bytes(log[:size])
        async with open_platform(torn) as platform:
            canonical = platform.canonical
            async with canonical.read_txn() as txn:
                assert await txn.get_state(b"last") == b"1"
                assert await txn.next_event_id() == 2
            batch = canonical.batch()
            batch.append_event(b"goes on")
            assert (await batch.commit()).first_event_id == 2
            found = [event async for _, event in await canonical.iter_events()]
            assert found == [b"event 0", b"event 1", b"goes on"]
        report = await trio.to_thread.run_sync(partial(verify, torn, faces=(CanonicalCheck,)))
        assert not report.findings, report


async def test_the_ledger_notices_what_it_is_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    ledger = Ledger()
    with pytest.raises(AssertionError, match="an id given twice"):
        for event in ("a", "b"):
            ledger.hear(f"ack 0 {event}")
    with pytest.raises(AssertionError, match="events were lost"):
        ledger.hear("opened 0")
    with pytest.raises((IndexError, AssertionError)):
        await ledger.check(path)
