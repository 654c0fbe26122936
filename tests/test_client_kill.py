"""A server that is killed under its clients' transactions: each was told what became of it.

One client keeps trying and must always be told the outcome; the other gives up at once, and what
it is told then must be true as well: unknown may be either, everything else is certain.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from exo_stream import open_platform
from exo_stream.canonical.changes import CommitInfo
from exo_stream.canonical.contexts import TransactionContext
from exo_stream.canonical.values import I64, decode, encode
from exo_stream.canonical.verify import CanonicalCheck
from exo_stream.client import Client, connect
from exo_stream.client.patience import Patience
from exo_stream.client.write_txn import RemoteWriteTxn
from exo_stream.errors import (
    ExoStreamError,
    OutcomeUnknownError,
    PreflightFailedError,
    TransactionConflictError,
    UnavailableError,
)
from exo_stream.storage.verify import verify
from tests.torture.life import AtSyscall, Death, can_trace, live
from tests.torture.outages import free_port
from tests.torture.transfers import ACCOUNTS, BALANCE, LIMITS, event_of

KILLS = 4
SECONDS_MAX = 30
"""No measure: on a machine that is busy with other things fewer lives have to do."""
GUARD_SECONDS = 300
PATIENT = Patience(attempts_max=1_000, pause_seconds_min=0.01, pause_seconds_max=0.05)
IMPATIENT = Patience(attempts_max=1)


@dataclass(slots=True)
class Bank:
    """The file, its server, and what every transfer's client was told, by the transfer's mark."""

    path: Path
    dice: random.Random
    port: int = field(default_factory=free_port)
    told: dict[str, CommitInfo | ExoStreamError] = field(default_factory=dict)
    done: int = 0
    progress: trio.Event = field(default_factory=trio.Event)
    serving: trio.Event = field(default_factory=trio.Event)
    is_over: bool = False

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/ws"

    def hear(self, line: str) -> None:
        if line.startswith("serving"):
            self.serving.set()

    def tell(self, mark: str, outcome: CommitInfo | ExoStreamError) -> None:
        self.told[mark] = outcome
        if isinstance(outcome, CommitInfo):
            self.done += 1
            self.progress.set()
            self.progress = trio.Event()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve and be killed, up to ``KILLS`` times, then until cancelled."""
        is_started = False
        traceable, deadline = can_trace(), trio.current_time() + SECONDS_MAX
        for life in range(KILLS):
            if life >= 2 and trio.current_time() > deadline:
                break
            self.serving = trio.Event()
            death: Death | None = None
            if traceable and not life % 2:
                # What it was about to make durable is in the file, and nobody has been told.
                death = AtSyscall("fdatasync", self.dice.randint(20, 60))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._live, death, nursery.cancel_scope)
                await self.serving.wait()
                if not is_started:
                    task_status.started()
                    is_started = True
                if death is None:
                    await self._wait_done(self.dice.randint(5, 40))
                    nursery.cancel_scope.cancel()
            await self.check()
        self.is_over = True
        self.serving = trio.Event()
        await live(self._command(), self.hear, None)

    async def _live(self, death: Death | None, ended: trio.CancelScope) -> None:
        assert (await live(self._command(), self.hear, death)).killed
        ended.cancel()

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "tests.torture.bank", str(self.path), str(self.port)]

    async def _wait_done(self, more: int) -> None:
        wanted = self.done + more
        while self.done < wanted:
            await self.progress.wait()

    async def check(self) -> None:
        """The sum holds, the events tell how each balance came about, and nobody was misled."""
        async with open_platform(self.path, limits=LIMITS) as platform:
            canonical = platform.canonical
            async with canonical.read_txn() as txn:
                found = {key: decode(value).as_i64() async for key, value in txn.range()}
                events = [event async for _, event in await txn.iter_events()]
        balances = dict.fromkeys(ACCOUNTS, BALANCE)
        marks: Counter[str] = Counter()
        for event in events:
            source, target, amount, mark = json.loads(event.partition(b":")[2])
            balances[source.encode()] -= amount
            balances[target.encode()] += amount
            marks[mark] += 1
        assert found == balances
        assert sum(found.values()) == len(ACCOUNTS) * BALANCE
        assert set(marks.values()) <= {1}, "a transfer that was sent twice took effect twice"
        for mark, outcome in self.told.items():
            match outcome:
                case CommitInfo(first_event_id=int(event_id)):
                    assert json.loads(events[event_id].partition(b":")[2])[3] == mark
                case OutcomeUnknownError():
                    pass
                case _:
                    assert mark not in marks, (mark, outcome)


