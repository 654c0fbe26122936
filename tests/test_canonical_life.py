"""Concurrent lives of the canonical store: whatever comes together, one order explains it all.

Named AC-2, AC-3 and AC-6 are acceptance cases of those sections. The histories are judged by
the log: taken in the order of their sequences, every transaction has read what those before it
wrote, and those that one waited for come before it (strict serialisability).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from exo_stream import Platform
from exo_stream.canonical.changes import Changes, CommitInfo
from exo_stream.canonical.store import CanonicalStore
from exo_stream.canonical.transaction import TransactionContext
from exo_stream.canonical.transactions import WriteTxn
from exo_stream.canonical.values import I64
from exo_stream.errors import (
    ExoStreamError,
    PlatformClosedError,
    PreflightFailedError,
    StoreError,
    TransactionConflictError,
)
from exo_stream.limits import Limits
from exo_stream.model import Keyspace
from exo_stream.payload import EncodedBatch
from exo_stream.testing import FaultyHop
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
        ledger = dict.fromkeys(names, 100)
        async for _, event in await canonical.iter_events():
            source, target, amount = json.loads(event.partition(b":")[2])
            ledger[source.encode()] -= amount
            ledger[target.encode()] += amount
        assert ledger == found


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


# Histories.

Kind = Literal["open", "preflight", "batch"]
KEYS = [b"x", b"y", b"z"]


@dataclass(slots=True)
class Plan:
    """What one transaction of a history is going to do."""

    kind: Kind
    reads: list[int]
    writes: list[tuple[int, bool]]
    events: int
    whole: bool
    abort: bool
    pauses: int


@dataclass(slots=True)
class Done:
    """What is known of one transaction when its history is over."""

    name: str
    plan: Plan
    read: dict[bytes, bytes | None] = field(default_factory=dict)
    whole: dict[bytes, bytes] | None = None
    wrote: dict[bytes, bytes | None] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)
    info: CommitInfo | None = None
    not_before: int = 0
    """The frontier when it began: whatever it does comes after."""


PLANS = st.lists(
    st.builds(
        Plan,
        kind=st.sampled_from(["open", "open", "preflight", "batch"]),
        reads=st.lists(st.integers(0, 2), max_size=3),
        writes=st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=3),
        events=st.integers(0, 3),
        whole=st.sampled_from([False, False, False, True]),
        abort=st.sampled_from([False, False, False, True]),
        pauses=st.integers(0, 2),
    ),
    min_size=1,
    max_size=5,
)
HISTORIES = st.lists(PLANS, min_size=1, max_size=6)


class Abort(Exception):  # noqa: N818  # what a body may raise
    """The transaction changed its mind."""


async def carry_out(canonical: CanonicalStore, done: Done) -> None:
    plan = done.plan
    writes = {
        KEYS[key]: None if deletes else f"{done.name}/{number}".encode()
        for number, (key, deletes) in enumerate(plan.writes)
    }
    events = [f"{done.name}/{number}".encode() for number in range(plan.events)]
    done.wrote = dict(writes)
    if plan.kind == "batch":
        batch = canonical.batch()
        for key, value in writes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        for event in events:
            batch.append_event(event)
        done.info = await batch.commit()
    elif plan.kind == "open":
        await carry_out_open(canonical, done, events)
    else:
        await carry_out_preflighted(canonical, done, events)


async def carry_out_open(canonical: CanonicalStore, done: Done, events: list[bytes]) -> None:
    plan = done.plan
    async with canonical.write_txn() as txn:
        if plan.whole:
            done.whole = {key: value async for key, value in await txn.iter_state()}
        for key in plan.reads:
            done.read[KEYS[key]] = await txn.get_state(KEYS[key])
            await trio.sleep(plan.pauses / 100)
        for number, (name, value) in enumerate(done.wrote.items()):
            if value is None:
                txn.del_state(name)
            else:
                txn.put_state(name, value)
            if number < len(events):
                done.ids.append(await txn.append_event(events[number]))
        rest = events[len(done.ids) :]
        if rest:
            first, last = await txn.append_events(rest)
            done.ids += range(first, last + 1)
        if plan.abort:
            raise Abort
        done.info = await txn.commit()


async def carry_out_preflighted(canonical: CanonicalStore, done: Done, events: list[bytes]) -> None:
    plan = done.plan

    async def body(ctx: TransactionContext) -> None:
        if plan.whole:
            done.whole = {key: value async for key, value in await ctx.iter_state()}
        for key in plan.reads:
            # Bytes, not typed values: the histories share their keys with open transactions.
            done.read[KEYS[key]] = await ctx._read(KEYS[key])
            await trio.sleep(plan.pauses / 100)
        for name, value in done.wrote.items():
            ctx._write(name, value)
        for event in events:
            ctx.log_bytes(event)
        if plan.abort:
            raise Abort

    done.info = await canonical.transaction().keys(KEYS).execute(body)


@dataclass(slots=True)
class Faults:
    """What goes wrong in a history: groups that are refused, and workers that give up."""

    refused: int
    patience: list[float]


FAULTS = st.builds(
    Faults,
    refused=st.integers(0, 3),
    patience=st.lists(st.sampled_from([0.004, 0.01, 0.02, 9, 9, 9]), min_size=6, max_size=6),
)


async def live(histories: list[list[Plan]], faults: Faults) -> None:
    engine = FaultyEngine()
    hop = FaultyHop(latency=0.005)
    limits = Limits(group_batches_max=3, page_rows_max=2)
    everything: list[Done] = []
    async with in_memory(engine)(hop=hop, limits=limits) as platform:
        canonical = platform.canonical

        async def work(number: int, plans: list[Plan]) -> None:
            with trio.move_on_after(faults.patience[number]):
                for turn, plan in enumerate(plans):
                    done = Done(f"{number}/{turn}", plan)
                    done.not_before = platform.cursor.sequence
                    everything.append(done)
                    try:
                        await carry_out(canonical, done)
                    except (TransactionConflictError, StoreError, Abort):
                        done.info = None

        async with trio.open_nursery() as nursery:
            for number, plans in enumerate(histories):
                nursery.start_soon(work, number, plans)
            await trio.sleep(0.003)
            hop.failures = faults.refused
        await platform._ground.settle()
        assert canonical._writers.slot.holder == ""
        assert canonical.lock_manager().held == 0
        assert canonical._pause.writing == platform._ground.pause.writing == 0
        assert not platform.sources.snapshots._leased
        batches = platform.sources.tail.since(0, batches_max=10_000, bytes_max=1 << 30) or []
        judge(batches, everything)
        async with canonical.read_txn() as txn:
            shown = {key: value async for key, value in txn.range()}
            assert [e async for e in await txn.iter_events()] == events_of(batches)
        assert shown == replay(batches)


def events_of(batches: list[EncodedBatch]) -> list[tuple[int, bytes]]:
    return [
        (int.from_bytes(key, "big"), value or b"")
        for batch in batches
        for keyspace, key, value in batch.entries
        if keyspace == Keyspace.EVENT
    ]


def replay(batches: list[EncodedBatch]) -> dict[bytes, bytes]:
    table: dict[bytes, bytes] = {}
    for batch in batches:
        apply(batch, table)
    return table


def apply(batch: EncodedBatch, table: dict[bytes, bytes]) -> None:
    for keyspace, key, value in batch.entries:
        if keyspace == Keyspace.STATE:
            table.pop(key, None)
            if value is not None:
                table[key] = value


def judge(batches: list[EncodedBatch], everything: list[Done]) -> None:
    """One order explains everything: that of the sequences."""
    numbers = [number for number, _ in events_of(batches)]
    assert numbers == list(range(len(numbers))), "contiguous, in the order of the log"
    by_name = {done.name: done for done in everything}
    by_sequence: dict[int, list[Done]] = {}
    for done in everything:
        if done.info is not None:
            assert done.info.sequence >= done.not_before, "it waited for those before it"
            by_sequence.setdefault(done.info.sequence, []).append(done)
    table: dict[bytes, bytes] = {}
    for batch in [None, *batches]:
        before = dict(table)
        if batch is not None:
            judge_batch(batch, before, by_name)
            apply(batch, table)
        for done in by_sequence.get(0 if batch is None else batch.sequence, []):
            assert done.info is not None
            wrote = any(counts(done.info))
            judge_reads(done, before if wrote else table)
            if wrote:
                assert batch is not None
                assert names_of(batch) in ([done.name], []), "its batch is its own"


def counts(info: CommitInfo) -> tuple[int, int, int]:
    """What it changed; all 0 if its sequence is that of another's batch."""
    return info.events_written, info.state_keys_written, info.state_keys_deleted


