"""What an application holds: the engine and its actors in one nursery, behind one handle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from os import PathLike, fspath
from typing import Any, Final, Literal, TypeVar, cast

import outcome
import trio

from exo_stream.actors import compaction, fanout, ingest, query
from exo_stream.actors.mailbox import Bell, Mailbox
from exo_stream.actors.orders import Decide, MoveFloor, Work
from exo_stream.actors.reads import Read, Reads
from exo_stream.decision import Decision, Refuse
from exo_stream.errors import (
    BatchEvictedError,
    InvalidRequestError,
    LimitExceededError,
    NotVisibleYetError,
    PlatformClosedError,
    UnsupportedError,
)
from exo_stream.frontier import Frontier
from exo_stream.interest import Interest
from exo_stream.limits import Limits
from exo_stream.local_feed import LocalFeed
from exo_stream.model import SEQUENCE_MAX, Batch, Cursor, Keyspace, VersionedValue, row_key
from exo_stream.nursery import nursery_unseen
from exo_stream.payload import EncodedBatch
from exo_stream.producers import Producer
from exo_stream.scan import Scan, bounds
from exo_stream.selectors import Selector
from exo_stream.snapshots import Snapshots
from exo_stream.starts import chosen_start
from exo_stream.storage.engine import (
    Engine,
    EngineStatistics,
    Retention,
    StoreEngine,
    Version,
)
from exo_stream.storage.hop import Hop, TimedHop, open_thread_hop
from exo_stream.storage.memory_engine import MemoryEngine, wall_clock
from exo_stream.storage.trait_backend import TraitBackend
from exo_stream.subscription import Sources
from exo_stream.tail import Tail
from exo_stream.writes import (
    Requirement,
    StoreWrite,
    check_keys,
    checked_write,
    decision,
    unsupported_write,
)

T = TypeVar("T")

IN_MEMORY: Final = ":memory:"
"""The path of a platform without a file: nothing survives it."""

THREADS: Final = ("writer", "near reader", "far reader")
"""Everything else runs on the trio thread."""


@dataclass(frozen=True, slots=True)
class Information:
    """What ``info`` tells of a platform; ``oldest`` is None while the log is empty."""

    log_id: str
    frontier: int
    oldest: int | None
    subscribers: int
    statistics: EngineStatistics


class Platform:
    """An open store: the verbs of an application, and the values they answer with.

    Every verb may be called from any task of the trio program that opened the platform. A call
    that is cancelled before ingest took it up never happens; a write that was taken up takes its
    course, and a retry as the same producer tells what became of it.
    """

    def __init__(
        self,
        sources: Sources,
        writes: Mailbox[Decide[Any]],
        work: Mailbox[Work],
        writing: TimedHop,
    ) -> None:
        self._writing = writing
        self.sources = sources
        self.limits = sources.limits
        self._reads = sources.reads
        self._engine = sources.reads.engine
        self._frontier = sources.frontier
        self._writes = writes
        self._work = work

    @property
    def log_id(self) -> str:
        """The identity of the log, part of every cursor."""
        return self._engine.log_id

    @property
    def writer_busy_seconds(self) -> float:
        """For how long the writer thread has been in its present call: a stuck disk shows here."""
        return self._writing.busy_seconds

    @property
    def cursor(self) -> Cursor:
        """The log's end: a subscription after it gets what is written from now on."""
        return Cursor(self.log_id, self._frontier.visible)

    async def put_batch(self, kvs: Iterable[tuple[bytes, bytes]]) -> int:
        """Write all pairs or none, as one batch; return its sequence number, once it is durable.

        A key may stand there twice: the last value wins, the log keeps both. Raises
        InvalidRequestError, LimitExceededError, StoreError (nothing was kept) or
        OutcomeUnknownError.
        """
        return await self.write(puts=kvs)

    async def delete_batch(self, keys: Iterable[bytes]) -> int:
        """Delete all keys as one batch, present or not; return its sequence number."""
        return await self.write(deletes=keys)

    async def write(
        self,
        *,
        puts: Iterable[tuple[bytes, bytes]] = (),
        deletes: Iterable[bytes] = (),
        require: Mapping[bytes, Requirement] | None = None,
        producer: Producer | None = None,
    ) -> int:
        """Write puts, then deletes, as one atomic batch; return its sequence number.

        ``require`` maps keys to what must hold of them: ``"absent"``, ``"present"`` or a version
        as ``get_entry`` tells it; otherwise ConflictError names the first that does not hold. With
        a ``producer`` the write takes effect once, however often it is retried.
        """
        write = checked_write(
            self.limits, puts=puts, deletes=deletes, require=require, producer=producer
        )
        [result] = await self.write_many([write])
        return result.unwrap()

    async def write_many(self, writes: Sequence[StoreWrite]) -> list[outcome.Outcome[int]]:
        """Hand over several checked writes at once; return what became of each of them."""
        return await self._writes.ask_all(
            [Decide(decide=self._decision(write), size=write.size) for write in writes]
        )

    def _decision(self, write: StoreWrite) -> Decision[int]:
        lacking = unsupported_write(write) if self._engine.own_sequences else None
        return decision(write) if lacking is None else lambda _view, _now: Refuse(lacking)

    async def decide(self, decide: Decision[T], *, size: int = 0) -> T:
        """Have the one writer decide, and return the decision's answer once it is durable."""
        return await self._writes.ask(Decide(decide=decide, size=size))

    async def get(self, key: bytes, *, min_sequence: int = 0, wait: bool = True) -> bytes | None:
        """The key's latest value, None if it is absent. ``min_sequence`` as in ``get_entry``."""
        [entry] = await self.get_entries([key], min_sequence=min_sequence, wait=wait)
        return entry.value

    async def get_entry(
        self, key: bytes, *, min_sequence: int = 0, wait: bool = True
    ) -> VersionedValue:
        """The key's value, its version, and the sequence number this was read at.

        The read waits until ``min_sequence`` is visible; without ``wait`` it raises
        NotVisibleYetError at once.
        """
        [entry] = await self.get_entries([key], min_sequence=min_sequence, wait=wait)
        if self._engine.own_sequences:
            raise UnsupportedError("this backend has only the nine methods, and tells no versions")
        return entry

    async def get_many(
        self, keys: Sequence[bytes], *, min_sequence: int = 0, wait: bool = True
    ) -> list[tuple[bytes, bytes | None]]:
        """Each asked key with its value, in the order asked, duplicates kept, at one sequence."""
        entries = await self.get_entries(keys, min_sequence=min_sequence, wait=wait)
        return [(key, entry.value) for key, entry in zip(keys, entries, strict=True)]

    async def get_entries(
        self,
        keys: Sequence[bytes],
        *,
        min_sequence: int = 0,
        wait: bool = True,
        bytes_max: int | None = None,
    ) -> list[VersionedValue]:
        """``get_entry`` for several keys at one sequence, in the order asked.

        Raises LimitExceededError if their values have more than ``bytes_max`` together, which is
        ``get_many_bytes_max`` unless told.
        """
        if not isinstance(keys, Sequence):
            raise InvalidRequestError("keys are a sequence of keys")
        check_keys(keys)
        if len(keys) > self.limits.get_many_keys_max:
            raise LimitExceededError("get_many_keys_max", self.limits.get_many_keys_max, len(keys))
        version = await self._version(min_sequence, wait=wait)
        rows = await self._reads.rows(
            version,
            [row_key(Keyspace.STORE, key) for key in keys],
            bytes_max=self.limits.get_many_bytes_max if bytes_max is None else bytes_max,
        )
        return [
            VersionedValue(None, 0, version.frontier)
            if row is None or row.value is None
            else VersionedValue(row.value, row.sequence, version.frontier)
            for row in rows
        ]

    async def range_scan(
        self,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 1000,
        forward: bool = True,
        *,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` pairs in key order, or against it, all at one sequence.

        Both ends are inclusive; an empty ``end`` is unbounded; a limit of 0 gives nothing. For
        more than fits in memory, ``scan``.
        """
        low, high = bounds(start, end)
        if type(limit) is not int or limit < 0:
            raise InvalidRequestError("a limit is a number from 0 on")
        version = await self._version(min_sequence, wait=wait)
        pairs: list[tuple[bytes, bytes]] = []
        if not limit:
            await trio.lowlevel.checkpoint()
        self._engine.pin(version)
        try:
            while len(pairs) < limit:
                page = await self._reads.page(
                    version, low, high, rows_max=limit - len(pairs), forward=forward
                )
                pairs.extend((row.key[1:], row.value) for row in page.rows if row.value is not None)
                if page.resume is None:
                    break
                low, high = (page.resume, high) if forward else (low, page.resume)
        finally:
            self._engine.unpin(version)
        return pairs

    def scan(self, start: bytes = b"", end: bytes = b"", *, forward: bool = True) -> Scan:
        """All pairs of a range, lazily, page by page, on one snapshot.

        Use it as ``async with platform.scan() as rows: async for key, value in rows: …``.
        """
        low, high = bounds(start, end)
        return Scan(self._reads, self.sources.snapshots, low, high, forward=forward)

    async def get_batch(self, sequence: int) -> Batch | None:
        """The batch with this number, deletions as the value None; None if it is not there yet.

        Raises BatchEvictedError if retention has let go of it.
        """
        if type(sequence) is not int or not 0 <= sequence <= SEQUENCE_MAX:
            raise InvalidRequestError("a sequence number is an unsigned 64-bit integer")
        if sequence < self._engine.version.floor:
            await trio.lowlevel.checkpoint()
            raise BatchEvictedError(self._engine.version.floor)
        if sequence > self._frontier.visible:
            await trio.lowlevel.checkpoint()
            return None
        batch = await self._logged(sequence)
        if batch is None:
            return None
        matching = Selector().select(batch)
        entries = matching.entries if matching else ()
        return Batch(sequence, batch.committed_at, entries, self.log_id)

    async def _logged(self, sequence: int) -> EncodedBatch | None:
        page = self.sources.tail.since(sequence - 1, batches_max=1, bytes_max=1)
        if page is None:
            page = await self._reads.log_page(sequence - 1, sequence)
        else:
            await trio.lowlevel.checkpoint()
        return page[0] if page and page[0].sequence == sequence else None

    async def oldest_retained_batch(self) -> int | None:
        """The number of the oldest batch in the log, None if the log is empty."""
        await trio.lowlevel.checkpoint()
        return self._oldest()

    def _oldest(self) -> int | None:
        version = self._engine.version
        return version.floor if version.floor <= version.frontier else None

    async def current_sequence(self) -> int:
        """The number of the newest visible batch, 0 before the first."""
        await trio.lowlevel.checkpoint()
        return self._frontier.visible

    async def prune_batch_log(self, cutoff_exclusive: int) -> int:
        """Evict every batch below the cutoff, at once for everybody; return how many there were.

        The table keeps its values. What a held snapshot still needs is evicted when it is let go.
        """
        if type(cutoff_exclusive) is not int or not 0 <= cutoff_exclusive <= SEQUENCE_MAX:
            raise InvalidRequestError("a sequence number is an unsigned 64-bit integer")
        return await self._work.ask(MoveFloor(cutoff=cutoff_exclusive))

    def subscribe(
        self,
        *,
        prefix: bytes = b"",
        after: Cursor | str | None = None,
        from_sequence: int | None = None,
        start: Literal["oldest", "now"] | None = None,
        last: int | None = None,
        since_time: datetime | None = None,
        snapshot: bool = False,
    ) -> LocalFeed:
        """Every batch with keys under ``prefix``, from one start on; the oldest if none is given.

        ``after`` a cursor (exclusive), ``from_sequence`` (inclusive), ``start`` ``"oldest"`` or
        ``"now"``, the ``last`` so many sequence numbers, ``since_time``, or with ``snapshot``
        the matching rows of the table first. Use it as ``async with platform.subscribe() as
        feed: async for batch in feed: …``.
        """
        chosen = chosen_start(
            after=after,
            from_sequence=from_sequence,
            start=start,
            last=last,
            since_time=since_time,
            snapshot=snapshot,
        )
        check_keys([prefix])
        return LocalFeed(self.sources, Selector(prefix), chosen)

    async def info(self) -> Information:
        """Identity, extent and sizes."""
        await trio.lowlevel.checkpoint()
        return Information(
            self.log_id,
            self._frontier.visible,
            self._oldest(),
            len(self.sources.interest),
            self._engine.statistics(),
        )

    async def _version(self, min_sequence: int, *, wait: bool) -> Version:
        if type(min_sequence) is not int or not 0 <= min_sequence <= SEQUENCE_MAX:
            raise InvalidRequestError("a sequence number is an unsigned 64-bit integer")
        if self._writes.closed:
            await trio.lowlevel.checkpoint()
            raise PlatformClosedError("the platform is closed")
        if min_sequence > self._frontier.visible:
            if not wait:
                await trio.lowlevel.checkpoint()
                raise NotVisibleYetError(self._frontier.visible, min_sequence)
            await self._frontier.wait_visible(min_sequence)
        return self._engine.version  # noqa: ASYNC910  # the read that follows is one


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
    cursors outlive the process. ``retention`` bounds the log; by default
    it keeps everything. ``clock`` answers microseconds since the Unix epoch. ``hop`` is for tests:
    it replaces the threads. Raises FileInUseError, ForeignFileError or CorruptionError; an error
    of the body leaves as itself.
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
            async with _running(opened, hops, limits, retention or Retention(), clock) as platform:
                yield platform
        finally:
            with trio.CancelScope(
                shield=True
            ):  # bounded by one CHECKPOINT; a thread cannot be left
                await hops[0](opened.close)


async def _open_threads(stack: AsyncExitStack) -> list[Hop]:
    # No checkpoint: opening a thread waits for nothing.
    return [await stack.enter_async_context(open_thread_hop(name)) for name in THREADS]  # noqa: ASYNC910


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
    from exo_stream.storage.duckdb_engine import open_duckdb_engine  # noqa: PLC0415

    return await hop(partial(open_duckdb_engine, path, limits=limits, now=clock))


@asynccontextmanager
async def _running(
    engine: Engine,
    hops: Sequence[Hop],
    limits: Limits,
    retention: Retention,
    clock: Callable[[], int],
) -> AsyncIterator[Platform]:
    bell, changed = Bell(), Bell()
    near: Mailbox[Read] = _mailbox(limits)
    far: Mailbox[Read] = _mailbox(limits)
    writes: Mailbox[Decide[Any]] = _mailbox(limits, bell)
    work: Mailbox[Work] = _mailbox(limits, bell)
    sources = _sources(engine, Reads(engine, near, far, limits), limits)
    send, receive = trio.open_memory_channel[Sequence[EncodedBatch]](0)
    writing = TimedHop(hops[0])
    writer = ingest.Means(
        writes, work, engine, writing, sources.reads, send, sources.tail, sources.frontier,
        sources.snapshots, changed, clock, limits,
    )  # fmt: skip
    planner = compaction.Means(
        engine, work, writes, sources.reads, sources.snapshots, changed, retention, clock, limits
    )
    try:
        with nursery_unseen() as own:
            async with trio.open_nursery() as readers:
                readers.start_soon(query.run, near, engine, hops[1], limits)
                readers.start_soon(query.run, far, engine, hops[2], limits)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ingest.run, writer)
                    nursery.start_soon(fanout.run, receive, sources.interest)
                    nursery.start_soon(compaction.run, planner)
                    with own:
                        yield Platform(sources, writes, work, writing)
                    # The body is done: no more writes. Ingest drains what waits, with compaction's
                    # help, and closes what it owns, which ends the other two; the readers go last.
                    writes.close()
                near.close()
                far.close()
    finally:
        # Callers from tasks outside the body are not cancelled with it; they must not wait on.
        sources.frontier.close()
        sources.interest.close()


def _mailbox(limits: Limits, bell: Bell | None = None) -> Mailbox[Any]:
    return Mailbox(
        requests_max=limits.waiting_writes_max, bytes_max=limits.waiting_bytes_max, bell=bell
    )


def _sources(engine: Engine, reads: Reads, limits: Limits) -> Sources:
    frontier = engine.version.frontier
    return Sources(
        log_id=engine.log_id,
        reads=reads,
        tail=Tail(frontier, batches_max=limits.tail_batches_max, bytes_max=limits.tail_bytes_max),
        frontier=Frontier(frontier),
        interest=Interest(frontier),
        snapshots=Snapshots(engine, limits),
        limits=limits,
    )
