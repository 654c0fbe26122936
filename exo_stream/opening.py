"""Opens a platform: wires the engine and the actors in one nursery, and answers the handle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from os import PathLike, fspath
from typing import Any, Final, cast

import trio

from exo_stream.actors import compaction, fanout, ingest, query
from exo_stream.actors.keeping import Keeping
from exo_stream.actors.mailbox import Bell, Mailbox
from exo_stream.actors.orders import AnyDecide, Work
from exo_stream.actors.reads import Reads
from exo_stream.backing_up import BackingUp
from exo_stream.errors import (
    InvalidRequestError,
)
from exo_stream.frontier import Frontier
from exo_stream.ground import Ground
from exo_stream.interest import Interest
from exo_stream.limits import Limits
from exo_stream.matching import Matching, in_threads
from exo_stream.nursery import nursery_unseen
from exo_stream.pause import Pause
from exo_stream.payload import EncodedBatch
from exo_stream.platform import Platform
from exo_stream.snapshots import Snapshots
from exo_stream.storage.engine import (
    Engine,
    Retention,
    StoreEngine,
)
from exo_stream.storage.hop import Hop, TimedHop, open_thread_hop
from exo_stream.storage.memory_engine import MemoryEngine, wall_clock
from exo_stream.storage.trait_backend import TraitBackend
from exo_stream.subscription import Sources
from exo_stream.tail import Tail

IN_MEMORY: Final = ":memory:"
"""The path of a platform without a file: nothing survives it."""

THREADS: Final = ("writer", "near reader", "far reader")
"""Everything else runs on the trio thread."""


@asynccontextmanager
async def open_platform(
    path: str | PathLike[str] | None = None,
    *,
    engine: Engine | StoreEngine | None = None,
    log_id: str | None = None,
    limits: Limits | None = None,
    retention: Retention | None = None,
    clock: Callable[[], int] = wall_clock,
    hop: Hop | None = None,
) -> AsyncIterator[Platform]:
    """Open the file at ``path``, or use ``engine``, and run the actors while the body runs.

    ``":memory:"`` opens a store that ends with the body. An ``engine`` with only the nine methods
    of ``StoreEngine`` serves the store face, as docs/embedding.md says; with a ``log_id`` its
    cursors outlive the process. ``retention`` bounds the log instead of the rules that the file
    has stored. ``clock`` answers microseconds since the Unix epoch. ``hop`` is for tests: it
    replaces the threads. Raises FileInUseError, ForeignFileError or CorruptionError; an error of
    the body leaves as itself.
    """
    if (path is None) == (engine is None):
        raise InvalidRequestError("a platform opens either a path or an engine")
    if log_id is not None and path is not None:
        raise InvalidRequestError("a file has its own log_id")
    limits = limits or Limits()
    async with AsyncExitStack() as stack:
        hops = [hop] * len(THREADS) if hop else await _open_threads(stack)
        if path is not None:
            opened = await _open_engine(fspath(path), limits, clock, hops[0])
        else:
            assert engine is not None
            opened = await hops[0](partial(_as_engine, engine, log_id))
        try:
            matching = Matching(limits, hop or in_threads(), hop or in_threads())
            running = _running(opened, hops, limits, retention, clock, matching=matching)
            async with running as platform:
                yield platform
        finally:
            with trio.CancelScope(
                shield=True
            ):  # bounded by one CHECKPOINT; a thread cannot be left
                await hops[0](opened.close)


async def _open_threads(stack: AsyncExitStack) -> list[Hop]:
    # No checkpoint: opening a thread waits for nothing.
    return [await stack.enter_async_context(open_thread_hop(name)) for name in THREADS]  # noqa: ASYNC910  see above


def _as_engine(engine: Engine | StoreEngine, log_id: str | None) -> Engine:
    # A protocol cannot be asked at run time for the signatures that count; one name tells.
    if hasattr(engine, "install"):
        return cast("Engine", engine)
    return TraitBackend(engine, log_id=log_id)


async def _open_engine(path: str, limits: Limits, clock: Callable[[], int], hop: Hop) -> Engine:
    if path == IN_MEMORY:
        await trio.lowlevel.checkpoint()
        return MemoryEngine(limits=limits, now=clock)
    # Here, for clients and commands import this module too: DuckDB is a fifth of the whole import.
    from exo_stream.storage.duckdb_engine import open_duckdb_engine  # noqa: PLC0415  see above

    return await hop(partial(open_duckdb_engine, path, limits=limits, now=clock))


@asynccontextmanager
async def _running(
    engine: Engine,
    hops: Sequence[Hop],
    limits: Limits,
    retention: Retention | None,
    clock: Callable[[], int],
    *,
    matching: Matching,
) -> AsyncIterator[Platform]:
    bell, changed, keeping, pause = Bell(), Bell(), Keeping(retention), Pause()
    near, far = _mailbox(limits), _mailbox(limits)
    writes: Mailbox[AnyDecide] = _mailbox(limits, bell)
    work: Mailbox[Work] = _mailbox(limits, bell)
    sources = _sources(engine, Reads(engine, near, far, limits), matching, limits)
    send, receive = trio.open_memory_channel[Sequence[EncodedBatch]](0)
    writing = TimedHop(hops[0])
    writer = ingest.Means(
        writes, work, engine, writing, sources.reads, send, sources.tail, sources.frontier,
        sources.snapshots, keeping, changed, clock, limits,
    )  # fmt: skip
    planner = compaction.Means(
        engine, work, writes, sources.reads, sources.snapshots, changed, keeping, clock, limits,
        pause,
    )  # fmt: skip
    try:
        with nursery_unseen() as own:
            async with trio.open_nursery() as readers:
                readers.start_soon(query.run, near, engine, hops[1], limits)
                readers.start_soon(query.run, far, engine, hops[2], limits)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ingest.run, writer)
                    nursery.start_soon(fanout.run, receive, sources.interest)
                    await nursery.start(compaction.run, planner)
                    platform = _platform(
                        Ground(sources, writes, work, clock, keeping, pause), writing
                    )
                    nursery.start_soon(platform.streams.upkeep.run)
                    with own:
                        yield platform
                    # The body is done: no more writes. Ingest drains what waits, with compaction's
                    # help, and closes what it owns, which ends the other two; the readers go last.
                    platform.streams.upkeep.stop()
                    writes.close()
                near.close()
                far.close()
    finally:
        # Callers from tasks outside the body are not cancelled with it; they must not wait on.
        sources.frontier.close()
        sources.interest.close()


def _platform(ground: Ground, writing: TimedHop) -> Platform:
    return Platform(ground, writing, BackingUp(ground))


def _mailbox(limits: Limits, bell: Bell | None = None) -> Mailbox[Any]:
    # Any: of the requests that whoever it is for can take, as their types say.
    return Mailbox(
        requests_max=limits.waiting_writes_max, bytes_max=limits.waiting_bytes_max, bell=bell
    )


def _sources(engine: Engine, reads: Reads, matching: Matching, limits: Limits) -> Sources:
    frontier = engine.version.frontier
    return Sources(
        log_id=engine.log_id,
        reads=reads,
        tail=Tail(frontier, batches_max=limits.tail_batches_max, bytes_max=limits.tail_bytes_max),
        frontier=Frontier(frontier),
        matching=matching,
        interest=Interest(frontier, matching.matcher_of, steps_max=limits.match_steps_max),
        snapshots=Snapshots(engine, limits),
        limits=limits,
    )
