"""Canonical transactions: the seven rows of Azoth's README, durable and never synced.

Its figures were published for one thread on a machine that is not named, without an fsync per
commit; so they stand beside ours of an engine that never syncs, and no ratio is a budget.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import trio

import exo_stream
from benchmarks import rounds
from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from exo_stream.canonical.contexts import TransactionContext
from exo_stream.canonical.store import CanonicalStore
from exo_stream.canonical.values import I64
from exo_stream.storage.duckdb_engine import open_duckdb_engine

PUBLISHED: Final = "azoth, published"
DURABLE: Final = ", durable"
UNSAFE: Final = ", unsafe_nosync"
TASKS: Final = 64
BATCH: Final = 100
EVENTS: Final = 130_000
"""As many as the original iterates over."""

Step = Callable[[CanonicalStore, int], Awaitable[int]]
"""One step of one task; how many it counts as."""


@dataclass(frozen=True, slots=True)
class Work:
    """One line of the table, measured twice: durable, and never synced."""

    what: str
    unit: str
    step: Step
    tasks: int = 1
    published: float | None = None
    budget: Budget | None = None
    """Of the durable one."""


async def put(store: CanonicalStore, number: int) -> int:
    async with store.write_txn() as txn:
        txn.put_state(b"key_%d" % number, b"value")
        await txn.commit()
    return 1


async def append(store: CanonicalStore, number: int) -> int:
    async with store.write_txn() as txn:
        await txn.append_event(b"event_%d" % (number % 1_000))
        await txn.commit()
    return 1


async def append_batch(store: CanonicalStore, number: int) -> int:
    async with store.write_txn() as txn:
        await txn.append_events([b"event_%d" % (number % 1_000)] * BATCH)
        await txn.commit()
    return BATCH


async def put_and_append(store: CanonicalStore, number: int) -> int:
    async with store.write_txn() as txn:
        txn.put_state(b"key_%d" % number, b"value")
        await txn.append_event(b"event_%d" % (number % 1_000))
        await txn.commit()
    return 1


async def preflighted(store: CanonicalStore, number: int) -> int:
    key = b"key_%d" % number

    async def body(ctx: TransactionContext) -> None:  # noqa: ASYNC124  # a body is async
        ctx.set(key, I64(number))
        ctx.log_bytes(b"123456789")

    await store.transaction().keys([key]).execute(body)
    return 1


async def read(store: CanonicalStore, number: int) -> int:
    async with store.read_txn() as txn:
        await txn.get_state(b"key_%d" % (number % 100))
    return 1


async def iterate(store: CanonicalStore, _number: int) -> int:
    seen = 0
    async for _ in await store.iter_events():
        seen += 1
    return seen


WORKS: Final = (
    Work("one put", "transactions/s", put, published=11_243),
    Work("one event", "transactions/s", append, published=13_092),
    Work(f"{BATCH}-event batches", "events/s", append_batch, published=979_323),
    Work(
        f"{BATCH}-event batches, {TASKS} tasks",
        "events/s",
        append_batch,
        TASKS,
        budget=Budget("at least", 200_000),
    ),
    Work("state + event", "transactions/s", put_and_append, published=10_266),
    Work("preflighted state + event", "transactions/s", preflighted, published=8_849),
    Work(
        f"preflighted state + event, {TASKS} tasks",
        "transactions/s",
        preflighted,
        TASKS,
        budget=Budget("at least", 8_000, goal=15_000),
    ),
)
READING: Final = (
    Work(
        "state reads, each a transaction",
        "reads/s",
        read,
        published=977_975,
        budget=Budget("at least", 200_000),
    ),
    Work(
        "iterating events",
        "events/s",
        iterate,
        published=1_141_680,
        budget=Budget("at least", 500_000),
    ),
)


def measure(setting: Setting) -> Iterator[Result]:
    """Each line durable, then with an engine whose name says that it is not."""
    numbers = count()
    for unsafe_nosync in (False, True):
        for work in WORKS:
            yield _result(
                work,
                _rounds(setting, partial(_write, setting, numbers, work, unsafe_nosync)),
                UNSAFE if unsafe_nosync else DURABLE,
            )
    yield from trio.run(_read, setting)


def _result(work: Work, given: list[float], mode: str = "") -> Result:
    """A line of the table; what never syncs has the published figure beside it, and no budget."""
    compared = mode != DURABLE and work.published is not None
    return Result(
        "canonical",
        f"canonical, {work.what}{mode}",
        work.unit,
        given,
        {PUBLISHED: [work.published]} if compared and work.published else {},
        None if mode == UNSAFE else work.budget,
    )


def _rounds(setting: Setting, ours: Callable[[], float]) -> list[float]:
    given, _ = rounds.alternate(setting.scale.rounds, {rounds.OURS: ours})
    return given


def _write(setting: Setting, numbers: Iterator[int], work: Work, unsafe_nosync: bool) -> float:
    path = setting.folder / f"canonical-{next(numbers)}.duckdb"
    return trio.run(_rate, path, work, setting.scale.round_seconds, unsafe_nosync)


async def _rate(path: Path, work: Work, seconds: float, unsafe_nosync: bool) -> float:
    """The rate of a new file."""
    engine = await trio.to_thread.run_sync(
        partial(open_duckdb_engine, path, unsafe_nosync=unsafe_nosync)
    )
    async with exo_stream.open_platform(engine=engine) as platform:
        return await _run(platform.canonical, work, seconds)


async def _run(store: CanonicalStore, work: Work, seconds: float) -> float:
    done = 0
    began = time.perf_counter()

    async def loop(task: int) -> None:
        nonlocal done
        number = task
        while time.perf_counter() - began < seconds:
            counted = await work.step(store, number)
            done += counted
            number += work.tasks

    async with trio.open_nursery() as nursery:
        for task in range(work.tasks):
            nursery.start_soon(loop, task)
    return done / (time.perf_counter() - began)


async def _read(setting: Setting) -> list[Result]:
    """What is read from memory."""
    scale = setting.scale
    results = []
    async with exo_stream.open_platform(setting.folder / "canonical-read.duckdb") as platform:
        store = platform.canonical
        for number in range(100):
            await put(store, number)
        await _fill(store, min(EVENTS, scale.large_table_keys))
        for work in READING:
            given = [await _run(store, work, scale.round_seconds) for _ in range(scale.rounds + 1)]
            results.append(_result(work, given[1:]))
    return results


async def _fill(store: CanonicalStore, events: int) -> None:
    while (await store.meta()).next_event_id < events:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(_append_thousand, store, number)


async def _append_thousand(store: CanonicalStore, number: int) -> None:
    async with store.write_txn() as txn:
        await txn.append_events([b"event_%d" % number] * 1_000)
        await txn.commit()
