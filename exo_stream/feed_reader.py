"""What reading a feed is like, near or far: iterating, and what counts as finished."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Protocol, Self

import trio

from exo_stream.feed import FeedMessage, SnapshotPage
from exo_stream.model import Batch, Cursor

MESSAGES_PER_CHECKPOINT: Final = 64
"""A reader that works through what is there without awaiting anything still lets others run."""


class FeedReader(ABC):
    """Iterating gives ``Batch`` and, first, the ``SnapshotPage`` values of a snapshot;
    ``messages()`` gives every ``FeedMessage``. A batch is finished when the next one is asked for.
    """

    def __init__(self) -> None:
        self._finished: Cursor | None = None
        self._handed_out: Cursor | None = None
        self._steps = 0

    @abstractmethod
    async def next_message(self) -> FeedMessage:
        """The next message. Asking for it says that the one before is finished."""

    @property
    def cursor(self) -> Cursor | None:
        """The resolved start, then the last message that is finished: resume after it.

        None while a snapshot is not whole: whoever loses it has nothing to resume from.
        """
        return self._finished

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch | SnapshotPage:
        return await next_with_entries(self)

    def messages(self) -> Messages:
        """All messages: batches and pages, and ``CaughtUp``, ``Progress`` and the rest."""
        return Messages(self)

    def _finish(self) -> None:
        """What was handed out before is finished."""
        if self._handed_out is not None:
            self._finished, self._handed_out = self._handed_out, None

    def _hand_out(self, message: FeedMessage) -> None:
        """A page of a snapshot has no cursor: half a snapshot cannot be resumed from."""
        if not isinstance(message, SnapshotPage):
            self._handed_out = getattr(message, "cursor", None)

    async def _take_a_breath(self) -> None:
        self._steps += 1
        if self._steps % MESSAGES_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()


class Told(Protocol):
    """Whatever has a next message: a feed, or the feed of a namespace."""

    async def next_message(self) -> FeedMessage: ...


async def next_with_entries(feed: Told) -> Batch | SnapshotPage:
    """The next message that has entries; those before it are finished."""
    while True:
        message = await feed.next_message()
        if isinstance(message, Batch | SnapshotPage):
            return message


class Messages:
    """Every message of a feed, as an async iterator."""

    def __init__(self, feed: Told) -> None:
        self._feed = feed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeedMessage:
        return await self._feed.next_message()
