"""Concurrent lives of the canonical store: no update is lost, and nothing is left behind.

Named AC-2, AC-3 and AC-6 are acceptance cases of those sections.
"""

from __future__ import annotations

import json
from functools import partial

import pytest
import trio

from exo_stream import Platform
from exo_stream.canonical.changes import Changes
from exo_stream.canonical.contexts import TransactionContext
from exo_stream.canonical.store import CanonicalStore
from exo_stream.canonical.transactions import WriteTxn
from exo_stream.canonical.values import I64, decode, encode
from exo_stream.errors import (
    ExoStreamError,
    PausedError,
    PlatformClosedError,
    PreflightFailedError,
    TransactionConflictError,
)
from exo_stream.limits import Limits
from tests.test_cancellation import CancelAt, sweep
from tests.worlds import FaultyEngine, in_memory


async def increment(canonical: CanonicalStore, key: bytes, by: int = 1) -> None:
    async with canonical.write_txn() as txn:
        value = int(await txn.get_state(key) or b"0")
        await trio.lowlevel.checkpoint()
        txn.put_state(key, b"%d" % (value + by))
        await txn.commit()


async def transfer(canonical: CanonicalStore, source: bytes, target: bytes, amount: int) -> None:
    async def body(ctx: TransactionContext) -> None:
        for key, change in ((source, -amount), (target, amount)):
            balance = await ctx.get(key)
            await trio.lowlevel.checkpoint()
            ctx.set(key, I64(balance.as_i64() + change))
        ctx.log("transfer", [source.decode(), target.decode(), amount])

    transaction = canonical.transaction().require_min(source, amount).require_exists(target)
    await transaction.execute(body)


async def open_accounts(canonical: CanonicalStore, balance: int, names: list[bytes]) -> None:
    async def body(ctx: TransactionContext) -> None:
        for name in names:
            ctx.set(name, I64(balance))
        await trio.lowlevel.checkpoint()

    await canonical.transaction().keys(names).execute(body)


async def balances(canonical: CanonicalStore) -> dict[bytes, int]:
    found: dict[bytes, int] = {}

    async def body(ctx: TransactionContext) -> None:
        async for key in (await ctx.iter_state()).keys_only():
            found[key] = 0

    await canonical.transaction().execute(body)

    async def read(ctx: TransactionContext) -> None:
        for key in found:
            found[key] = (await ctx.get(key)).as_i64()

    await canonical.transaction().keys(found).execute(read)
    return found


async def ledger(canonical: CanonicalStore, names: list[bytes]) -> dict[bytes, int]:
    """What the events say the balances are, each of 100 at first."""
    found = dict.fromkeys(names, 100)
    async for _, event in await canonical.iter_events():
        source, target, amount = json.loads(event.partition(b":")[2])
        found[source.encode()] -= amount
        found[target.encode()] += amount
    return found


async def open_transfer(
    canonical: CanonicalStore, source: bytes, target: bytes, amount: int
) -> None:
    """A transfer in the write transaction, which looks at every account."""
    async with canonical.write_txn() as txn:
        found = {}
        async for key, value in await txn.iter_state():
            found[key] = decode(value).as_i64()
        for key, change in ((source, -amount), (target, amount)):
            txn.put_state(key, encode(I64(found[key] + change)))
        names = f'"{source.decode()}","{target.decode()}"'
        await txn.append_event(f"transfer:[{names},{amount}]".encode())
        await txn.commit()


async def test_ac2_twenty_workers_lose_no_update_of_one_key() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical

        async def work() -> None:
            for _ in range(50):
                await increment(canonical, b"n")

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(work)
        async with canonical.read_txn() as txn:
            assert await txn.get_state(b"n") == b"1000"


async def test_ac2_transfers_in_opposite_directions_keep_the_sum() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await open_accounts(canonical, 1_000, [b"a", b"b"])

        async def work(source: bytes, target: bytes) -> None:
            for _ in range(100):
                await transfer(canonical, source, target, 10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, b"a", b"b")
            nursery.start_soon(work, b"b", b"a")
        assert await balances(canonical) == {b"a": 1_000, b"b": 1_000}
        assert (await canonical.meta()).next_event_id == 200


