"""The feed of an embedded subscriber: batches as an async iterator, inside one ``async with``."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Final, Self

import trio

from exo_stream.feed import FeedMessage, SnapshotPage
from exo_stream.model import Batch, Cursor
from exo_stream.selectors import AnySelector
from exo_stream.starts import FromSnapshot, Start
from exo_stream.subscription import Delivered, Sources, Subscription

BATCHES_PER_CHECKPOINT: Final = 64
"""A reader that works through a page without awaiting anything still lets others run."""


class LocalFeed:
    """Every matching batch from a start on, in order, until its block is left.

    Iterating gives ``Batch`` and, first, the ``SnapshotPage`` values of a snapshot;
    ``messages()`` gives every ``FeedMessage``. A batch is finished when the next one is asked
    for: ``cursor`` is where to resume. Outside its block it gives nothing: it has no start yet,
    or has let go of its snapshot.
    """

    def __init__(self, sources: Sources, selector: AnySelector, start: Start) -> None:
        self._log_id = sources.log_id
        self._subscription = Subscription(sources, selector)
        self._start = start
        self._page: deque[Batch] = deque()
        self._handed_out: Cursor | None = None
        self._finished: Cursor | None = None
        self._inside = False
        self._steps = 0

    async def __aenter__(self) -> Self:
        resolved = await self._subscription.start(self._start)
        if not isinstance(self._start, FromSnapshot):
            self._finished = resolved
        self._inside = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inside = False
        self._subscription.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def cursor(self) -> Cursor | None:
        """The resolved start, then the last message that is finished: resume after it.

        None while a snapshot is not whole: whoever loses it has nothing to resume from.
        """
        return self._finished

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch | SnapshotPage:
        while True:
            message = await self.next_message()
            if isinstance(message, Batch | SnapshotPage):
                return message

    def messages(self) -> _Messages:
        """All messages: besides batches and pages ``CaughtUp``, ``Progress`` and others."""
        return _Messages(self)

    async def next_message(self) -> FeedMessage:
        """The next message. Asking for it says that the one before is finished."""
        assert self._inside, "a feed is used inside its async with block"
        if self._handed_out is not None:
            self._finished, self._handed_out = self._handed_out, None
        if self._page:
            await self._take_a_breath()
        while not self._page:
            message = await self._subscription.pull()
            if not isinstance(message, Delivered):
                if not isinstance(message, SnapshotPage):
                    self._handed_out = getattr(message, "cursor", None)
                return message  # noqa: ASYNC910  # the pull is one
            self._page.extend(
                Batch(b.sequence, b.committed_at, b.entries, self._log_id) for b in message.batches
            )
        batch = self._page.popleft()
        self._handed_out = batch.cursor
        return batch  # noqa: ASYNC910  # a breath, or a pull

    async def _take_a_breath(self) -> None:
        self._steps += 1
        if self._steps % BATCHES_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()


class _Messages:
    def __init__(self, feed: LocalFeed) -> None:
        self._feed = feed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeedMessage:
        return await self._feed.next_message()
