"""The child of the projection kill test: transfers between accounts, projected to balances.

``python -m tests.torture.projector PATH`` runs until it is killed, or for ``TURNS`` turns. Two
projections run beside each other: ``balances`` is what the state should be, and rebuilds itself
now and then; ``journal`` puts every event aside whose id ``BAD`` divides.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import trio

from exo_stream.canonical.changes import Changes
from exo_stream.canonical.projection import Projector
from exo_stream.canonical.projection_rules import DeadLetterQueue, Event, ProjectorConfig
from exo_stream.canonical.projection_txn import ProjectionTxn
from exo_stream.canonical.store import CanonicalStore
from exo_stream.opening import open_platform
from tests.torture.child import say

ACCOUNTS: Final = 6
BALANCE: Final = 1_000
TURNS: Final = 24
BAD: Final = 7
NAMES: Final = ("balances", "journal")
TABLES: Final = {
    "balances": (
        "CREATE TABLE balances (account INTEGER, amount BIGINT)",
        f"INSERT INTO balances SELECT range, {BALANCE} FROM range({ACCOUNTS})",
    ),
    "journal": (
        "CREATE TABLE seen (event_id UBIGINT, amount BIGINT)",
        "CREATE TABLE total (amount BIGINT)",
        "INSERT INTO total VALUES (0)",
    ),
}
CONFIG: Final = ProjectorConfig(batch_events_max=5, error_strategy=DeadLetterQueue())


def event_of(source: int, target: int, amount: int) -> bytes:
    return b"%d %d %d" % (source, target, amount)


def balances_after(events: Iterable[bytes]) -> list[int]:
    """What every account has after these transfers."""
    amounts = [BALANCE] * ACCOUNTS
    for event in events:
        source, target, amount = map(int, event.split())
        amounts[source] -= amount
        amounts[target] += amount
    return amounts


async def project_balances(txn: ProjectionTxn, events: Sequence[Event]) -> None:
    """One account after the other, so that half a transfer is there for a while."""
    for _, event in events:
        source, target, amount = map(int, event.split())
        for account, change in ((source, -amount), (target, amount)):
            await txn.execute(
                "UPDATE balances SET amount = amount + ? WHERE account = ?", [change, account]
            )


async def project_journal(txn: ProjectionTxn, events: Sequence[Event]) -> None:
    """Each event once in each of two tables; a bad one fails between the two."""
    for number, event in events:
        amount = int(event.split()[2])
        await txn.execute("INSERT INTO seen VALUES (?, ?)", [number, amount])
        if number % BAD == 0:
            raise ValueError(number)
        await txn.execute("UPDATE total SET amount = amount + ?", [amount])


async def transfer(canonical: CanonicalStore, turn: int) -> int:
    """Some transfers in one transaction, state and events; the id of the last event."""
    keys = [b"account/%d" % account for account in range(ACCOUNTS)]
    async with canonical.read_txn() as txn:
        found = [await txn.get_state(key) for key in keys]
    amounts = [BALANCE if value is None else int(value) for value in found]
    events = []
    for number in range(1 + turn % 4):
        source, amount = (turn + number) % ACCOUNTS, 1 + (turn * 7 + number) % 90
        target = (source + 1 + turn % (ACCOUNTS - 1)) % ACCOUNTS
        amounts[source] -= amount
        amounts[target] += amount
        events.append(event_of(source, target, amount))
    puts = [(key, b"%d" % amount) for key, amount in zip(keys, amounts, strict=True)]
    info = await canonical.submit(Changes(puts, events))
    assert info.last_event_id is not None
    return info.last_event_id


def tell(projectors: Sequence[Projector]) -> None:
    for projector in projectors:
        if projector.cursor is not None:  # as it is, too, before the file has been opened
            say("applied", projector.name, projector.cursor)


async def main(path: str) -> None:
    say("started", os.getpid())
    async with (
        open_platform(path) as platform,
        platform.canonical.projections(f"{path}.projections") as projections,
    ):
        canonical = platform.canonical
        balances = await projections.add(
            "balances", project_balances, tables=TABLES["balances"], config=CONFIG
        )
        journal = await projections.add(
            "journal", project_journal, tables=TABLES["journal"], config=CONFIG
        )
        say("opened", (await canonical.meta()).next_event_id)
        for turn in range(TURNS):
            last = await transfer(canonical, turn)
            if turn % 3 == 0:
                await (balances, journal)[turn % 2].wait_applied(last)
            tell((balances, journal))
            if turn % 6 == 4:
                await balances.rebuild()
                say("rebuilt", balances.cursor)
    say("closed")


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