@pytest.mark.slow
async def test_ac2_random_transfers_over_ten_accounts_keep_the_sum_and_match_the_events() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        names = [b"account/%d" % n for n in range(10)]
        await open_accounts(canonical, 100, names)
        poor = 0

        async def work(worker: int) -> None:
            nonlocal poor
            for turn in range(25):
                source, target = (
                    names[(worker + turn) % 10],
                    names[(worker * 7 + turn * 3 + 1) % 10],
                )
                if source != target:
                    try:
                        await transfer(canonical, source, target, 1 + (worker * turn) % 60)
                    except PreflightFailedError:
                        poor += 1

        async with trio.open_nursery() as nursery:
            for worker in range(20):
                nursery.start_soon(work, worker)
        found = await balances(canonical)
        assert sum(found.values()) == 1_000
        assert min(found.values()) >= 0
        assert poor > 0
        assert found == await ledger(canonical, names)


async def test_ac2_a_hundred_workers_on_a_hundred_keys_all_succeed() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical

        async def work(number: int) -> None:
            async def body(ctx: TransactionContext) -> None:
                ctx.set(b"%d" % number, I64(number))
                await trio.lowlevel.checkpoint()

            await canonical.transaction().keys([b"%d" % number]).execute(body)

        async with trio.open_nursery() as workers:
            for number in range(100):
                workers.start_soon(work, number)
        assert len(await balances(canonical)) == 100
        nursery.cancel_scope.cancel()


async def test_ac2_fifty_workers_who_look_first_spend_what_there_is_and_no_more() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await open_accounts(canonical, 30, [b"k"])
        refused = 0

        async def work() -> None:
            nonlocal refused

            async def spend(ctx: TransactionContext) -> None:
                ctx.set(b"k", I64((await ctx.get(b"k")).as_i64() - 1))

            try:
                await canonical.transaction().require_min(b"k", 1).execute(spend)
            except PreflightFailedError:
                refused += 1

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(work)
        assert await balances(canonical) == {b"k": 0}
        assert refused == 20


@pytest.mark.slow
async def test_ac2_ten_thousand_transactions_of_one_event_give_ten_thousand_ids() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical

        async def work() -> None:
            for _ in range(200):
                await canonical.submit(Changes(events=[b"e"]))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(work)
        assert (await canonical.meta()).next_event_id == 10_000
        ids = [number async for number, _ in await canonical.iter_events()]
        assert ids == list(range(10_000))


async def test_ac2_nobody_is_passed_over() -> None:
    async with in_memory()() as platform:
        done = [0] * 10

        async def work(number: int) -> None:
            while sum(done) < 100:
                await increment(platform.canonical, b"k")
                done[number] += 1

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(work, number)
        assert min(done) >= 5, done


async def test_ac6_what_is_read_after_a_write_is_never_stale() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        async with canonical.read_txn() as txn:
            assert await txn.get_state(b"k") is None, "absent, and remembered by nobody"
        for number in range(50):
            if number % 2:
                await canonical.submit(Changes([(b"k", b"%d" % number)]))
            else:
                await canonical.submit_write(partial(fill, number))
            for look in range(3):
                async with canonical.read_txn() as txn:
                    assert await txn.get_state(b"k") == b"%d" % number, look
        await canonical.submit(Changes([(b"k", None)]))
        async with canonical.read_txn() as txn:
            assert not await txn.exists(b"k")


async def fill(number: int, txn: WriteTxn) -> None:
    await trio.lowlevel.checkpoint()
    txn.put_state(b"k", b"%d" % number)


