"""How a caller asks an actor for something, and is never left waiting for the answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

import outcome
import trio

from exo_stream.errors import ExoStreamError, PlatformClosedError

T = TypeVar("T")
R = TypeVar("R", bound="AnyRequest")


class Bell:
    """Wakes one actor; rung before it listens, it wakes it at once. One actor may share one
    bell between several mailboxes.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        """Wake the listener, now or when it next listens."""
        self._event.set()

    async def wait(self) -> None:
        """Return once the bell has been rung since the last time."""
        await self._event.wait()
        self._event = trio.Event()


class _Tally:
    """How many answers one task still waits for.

    Not an event: that may have any number of listeners, and costs a put a twentieth.
    """

    __slots__ = ("_missing", "_task")

    def __init__(self, missing: int) -> None:
        self._missing = missing
        self._task: trio.lowlevel.Task | None = None

    def count(self) -> None:
        self._missing -= 1
        if not self._missing and self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> None:
        assert self._task is None, "one task waits"
        if not self._missing:
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._give_up)

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class Reply(Generic[T]):
    """The one answer to one request.

    The first answer stands: an actor that dies halfway through its work fails every reply it
    still owes, and some of those may have been given already.
    """

    __slots__ = ("_error", "_tally", "_value", "abandoned", "settled")

    def __init__(self) -> None:
        self._value: T | None = None
        self._error: ExoStreamError | None = None
        self._tally: _Tally | None = None
        self.settled = False
        """Whether it has been given."""
        self.abandoned = False

    @property
    def result(self) -> outcome.Outcome[T]:
        """The value or the error it was settled with."""
        assert self.settled, "not answered yet"
        if self._error is not None:
            return outcome.Error(self._error)
        return outcome.Value(cast("T", self._value))  # None is an answer too, where T has it

    async def wait(self) -> T:
        """The answer to a request that was posted, or the error it was answered with.

        One task may wait.
        """
        assert self._tally is not None, "nobody asked"
        await self._tally.wait()
        if self._error is not None:
            raise self._error
        return cast("T", self._value)  # as above

    def set(self, value: T) -> None:
        """Answer."""
        if not self.settled:
            self._value = value
            self._settle()

    def fail(self, error: ExoStreamError) -> None:
        """Answer with an error; each reply gets an object of its own, raising one changes it."""
        if not self.settled:
            self._error = error
            self._settle()

    def counted_by(self, tally: _Tally) -> None:
        """Have ``tally`` count this answer when it comes."""
        assert self._tally is None, "a request is asked once"
        self._tally = tally

    def _settle(self) -> None:
        self.settled = True
        if self._tally is not None:
            self._tally.count()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Request(Generic[T]):
    """A message that expects a ``T`` back. Subclasses add the fields of the question.

    ``size`` is what it holds while it waits, in bytes, counted against the mailbox's bound.
    """

    reply: Reply[T] = field(default_factory=Reply, repr=False)
    size: int = 0


AnyRequest = Request[Any]
"""A request of which the answer matters to nobody here: its reply carries it to who asked."""


class Mailbox(Generic[R]):
    """Requests waiting for one actor, bounded in number and bytes; beyond that callers wait.

    Not a zero-sized channel: there a caller is woken twice, once when its request is taken and
    once when it is answered. Here it sleeps from its question to its answer, which for single
    puts is a third of their cost. The bound is the same back-pressure.
    """

    def __init__(self, *, requests_max: int, bytes_max: int, bell: Bell | None = None) -> None:
        self.bell = bell or Bell()
        self._requests_max = requests_max
        self._bytes_max = bytes_max
        self._waiting: deque[R] = deque()
        self._waiting_bytes = 0
        self._taken: list[R] = []
        self._closed = False
        self._door = trio.StrictFIFOLock()
        self._at_the_door = 0
        self._room = trio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether no more requests can come."""
        return self._closed

    async def ask(self, request: Request[T]) -> T:
        """Hand over ``request`` and return its answer, or raise the error it was answered with.

        Cancelled before an actor took it, the request never happens; cancelled later, it takes
        its course and its answer is lost.
        """
        reply = request.reply
        reply.counted_by(_Tally(1))
        try:
            if self._has_queue:
                await self._wait_for_room()
            self._hand_over(request)
            return await reply.wait()
        except BaseException:  # Cancelled, or KeyboardInterrupt; or the answer is an error
            reply.abandoned = True
            raise

    async def ask_all(self, requests: Sequence[Request[T]]) -> list[outcome.Outcome[T]]:
        """Hand over all of ``requests`` in order; return their outcomes when all are there."""
        tally = _Tally(len(requests))
        try:
            for request in requests:
                request.reply.counted_by(tally)
                if self._has_queue:
                    await self._wait_for_room()
                self._hand_over(request)
            if requests:
                await tally.wait()
            else:
                await trio.lowlevel.checkpoint()
        except BaseException:  # Cancelled, or KeyboardInterrupt
            for request in requests:
                request.reply.abandoned = True
            raise
        return [request.reply.result for request in requests]

    async def post(self, request: AnyRequest) -> None:
        """Hand over ``request`` and return once it waits here; ``reply.wait`` brings its answer.

        Cancelled before, it never happens. From then on it takes its course, whoever gives up.
        """
        request.reply.counted_by(_Tally(1))
        if self._has_queue:
            await self._wait_for_room()
        self._hand_over(request)

    async def _wait_for_room(self) -> None:
        self._at_the_door += 1
        try:
            async with self._door:
                while self._is_full() and not self._closed:
                    await self._room.wait()
        finally:
            self._at_the_door -= 1

    def _hand_over(self, request: AnyRequest) -> None:
        """Synchronous: whoever has found room has it."""
        if self._closed:
            request.reply.fail(PlatformClosedError("the platform is closed"))
            return
        self._waiting.append(request)  # type: ignore[arg-type]  # R is some Request
        self._waiting_bytes += request.size
        self.bell.ring()

    @property
    def _has_queue(self) -> bool:
        return self._at_the_door > 0 or self._is_full()

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._requests_max or self._waiting_bytes >= self._bytes_max

    def take(self, *, requests_max: int, bytes_max: int) -> list[R]:
        """The next requests, at least one if any waits, in the order of asking. Never blocks."""
        self._taken = [request for request in self._taken if not request.reply.settled]
        taken: list[R] = []
        taken_bytes = 0
        while self._waiting and len(taken) < requests_max and taken_bytes < bytes_max:
            if taken and taken_bytes + self._waiting[0].size > bytes_max:
                break
            request = self._waiting.popleft()
            self._waiting_bytes -= request.size
            if not request.reply.abandoned:
                taken.append(request)
                taken_bytes += request.size
        self._taken.extend(taken)
        if not self._is_full():
            self._room.set()
            self._room = trio.Event()
        return taken

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The actor's life: on any way out, every request still owed is failed."""
        try:
            yield
        finally:
            self.close()
            for request in [*self._taken, *self._waiting]:
                request.reply.fail(PlatformClosedError("the platform stopped before it answered"))
            self._waiting.clear()

    def close(self) -> None:
        """No more requests will be taken in; the actor finishes what is waiting, then stops."""
        self._closed = True
        self._room.set()
        self.bell.ring()
