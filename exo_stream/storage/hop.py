"""The hop: how a blocking call leaves the event loop, and how tests keep it there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread  # noqa: TID251 - here, and nowhere else
from typing import NoReturn, Protocol, TypeVar

import outcome
import trio

T = TypeVar("T")


class Hop(Protocol):
    """Run a blocking function elsewhere and wait for it; what it raises is raised here.

    A call that has begun is always waited for, also when the caller is cancelled: whoever
    abandons a COMMIT knows nothing about it.
    """

    async def __call__(self, fn: Callable[[], T], /) -> T: ...


class TimedHop:
    """A hop that tells for how long its present call has been running; one call at a time."""

    def __init__(self, hop: Hop) -> None:
        self._hop = hop
        self._began: float | None = None

    @property
    def busy_seconds(self) -> float:
        """How long the present call has been running, 0 if there is none."""
        return 0 if self._began is None else trio.current_time() - self._began

    async def __call__(self, fn: Callable[[], T], /) -> T:
        self._began = trio.current_time()
        try:
            return await self._hop(fn)
        finally:
            self._began = None


async def in_place(fn: Callable[[], T], /) -> T:
    """Run ``fn`` on the event loop itself: for tests under a mock clock."""
    await trio.lowlevel.checkpoint()
    return fn()


@asynccontextmanager
async def open_thread_hop(name: str) -> AsyncIterator[Hop]:
    """A hop to one thread of its own, so that calls run one after another in that thread.

    The thread is joined on leaving; no call may be under way by then.
    """
    hop = _ThreadHop(name)
    try:
        yield hop
    finally:
        hop.close()


@dataclass(frozen=True, slots=True)
class _Call:
    fn: Callable[[], object]
    task: trio.lowlevel.Task


class _ThreadHop:
    """About 0.13 ms a call; ``trio.to_thread`` takes 0.17 and gives another thread each time."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._closed = False
        # Not a daemon: DuckDB must not be running a query while the interpreter goes away.
        self._thread = Thread(target=self._serve, name=name, daemon=False)
        self._thread.start()

    async def __call__(self, fn: Callable[[], T], /) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        assert not self._closed, self._thread.name
        self._calls.put(_Call(fn, trio.lowlevel.current_task()))
        return await trio.lowlevel.wait_task_rescheduled(_wait_on)  # type: ignore[no-any-return]  # trio hands over what a call gave as Any

    def close(self) -> None:
        """Let the thread finish what is queued, and join it."""
        self._closed = True
        self._calls.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            result = outcome.capture(call.fn)
            # The loop is gone only if trio itself crashed; then nobody is left to be told.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(trio.lowlevel.reschedule, call.task, result)


def _wait_on(_raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
