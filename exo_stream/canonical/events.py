"""Events in the order of their ids: from any id at the same cost, and on as new ones come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self

import trio

from exo_stream.actors.reads import Reads
from exo_stream.canonical.changes import EVENT_ID_BYTES
from exo_stream.canonical.record import RECORD_KEY, read_record
from exo_stream.canonical.state import READS_PER_CHECKPOINT
from exo_stream.errors import EventGapError, InvalidRequestError, PlatformClosedError
from exo_stream.model import SEQUENCE_MAX, Keyspace, Row, row_key
from exo_stream.selectors import Selector
from exo_stream.storage.engine import Version
from exo_stream.subscription import Sources

Event = tuple[int, bytes]
"""An event's id, and its bytes."""

EVERY_EVENT: Final = Selector(keyspace=Keyspace.EVENT)

_EVENT: Final = int(Keyspace.EVENT)
_END: Final = row_key(Keyspace.EVENT + 1, b"")
_RECORD: Final = row_key(Keyspace.CANONICAL, RECORD_KEY)


def event_row_key(event_id: int) -> bytes:
    """Where an event stands in the table."""
    return row_key(_EVENT, event_id.to_bytes(EVENT_ID_BYTES, "big"))


def check_ids(first: int, end: int | None) -> None:
    """Raise InvalidRequestError unless these are event ids; ``end`` may be None, for no end."""
    for bound in (first, 0 if end is None else end):
        if type(bound) is not int or not 0 <= bound <= SEQUENCE_MAX:
            raise InvalidRequestError("an event id is an unsigned 64-bit integer")


ReadVersion = Callable[[], Version]
"""Each read takes the Version of its moment: a Version that is not held is gone by the next one."""


async def event_rows(
    reads: Reads, version: ReadVersion, first: int, count: int, *, bytes_max: int | None = None
) -> Sequence[Row]:
    """The rows of up to ``count`` events from ``first`` on, fewer before a gap or if they are
    large; none if there is none yet. Raises EventGapError if ``first`` is missing.
    """
    until = first + count
    start, end = event_row_key(first), _END if until > SEQUENCE_MAX else event_row_key(until)
    rows = await _page(reads, version, (start, end), count, bytes_max)
    whole = 0
    if rows and rows[0].key == start:
        whole = len(rows)
        while rows[whole - 1].key != event_row_key(first + whole - 1):
            whole -= 1  # ids only grow, so those before the gap are the last that stand right
    if not whole:
        await _check_no_gap(reads, version, first)
    return rows[:whole]


async def _page(
    reads: Reads,
    version: ReadVersion,
    span: tuple[bytes, bytes],
    rows_max: int,
    bytes_max: int | None,
) -> list[Row]:
    """The rows of the first page that has any; none if no page has."""
    start, end = span
    while True:
        page = await reads.page(
            version(), start, end, rows_max=rows_max, bytes_max=bytes_max, forward=True
        )
        if page.rows or page.resume is None:
            return page.rows
        start = page.resume


async def _check_no_gap(reads: Reads, version: ReadVersion, first: int) -> None:
    """Raise EventGapError if ``first``, which was not there, should have been."""
    [record] = await reads.rows(version(), [_RECORD])
    known = read_record(record).next_event_id
    # After the record: what that speaks of is visible by now, and so is what came meanwhile.
    rows = await _page(reads, version, (event_row_key(first), _END), 1, None)
    if rows:
        known = int.from_bytes(rows[0].key[1:], "big")
    if known > first:
        raise EventGapError(first, known - first)


class EventIter:
    """The events with ``from <= id < to`` in ascending order, each once.

    Without ``to`` it ends with the newest event of the moment it was made, or, when it follows,
    never: then it waits for the next event. It holds no snapshot, since an event never changes,
    so it may be read as slowly as one likes. Cancelled, it has not moved. Where events are
    missing it raises EventGapError, after those before them, and again if asked again.
    """

    def __init__(
        self,
        sources: Sources,
        version: Callable[[], Version],
        first: int,
        end: int,
        *,
        follow: bool = False,
    ) -> None:
        self._sources = sources
        self._version = version
        self._next = first
        self._end = end
        self._follow = follow
        self._page: Iterator[Row] = iter(())
        self._left = 0
        """Events of the page that were not handed out yet."""
        self._steps = 0

    @property
    def next_event_id(self) -> int:
        """The id of the event that comes next: resume from there."""
        return self._next

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        self._steps += 1
        if self._left and self._steps % READS_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint_if_cancelled()
        elif not await self._turn():
            raise StopAsyncIteration
        row = next(self._page)
        self._left -= 1
        event_id = self._next
        self._next = event_id + 1
        assert row[2] is not None
        return event_id, row[2]

    async def next(self) -> Event | None:
        """The next event, None at the end."""
        try:
            return await anext(self)
        except StopAsyncIteration:
            return None  # noqa: ASYNC910  # that was one

    async def next_batch(self, events_max: int) -> list[Event]:
        """Up to ``events_max`` events that are there already, at least one; none at the end.

        When it follows, it waits for the first.
        """
        if type(events_max) is not int or events_max < 1:
            raise InvalidRequestError("a batch has at least one event")
        if not await self._turn():
            return []
        count = min(events_max, self._left)
        first = self._next
        batch = [
            (number, row[2])
            for number, row in zip(range(first, first + count), self._page, strict=False)
            if row[2] is not None
        ]
        self._left -= count
        self._next += count
        return batch

    async def _turn(self) -> bool:
        """Let others run, and have at least one event in hand; False at the end."""
        await trio.lowlevel.checkpoint()
        while not self._left:
            if self._next >= self._end:
                return False
            if await self._read():
                continue
            if not self._follow:
                return False
            await self._wait()
        return True

    async def _read(self) -> bool:
        """Read a page, whole or not at all; whether it holds anything."""
        # No further than a page goes: a page copies what memory has of all that it may look at.
        wanted = min(self._sources.limits.page_rows_max, self._end - self._next)
        rows = await event_rows(self._sources.reads, self._version, self._next, wanted)
        self._page = iter(rows)
        self._left = len(rows)
        return bool(rows)

    async def _wait(self) -> None:
        """Sleep until another event is visible.

        It looks once more after it has said that it wants to be woken: what became visible
        between its last look and that would wake nobody.
        """
        interest = self._sources.interest
        parked = interest.park(EVERY_EVENT)
        try:
            if not await self._read() and not interest.closed:
                await parked.woken.wait()
        finally:
            interest.unpark(EVERY_EVENT, parked)
        if interest.closed and not self._left:
            raise PlatformClosedError("the platform stopped")