def judge_batch(batch: EncodedBatch, before: dict[bytes, bytes], by_name: dict[str, Done]) -> None:
    """A batch is all of one transaction, acknowledged or given up, and nothing else."""
    [name] = names_of(batch) or [""]
    if not name:  # only deletions
        return
    done = by_name[name]
    state = {key: value for space, key, value in batch.entries if space == Keyspace.STATE}
    for key, value in done.wrote.items():
        assert state.get(key) == value, (key, "torn")
        assert key in state or key not in before
    assert len(events_of([batch])) == done.plan.events
    if done.ids:
        assert done.ids == [number for number, _ in events_of([batch])], "as they were given"
    judge_reads(done, before)


def judge_reads(done: Done, table: dict[bytes, bytes]) -> None:
    for key, value in done.read.items():
        assert table.get(key) == value, (done.name, key)
    if done.whole is not None:
        assert done.whole == table, done.name


def names_of(batch: EncodedBatch) -> list[str]:
    values = [value for space, _, value in batch.entries if space != Keyspace.CANONICAL and value]
    return sorted({value.decode().rpartition("/")[0] for value in values})


@pytest.mark.slow
@settings(max_examples=120)
@given(HISTORIES, FAULTS)
def test_concurrent_histories_are_strictly_serialisable(
    histories: list[list[Plan]], faults: Faults
) -> None:
    trio.run(live, histories, faults, clock=MockClock(autojump_threshold=0))


