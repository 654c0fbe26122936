"""The feed of a client: what a server delivers, over as many connections as it takes."""

from __future__ import annotations

from enum import Enum
from typing import Self

import trio

from exo_stream.client.inbox import Inbox
from exo_stream.client.link import Link
from exo_stream.errors import ExoStreamError
from exo_stream.feed import FeedMessage, SnapshotPage
from exo_stream.feed_reader import FeedReader
from exo_stream.protocol import messages as m
from exo_stream.selectors import AnySelector
from exo_stream.starts import After, Start


class _Phase(Enum):
    """How a feed stands to the server."""

    WANTED = "not subscribed; it will be as soon as there is a connection"
    ASKED = "subscribe was sent"
    LIVE = "subscribed"
    PAUSED = "not subscribed; it will be when its user has taken most of what is here"
    OVER = "failed or closed"


class RemoteFeed(FeedReader):
    """Every matching batch from a start on, in order, until its block is left.

    Iterating gives ``Batch`` and, first, the ``SnapshotPage`` values of a snapshot;
    ``messages()`` gives every ``FeedMessage``. A batch is finished when the next one is asked
    for: ``cursor`` is where to resume in another process. In this one, a lost connection costs
    neither a gap nor a duplicate; only a snapshot that was not whole begins again, with a new
    ``SnapshotBegin``.

    When its user is slow, it stops taking and resumes later, so that it holds up nobody else.
    """

    def __init__(
        self,
        link: Link,
        selector: AnySelector,
        start: Start,
        *,
        slow: str,
        heartbeat_seconds: int | None,
    ) -> None:
        super().__init__()
        self._link = link
        self._selector = selector
        self._slow = slow
        self._heartbeat_seconds = heartbeat_seconds
        self._inbox = Inbox(start, batch_bytes_max=link.part_bytes_max)
        self._phase = _Phase.WANTED
        self._id = 0
        self._error: ExoStreamError | None = None
        self._changed = trio.Event()
        self._taken = trio.Event()
        self._begun = False

    # --- for its user ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._link.follow(self)
        try:
            while not self._begun:
                self._raise_if_over()
                await self._wait_changed()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def next_message(self) -> FeedMessage:
        """The next message. Asking for it says that the one before is finished."""
        assert self._begun, "a feed is used inside its async with block"
        self._finish()
        await self._take_a_breath()
        while not len(self._inbox):
            self._raise_if_over()
            await self._wait_changed()
        message = self._inbox.pop()
        self._after_taking(message)
        return message

    def _after_taking(self, message: FeedMessage) -> None:
        if isinstance(message, SnapshotPage) and self._phase is _Phase.LIVE:
            self._say(m.SnapshotNext(self._id))
        self._hand_out(message)
        self._taken.set()
        if self._phase is _Phase.PAUSED and self._inbox.held_bytes <= self._bytes_max // 4:
            self._phase = _Phase.WANTED
            self._link.want(self)

    # --- for its connection ---------------------------------------------------------------------

    def subscribe(self, id_: int) -> m.Subscribe:
        """The request for what it has not received yet; ``id_`` is its id from here on."""
        assert self._phase is _Phase.WANTED, self._phase
        self._phase = _Phase.ASKED
        self._id = id_
        return m.Subscribe(
            id_, self._inbox.resume, self._selector, self._slow, self._heartbeat_seconds
        )

    def subscribed(self, message: m.Subscribed) -> None:
        """The server has resolved its start."""
        if message.id == self._id and self._phase is _Phase.ASKED:
            self._phase = _Phase.LIVE
            self._inbox.subscribed(message.cursor)
            if not self._begun and isinstance(self._inbox.resume, After):
                self._finished = message.cursor
            self._begun = True
            self._changed.set()

    def deliver(self, message: m.Delivery, frame_bytes: int) -> None:
        """Something came under an id it has, or had."""
        if message.id == self._id and self._phase is _Phase.LIVE:
            self._inbox.push(message, frame_bytes)
            self._changed.set()

    def failed(self, id_: int, error: ExoStreamError) -> None:
        """The server has ended a subscription it has, or had."""
        if id_ == self._id and self._phase in {_Phase.ASKED, _Phase.LIVE}:
            self._link.forget(self)
            self.fail(error)

    def lost(self) -> None:
        """The connection is over."""
        self._inbox.lost()
        if self._phase in {_Phase.ASKED, _Phase.LIVE}:
            self._phase = _Phase.WANTED
            self._link.want(self)

    def fail(self, error: ExoStreamError) -> None:
        """There will be no more than is here."""
        self._phase = _Phase.OVER
        self._error = error
        self._changed.set()

    @property
    def is_full(self) -> bool:
        """Whether it holds more than it should, and there is something to be done about it.

        Of a snapshot the server sends a few pages ahead and no more: that need not be waited for.
        """
        return (
            self._phase is _Phase.LIVE
            and self._inbox.held_bytes > self._bytes_max
            and isinstance(self._inbox.resume, After)
        )

    async def make_room(self, seconds: float) -> None:
        """Wait so long for its user to take something, else stop the subscription."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.move_on_after(seconds):
            while self.is_full:
                self._taken = trio.Event()
                await self._taken.wait()
        if self.is_full:
            self._phase = _Phase.PAUSED
            self._say(m.Unsubscribe(self._id))

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _bytes_max(self) -> int:
        return self._link.patience.feed_bytes_max

    def _close(self) -> None:
        self._link.forget(self)
        if self._phase in {_Phase.ASKED, _Phase.LIVE}:
            self._say(m.Unsubscribe(self._id))
        self._phase = _Phase.OVER

    def _say(self, message: m.Message) -> None:
        if self._link.connection is not None:
            self._link.connection.note(message)

    def _raise_if_over(self) -> None:
        if self._error is not None:
            raise self._error.again()

    async def _wait_changed(self) -> None:
        self._changed = trio.Event()
        await self._changed.wait()
