"""The events of a server's canonical store: in the order of their ids, and on as new ones come."""

from __future__ import annotations

from collections import deque
from typing import Final, Self

import trio

from exo_stream.canonical.events import EVERY_EVENT, Event
from exo_stream.client.call import Call
from exo_stream.client.link import Link
from exo_stream.client.remote_feed import RemoteFeed
from exo_stream.errors import InvalidRequestError, RemoteProtocolError
from exo_stream.model import SEQUENCE_MAX, Batch
from exo_stream.protocol import canonical_messages as c
from exo_stream.starts import Now

PAGE_EVENTS_MAX: Final = 4_096
"""The server gives fewer if they are large."""


async def read_events(link: Link, first: int, count: int) -> c.EventsRead:
    """Some events from ``first`` on, and which id is the next to be given away."""
    reply = await link.ask(Call(lambda id_, _: c.ReadEvents(id_, first, count)))
    assert isinstance(reply, c.EventsRead), reply
    if reply.first != first or len(reply.events) > count:
        raise RemoteProtocolError("other events than were asked for")
    return reply


class RemoteEventIter:
    """The events with ``from <= id < to`` in ascending order, each once.

    Without ``to`` it ends with the newest event of the moment it was made, or, when it follows,
    never. It holds nothing at the server but, while it waits, a subscription; over lost
    connections it goes on where it was. Cancelled, it has not moved.
    """

    def __init__(self, link: Link, first: int, end: int, *, follow: bool = False) -> None:
        self._link = link
        self._next = first
        self._end = end
        self._follow = follow
        self._page: deque[bytes] = deque()

    @property
    def next_event_id(self) -> int:
        """The id of the event that comes next: resume from there."""
        return self._next

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self) -> Event | None:
        """The next event, None at the end."""
        await trio.lowlevel.checkpoint()
        if not await self._turn():
            return None
        event_id = self._next
        self._next += 1
        return event_id, self._page.popleft()

    async def next_batch(self, events_max: int) -> list[Event]:
        """Up to ``events_max`` events that are there already, at least one; none at the end.

        When it follows, it waits for the first.
        """
        if type(events_max) is not int or events_max < 1:
            raise InvalidRequestError("a batch has at least one event")
        await trio.lowlevel.checkpoint()
        if not await self._turn():
            return []
        count = min(events_max, len(self._page))
        batch = [(self._next + number, self._page.popleft()) for number in range(count)]
        self._next += count
        return batch

    async def _turn(self) -> bool:
        """Have at least one event in hand; False at the end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._page:
            if self._next >= self._end:
                return False
            if await self._read():
                continue
            if not self._follow:
                return False
            await self._wait()
        return True

    async def _read(self) -> bool:
        count = min(PAGE_EVENTS_MAX, self._end - self._next)
        if self._next > SEQUENCE_MAX:
            await trio.lowlevel.checkpoint()
            return False
        reply = await read_events(self._link, self._next, count)
        if not reply.events and reply.next_event_id > self._next:
            raise RemoteProtocolError(f"event {self._next} is left out")
        self._page.extend(reply.events)
        return bool(self._page)

    async def _wait(self) -> None:
        """Sleep until another event is visible; it looks once more after it has subscribed."""
        feed = RemoteFeed(self._link, EVERY_EVENT, Now(), slow="catch_up", heartbeat_seconds=None)
        async with feed:
            while not await self._read():
                while not isinstance(await feed.next_message(), Batch):
                    pass