@pytest.mark.slow
def test_a_transaction_cancelled_at_any_step_happened_whole_or_not_at_all() -> None:
    """Open ones and preflighted ones, beside others; nothing is left behind at any step."""

    async def live_once(cancel: CancelAt) -> None:
        limits = Limits(waiting_writes_max=2, group_batches_max=3, page_rows_max=2)
        async with in_memory()(limits=limits) as platform:
            canonical = platform.canonical
            names = [b"a", b"b", b"c"]
            await open_accounts(canonical, 100, names)

            async def open_transfer(source: bytes, target: bytes, amount: int) -> None:
                async with canonical.write_txn() as txn:
                    found = {}
                    async for key, value in await txn.iter_state():
                        found[key] = I64.parse(value[1:]).value
                    for key, change in ((source, -amount), (target, amount)):
                        txn.put_state(key, b"\x01" + I64(found[key] + change).body())
                    names_ = f'"{source.decode()}","{target.decode()}"'
                    await txn.append_event(f"transfer:[{names_},{amount}]".encode())
                    await txn.commit()

            async def victim() -> None:
                with cancel.scope:
                    cancel.armed = True
                    await transfer(canonical, b"a", b"b", 5)
                    await open_transfer(b"b", b"c", 7)
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
                        except TransactionConflictError:
                            await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(victim)
                nursery.start_soon(other)
            await check_nothing_is_left(platform)
            found = await balances(canonical)
            assert sum(found.values()) == 300
            ledger = dict.fromkeys(names, 100)
            async for _, event in await canonical.iter_events():
                source, target, amount = json.loads(event.partition(b":")[2])
                ledger[source.encode()] -= amount
                ledger[target.encode()] += amount
            assert ledger == found

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
                    outside.start_soon(work, platform, b"a", b"b")  # noqa: ASYNC111
                    outside.start_soon(work, platform, b"c", b"b")  # noqa: ASYNC111
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