async def preflighted(client: Client, source: bytes, target: bytes, amount: int, mark: str) -> Any:
    async def body(ctx: TransactionContext) -> None:
        for key, change in ((source, -amount), (target, amount)):
            ctx.set(key, I64((await ctx.get(key)).as_i64() + change))
        ctx.log_bytes(event_of(source, target, amount, mark))

    transaction = client.canonical.transaction().require_min(source, amount).require_exists(target)
    return await transaction.execute(body)


async def optimistic(client: Client, source: bytes, target: bytes, amount: int, mark: str) -> Any:
    async def body(txn: RemoteWriteTxn) -> None:
        for key, change in ((source, -amount), (target, amount)):
            found = await txn.get_state(key)
            assert found is not None
            txn.put_state(key, encode(I64(decode(found).as_i64() + change)))
        txn.log_bytes(event_of(source, target, amount, mark))

    return await client.canonical.transact(body)


async def work(bank: Bank, client: Client, name: str) -> None:
    turn = 0
    while not bank.is_over:
        turn += 1
        mark = f"{name}/{turn}"
        source, target = bank.dice.sample(ACCOUNTS, 2)
        transfer = preflighted if turn % 2 else optimistic
        try:
            info = await transfer(client, source, target, bank.dice.randint(1, 20), mark)
        except ExoStreamError as error:
            bank.tell(mark, error)
            await trio.sleep(0.01)
        else:
            bank.tell(mark, info)


async def open_accounts(client: Client) -> None:
    async def fill(ctx: TransactionContext) -> None:
        await trio.lowlevel.checkpoint()
        for key in ACCOUNTS:
            ctx.set(key, I64(BALANCE))

    await client.canonical.transaction().keys(ACCOUNTS).execute(fill)


@pytest.mark.slow
async def test_transfers_from_afar_survive_kills_and_each_is_told_the_truth(
    tmp_path: Path,
) -> None:
    bank = Bank(tmp_path / "bank.duckdb", random.Random("bank"))
    with trio.fail_after(GUARD_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(bank.serve)
            async with (
                connect(bank.url, patience=PATIENT) as patient,
                connect(bank.url, patience=IMPATIENT) as impatient,
            ):
                await open_accounts(patient)
                async with trio.open_nursery() as workers:
                    for number in range(4):
                        workers.start_soon(work, bank, patient, f"patient/{number}")
                        workers.start_soon(work, bank, impatient, f"impatient/{number}")
            nursery.cancel_scope.cancel()
    await bank.check()
    report = await trio.to_thread.run_sync(partial(verify, bank.path, faces=(CanonicalCheck,)))
    assert not report.findings, report
    judge(bank.told)


def judge(told: dict[str, CommitInfo | ExoStreamError]) -> None:
    """Who keeps trying knows every outcome; who does not is told so."""
    kinds = Counter((mark.partition("/")[0], type(outcome)) for mark, outcome in told.items())
    certain = {CommitInfo, PreflightFailedError, TransactionConflictError}
    assert {kind for name, kind in kinds if name == "patient"} <= certain, kinds
    assert kinds["patient", CommitInfo] >= 10, kinds
    assert {kind for _, kind in kinds} <= {*certain, OutcomeUnknownError, UnavailableError}, kinds
