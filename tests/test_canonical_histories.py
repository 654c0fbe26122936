"""Concurrent transactions, judged by the log: one order explains everything they saw.

Taken in the order of their sequences, every transaction has read what those before it wrote, and
those that one waited for come before it (strict serialisability).
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from exo_stream.canonical.changes import CommitInfo
from exo_stream.canonical.contexts import TransactionContext
from exo_stream.canonical.store import CanonicalStore
from exo_stream.canonical.transaction import Transaction
from exo_stream.client.canonical import RemoteCanonical
from exo_stream.client.transaction import RemoteTransaction
from exo_stream.errors import (
    StoreError,
    TransactionConflictError,
)
from exo_stream.limits import Limits
from exo_stream.model import Keyspace
from exo_stream.payload import EncodedBatch
from exo_stream.testing import FaultyHop
from tests.network import connected_over, networked
from tests.worlds import FaultyEngine, in_memory

Kind = Literal["open", "preflight", "batch", "afar", "afar preflight"]
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
        kind=st.sampled_from(["open", "open", "preflight", "batch", "afar", "afar preflight"]),
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


async def carry_out(canonical: CanonicalStore, afar: RemoteCanonical | None, done: Done) -> None:
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
    elif plan.kind == "afar":
        assert afar is not None
        await carry_out_afar(afar, done, events)
    elif plan.kind == "preflight":
        await carry_out_preflighted(canonical.transaction(), done, events)
    else:
        assert afar is not None
        await carry_out_preflighted(afar.transaction(), done, events)


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


async def carry_out_afar(afar: RemoteCanonical, done: Done, events: list[bytes]) -> None:
    plan = done.plan
    async with afar.write_txn() as txn:
        for key in plan.reads:
            done.read[KEYS[key]] = await txn.get_state(KEYS[key])
            await trio.sleep(plan.pauses / 100)
        if plan.whole:
            done.whole = {key: value async for key, value in await txn.iter_state()}
        for name, value in done.wrote.items():
            if value is None:
                txn.del_state(name)
            else:
                txn.put_state(name, value)
        if plan.pauses and events:
            first, last = await txn.append_events(events)
            done.ids += range(first, last + 1)
        else:
            for event in events:
                txn.log_bytes(event)
        if plan.abort:
            raise Abort
        done.info = await txn.commit()


async def carry_out_preflighted(
    transaction: Transaction | RemoteTransaction, done: Done, events: list[bytes]
) -> None:
    plan = done.plan

    async def body(ctx: TransactionContext) -> None:
        done.read.clear()
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

    done.info = await transaction.keys(KEYS).execute(body)


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
    async with in_memory(engine)(hop=hop, limits=limits) as platform, AsyncExitStack() as clients:
        canonical = platform.canonical
        afar: RemoteCanonical | None = None
        if any(plan.kind.startswith("afar") for plans in histories for plan in plans):
            network = await clients.enter_async_context(networked(platform))
            afar = (await clients.enter_async_context(connected_over(network))).canonical

        async def work(number: int, plans: list[Plan]) -> None:
            with trio.move_on_after(faults.patience[number]):
                for turn, plan in enumerate(plans):
                    done = Done(f"{number}/{turn}", plan)
                    done.not_before = platform.cursor.sequence
                    everything.append(done)
                    try:
                        await carry_out(canonical, afar, done)
                    except (TransactionConflictError, StoreError, Abort):
                        done.info = None

        async with trio.open_nursery() as nursery:
            for number, plans in enumerate(histories):
                nursery.start_soon(work, number, plans)
            await trio.sleep(0.003)
            hop.failures = faults.refused
        await trio.sleep(60)  # what clients have given up takes its course
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
    told = (Keyspace.STATE, Keyspace.EVENT)  # the others are a record, and a client's number
    values = [value for space, _, value in batch.entries if space in told and value]
    return sorted({value.decode().rpartition("/")[0] for value in values})


@pytest.mark.slow
@settings(max_examples=100)
@given(HISTORIES, FAULTS)
def test_concurrent_histories_are_strictly_serialisable(
    histories: list[list[Plan]], faults: Faults
) -> None:
    trio.run(live, histories, faults, clock=MockClock(autojump_threshold=0))
