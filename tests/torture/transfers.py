"""The child of the canonical kill test: transfers between accounts, told as they are acknowledged.

``python -m tests.torture.transfers PATH`` runs until it is killed, or for ``TURNS`` turns.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Final

import trio

from exo_stream.canonical.contexts import TransactionContext
from exo_stream.canonical.store import CanonicalStore
from exo_stream.canonical.values import I64, decode, encode
from exo_stream.errors import PreflightFailedError, TransactionConflictError
from exo_stream.limits import Limits
from exo_stream.opening import open_platform
from tests.torture.child import say

ACCOUNTS: Final = [b"account/%d" % number for number in range(12)]
BALANCE: Final = 1_000
WORKERS: Final = 8
TURNS: Final = 400
LIMITS: Final = Limits(memtable_entries_max=300, page_rows_max=100, checkpoint_wal_bytes=200_000)
"""So that folds, merges and CHECKPOINTs are under way at every other death."""


def event_of(source: bytes, target: bytes, amount: int, mark: str) -> bytes:
    return b"transfer:" + json.dumps([source.decode(), target.decode(), amount, mark]).encode()


async def preflighted(
    canonical: CanonicalStore, source: bytes, target: bytes, amount: int, mark: str
) -> None:
    """One transfer with declared keys, its event in the same transaction."""

    async def body(ctx: TransactionContext) -> None:
        for key, change in ((source, -amount), (target, amount)):
            ctx.set(key, I64((await ctx.get(key)).as_i64() + change))
        ctx.log_bytes(event_of(source, target, amount, mark))

    transaction = canonical.transaction().require_min(source, amount).require_exists(target)
    info = await transaction.execute(body)
    say("ack", info.first_event_id, event_of(source, target, amount, mark).decode())


async def in_the_slot(
    canonical: CanonicalStore, source: bytes, target: bytes, amount: int, mark: str
) -> None:
    """One transfer in the write transaction, over what is not durable yet."""
    async with canonical.write_txn() as txn:
        for key, change in ((source, -amount), (target, amount)):
            found = await txn.get_state(key)
            assert found is not None
            txn.put_state(key, encode(I64(decode(found).as_i64() + change)))
        event_id = await txn.append_event(event_of(source, target, amount, mark))
        info = await txn.commit()
    assert info.first_event_id == event_id
    say("ack", event_id, event_of(source, target, amount, mark).decode())


async def work(canonical: CanonicalStore, worker: int, started: int) -> None:
    transfer = preflighted if worker % 2 else in_the_slot
    for turn in range(TURNS):
        step = worker + turn * (2 * worker + 1)
        source, target = ACCOUNTS[step % 12], ACCOUNTS[(step * 5 + 1) % 12]
        if source == target:
            continue
        try:
            await transfer(canonical, source, target, 1 + step % 90, f"{started}/{worker}/{turn}")
        except (PreflightFailedError, TransactionConflictError):
            await trio.lowlevel.checkpoint()


async def main(path: str) -> None:
    say("started", os.getpid())
    async with open_platform(path, limits=LIMITS) as platform:
        canonical = platform.canonical

        async def open_accounts(ctx: TransactionContext) -> None:
            for key in ACCOUNTS:
                if not await ctx.exists(key):
                    ctx.set(key, I64(BALANCE))

        await canonical.transaction().keys(ACCOUNTS).execute(open_accounts)
        started = (await canonical.meta()).next_event_id
        say("opened", started)
        async with trio.open_nursery() as nursery:
            for worker in range(WORKERS):
                nursery.start_soon(work, canonical, worker, started)
    say("closed")


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
