"""The command that measures a server from where it stands; scripts/bench compares with others."""

from __future__ import annotations

import secrets
from argparse import Namespace
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

import trio

from exo_stream.cli.connection import connected
from exo_stream.cli.exit_codes import OK
from exo_stream.cli.output import Output
from exo_stream.cli.standard_error import say
from exo_stream.cli.tables import print_table
from exo_stream.client import Client

VALUE = secrets.token_bytes(100)
"""Bytes that do not compress, so that nobody's figure is better than it would be."""
LARGE_BATCH_ENTRIES = 1_000
LARGE_BATCH_TASKS = 8
KEYS = 1_000
"""Keys that are written again and again, and deleted at the end."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: how many in how long, and how long one of them took."""

    what: str
    count: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.count / self.seconds


@dataclass(slots=True)
class Load:
    """The same call again and again, from several tasks, for a while."""

    client: Client
    prefix: bytes
    seconds: float
    calls: int = 0

    def key(self) -> bytes:
        """The next of a thousand keys."""
        self.calls += 1
        return self.prefix + b"%04d" % (self.calls % KEYS)

    async def measure(
        self, what: str, call: Callable[[], Awaitable[object]], *, tasks: int, entries: int = 1
    ) -> Figure:
        """The figure for ``call``, which writes or reads so many entries."""
        took: list[float] = []
        begun = trio.current_time()
        end = begun + self.seconds

        async def repeat() -> None:
            at = trio.current_time()
            while not took or at < end:  # once, however little time there is
                await call()
                took.append(trio.current_time() - at)
                at = trio.current_time()
            await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(repeat)
        return figure(what, took, trio.current_time() - begun, entries)


def figure(what: str, took: list[float], seconds: float, entries: int) -> Figure:
    """The figure for calls that took so many seconds each."""
    took.sort()
    return Figure(
        what,
        count=len(took) * entries,
        seconds=seconds,
        p50_ms=took[len(took) // 2] * 1000,
        p99_ms=took[len(took) * 99 // 100] * 1000,
    )


async def bench(args: Namespace, out: Output) -> int:
    """Print a row for each kind of load, then remove what was written."""
    prefix = f"bench/{secrets.token_hex(4)}/".encode()
    async with connected(args) as client:
        load = Load(client, prefix, args.seconds)
        say(f"measuring {args.url} for {5 * args.seconds:.0f} s")
        try:
            figures = await _figures(load, args.tasks)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await client.delete_batch([prefix + b"%04d" % n for n in range(KEYS)])
    if out.is_json:
        for row in figures:
            out.object({**asdict(row), "per_second": row.per_second})
        return OK
    rows = [
        (f.what, f"{f.per_second:,.0f}", f"{f.p50_ms:.2f} ms", f"{f.p99_ms:.2f} ms")
        for f in figures
    ]
    print_table(out, ["what, 100 B values", "entries/s", "p50", "p99"], rows)
    return OK


async def _figures(load: Load, tasks: int) -> list[Figure]:
    client, key = load.client, load.key

    async def put() -> None:
        await client.put_batch([(key(), VALUE)])

    async def put_many() -> None:
        await client.put_batch([(key(), VALUE) for _ in range(LARGE_BATCH_ENTRIES)])

    async def get() -> None:
        await client.get(key())

    return [
        await load.measure("durable put, one task", put, tasks=1),
        await load.measure(f"durable put, {tasks} tasks", put, tasks=tasks),
        await load.measure(
            f"durable put of {LARGE_BATCH_ENTRIES:,}, {LARGE_BATCH_TASKS} tasks",
            put_many,
            tasks=LARGE_BATCH_TASKS,
            entries=LARGE_BATCH_ENTRIES,
        ),
        await load.measure(f"get, {tasks} tasks", get, tasks=tasks),
        await _followed(load),
    ]


async def _followed(load: Load) -> Figure:
    """How long it takes from the wish to write to the batch in a follower's hands."""
    took: list[float] = []
    begun = at = trio.current_time()
    async with load.client.subscribe(prefix=load.prefix, start="now") as feed:
        while not took or at < begun + load.seconds:
            await load.client.put_batch([(load.key(), VALUE)])
            await anext(feed)
            took.append(trio.current_time() - at)
            at = trio.current_time()
    return figure("put until followed, one task", took, trio.current_time() - begun, 1)