async def test_ac3_readers_and_writers_do_not_wait_for_one_another() -> None:
    """Every snapshot shows a sum that holds, and each writer comes through."""
    async with in_memory()() as platform:
        canonical = platform.canonical
        await canonical.submit(Changes([(b"a", b"500"), (b"b", b"500")]))
        reads = writes = 0

        async def read() -> None:
            nonlocal reads
            for _ in range(50):
                async with canonical.read_txn() as txn:
                    a = int(await txn.get_state(b"a") or b"0")
                    await trio.lowlevel.checkpoint()
                    b = int(await txn.get_state(b"b") or b"0")
                    assert a + b == 1_000
                    reads += 1

        async def write(amount: int) -> None:
            nonlocal writes
            for _ in range(50):
                async with canonical.write_txn() as txn:
                    for key, change in ((b"a", -amount), (b"b", amount)):
                        value = int(await txn.get_state(key) or b"0")
                        txn.put_state(key, b"%d" % (value + change))
                    async with canonical.read_txn() as beside:
                        assert await beside.exists(b"a")
                    await txn.commit()
                writes += 1

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(read)
                if number < 3:
                    nursery.start_soon(write, number - 1)
        assert (reads, writes) == (500, 150)


@pytest.mark.slow
def test_a_transaction_cancelled_at_any_step_happened_whole_or_not_at_all() -> None:
    """Open ones and preflighted ones, beside others; nothing is left behind at any step."""

    async def live_once(cancel: CancelAt) -> None:
        limits = Limits(waiting_writes_max=2, group_batches_max=3, page_rows_max=2)
        async with in_memory()(limits=limits) as platform:
            canonical = platform.canonical
            names = [b"a", b"b", b"c"]
            await open_accounts(canonical, 100, names)

            async def victim() -> None:
                with cancel.scope:
                    cancel.armed = True
                    await transfer(canonical, b"a", b"b", 5)
                    await open_transfer(canonical, b"b", b"c", 7)
                    await canonical.pause_ingestion()
                    canonical.resume_ingestion()
                    async with canonical.read_txn() as txn:
                        assert len([e async for e in await txn.iter_events()]) >= 2
                cancel.armed = False

            async def other() -> None:
                for turn in range(3):
                    while True:
                        try:
                            await transfer(canonical, b"c", b"a", 1 + turn)
                            break
                        except (TransactionConflictError, PausedError):
                            await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(victim)
                nursery.start_soon(other)
            await check_nothing_is_left(platform)
            found = await balances(canonical)
            assert sum(found.values()) == 300
            assert found == await ledger(canonical, names)

    assert sweep(live_once) > 30


async def check_nothing_is_left(platform: Platform) -> None:
    canonical = platform.canonical
    assert canonical._writers.slot.holder == ""
    assert canonical._writers.slot.waiting == 0
    assert not canonical._writers._alone
    assert canonical.lock_manager().held == 0
    assert canonical._pause.writing == platform._ground.pause.writing == 0
    assert not canonical.is_paused()
    assert not platform.sources.snapshots._leased
    await canonical.submit(Changes())


@pytest.mark.slow
def test_a_platform_cancelled_at_any_step_answers_its_transactions_and_keeps_the_sum() -> None:
    async def live_once(cancel: CancelAt) -> None:
        engine = FaultyEngine()
        acknowledged = 0

        async def work(platform: Platform, source: bytes, target: bytes) -> None:
            nonlocal acknowledged
            for _ in range(3):
                try:
                    await transfer(platform.canonical, source, target, 1)
                except (PlatformClosedError, ExoStreamError):
                    return
                acknowledged += 1

        async with in_memory(engine)() as platform:
            await open_accounts(platform.canonical, 100, [b"a", b"b", b"c"])
        async with trio.open_nursery() as outside:
            with cancel.scope:
                async with in_memory(engine)() as platform:
                    cancel.armed = True
                    outside.start_soon(work, platform, b"a", b"b")  # noqa: ASYNC111  they outlive the platform
                    outside.start_soon(work, platform, b"c", b"b")  # noqa: ASYNC111  they outlive the platform
                    await trio.sleep(5)
        cancel.armed = False
        engine.forget_what_is_not_visible()
        async with in_memory(engine)() as platform:
            found = await balances(platform.canonical)
            assert sum(found.values()) == 300
            events = (await platform.canonical.meta()).next_event_id
            assert events >= acknowledged
            assert found[b"b"] == 100 + events

    assert sweep(live_once) > 15
