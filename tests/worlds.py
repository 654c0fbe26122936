"""What tests put at the seams: engines whose disk fails, and platforms that need no thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import trio

from exo_stream import Platform, open_platform
from exo_stream.errors import ExoStreamError, OutcomeUnknownError, StoreError, StoreFullError
from exo_stream.feed import FeedMessage
from exo_stream.local_feed import LocalFeed
from exo_stream.model import Batch, Row
from exo_stream.storage.duckdb_engine import open_duckdb_engine
from exo_stream.storage.engine import COLD, Cold, Engine, Group, Job, Version
from exo_stream.storage.memory_engine import MemoryEngine
from exo_stream.testing import FakeClock, in_place

T = TypeVar("T")

Fault = Literal["refused", "full, kept", "full, lost", "unknown, kept", "unknown, lost", "crash"]


class Crash(Exception):  # noqa: N818  # what no code expects
    """A bug somewhere."""


class FaultyEngine(MemoryEngine):
    """A store in memory whose next commits meet ``faults``, in their order; None is no fault.

    Keys in ``cold`` need the reader. ``commits`` are the sizes of the groups that were kept.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.faults: deque[Fault | None] = deque()
        self.full = False
        self.low = False
        self.stuck = False
        self.cold: set[bytes] = set()
        self.commits: list[int] = []
        self.jobs: list[Job] = []
        self.before_commit: Callable[[], None] = lambda: None

    def commit(self, group: Group) -> Group:
        self.before_commit()
        fault = self.faults.popleft() if self.faults else None
        if fault in {"full, kept", "unknown, kept", None}:
            super().commit(group)
            self.commits.append(len(group.batches))
        match fault:
            case "refused":
                raise StoreError("injected")
            case "full, kept" | "full, lost":
                raise StoreFullError("injected")
            case "unknown, kept" | "unknown, lost":
                raise OutcomeUnknownError("injected")
            case "crash":
                raise Crash
            case None:
                pass
        return group

    def reopen(self) -> int:
        if self.full:
            raise StoreFullError("still none")
        return super().reopen()

    def forget_what_is_not_visible(self) -> None:
        """What a process that dies and opens its file again cannot find: here there is no file."""
        while self._log.newest > self.version.frontier:
            del self._log._batches[self._log.newest]
            self._log.newest -= 1

    @property
    def space_low(self) -> bool:
        return self.low

    @property
    def backlogged(self) -> bool:
        return self.stuck

    def lookup(self, version: Version, key: bytes) -> Row | Cold | None:
        return COLD if key in self.cold else super().lookup(version, key)

    def next_job(self, now: int, *, idle: bool) -> Job | None:
        return self.jobs.pop(0) if self.jobs else super().next_job(now, idle=idle)


class GatedHop:
    """A hop that stays in place, and holds every commit at a gate until it is opened."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.arrived = trio.Event()

    async def __call__(self, fn: Callable[[], T], /) -> T:
        if isinstance(fn, partial) and fn.func.__name__ == "commit":
            self.arrived.set()
            await self.gate.wait()
        await trio.lowlevel.checkpoint()
        return fn()


class OneJob:
    """A job of one step that does what it is told."""

    name = "one job"

    def __init__(
        self, step: Callable[[], None] = lambda: None, install: Callable[[], None] = lambda: None
    ) -> None:
        self._step = step
        self._install = install

    def step(self) -> bool:
        self._step()
        return True

    def install(self) -> None:
        self._install()


class OpenPlatform(Protocol):
    """Opens the same store each time it is called, without threads."""

    def __call__(self, **options: Any) -> AbstractAsyncContextManager[Platform]: ...


def in_memory(engine: Engine | None = None) -> OpenPlatform:
    """A platform on a store in memory, which is still there when it is opened again."""
    kept = engine or MemoryEngine()
    return _opener(lambda **_options: kept)


def on_file(path: Path) -> OpenPlatform:
    """A platform on a real DuckDB file."""

    def open_engine(**options: Any) -> Engine:
        return open_duckdb_engine(path, limits=options.get("limits"))

    return _opener(open_engine)


def _opener(open_engine: Callable[..., Engine]) -> OpenPlatform:
    def open_(**options: Any) -> AbstractAsyncContextManager[Platform]:
        options = {"hop": in_place, "clock": FakeClock(), **options}
        return open_platform(engine=open_engine(**options), **options)

    return open_


async def put_one_by_one(platform: Platform, keys: Sequence[bytes]) -> list[int]:
    """A batch for each key."""
    return [await platform.put_batch([(key, b"value of " + key)]) for key in keys]


async def batches_until(feed: LocalFeed, newest: int) -> list[Batch]:
    """What a feed delivers up to the batch ``newest``."""
    found: list[Batch] = []
    with trio.fail_after(600):
        while not found or found[-1].sequence < newest:
            message = await feed.next_message()
            if isinstance(message, Batch):
                found.append(message)
    return found


async def messages_until(feed: LocalFeed, last: type[Any]) -> list[FeedMessage]:
    """What a feed yields up to and with the first message of type ``last``."""
    found: list[FeedMessage] = []
    with trio.fail_after(600):
        while not found or not isinstance(found[-1], last):
            found.append(await feed.next_message())
    return found


Outcomes = dict[str, Any]


async def told(outcomes: Outcomes, name: str, ask: Callable[[], Awaitable[Any]]) -> None:
    """Note what ``ask`` was answered."""
    try:
        outcomes[name] = await ask()
    except ExoStreamError as error:
        outcomes[name] = error


def put(platform: Platform, key: bytes, **options: Any) -> Callable[[], Awaitable[int]]:
    return lambda: platform.write(puts=[(key, b"v")], **options)
