"""The feed of an embedded subscriber: batches as an async iterator, inside one ``async with``."""

from __future__ import annotations

from collections import deque
from typing import Self

import trio

from exo_stream.feed import FeedMessage
from exo_stream.feed_reader import FeedReader
from exo_stream.model import Batch
from exo_stream.selectors import AnySelector
from exo_stream.starts import FromSnapshot, Start
from exo_stream.subscription import Delivered, Sources, Subscription


class LocalFeed(FeedReader):
    """Every matching batch from a start on, in order, until its block is left.

    Iterating gives ``Batch`` and, first, the ``SnapshotPage`` values of a snapshot;
    ``messages()`` gives every ``FeedMessage``. A batch is finished when the next one is asked
    for: ``cursor`` is where to resume. Outside its block it gives nothing: it has no start yet,
    or has let go of its snapshot.
    """

    def __init__(self, sources: Sources, selector: AnySelector, start: Start) -> None:
        super().__init__()
        self._log_id = sources.log_id
        self._subscription = Subscription(sources, selector)
        self._start = start
        self._page: deque[Batch] = deque()
        self._inside = False

    async def __aenter__(self) -> Self:
        resolved = await self._subscription.start(self._start)
        if not isinstance(self._start, FromSnapshot):
            self._finished = resolved
        self._inside = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._inside = False
        self._subscription.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def next_message(self) -> FeedMessage:
        """The next message. Asking for it says that the one before is finished."""
        assert self._inside, "a feed is used inside its async with block"
        self._finish()
        if self._page:
            await self._take_a_breath()
        while not self._page:
            message = await self._subscription.pull()
            if not isinstance(message, Delivered):
                self._hand_out(message)
                return message  # noqa: ASYNC910  # the pull is one
            self._page.extend(
                Batch(b.sequence, b.committed_at, b.entries, self._log_id) for b in message.batches
            )
        batch = self._page.popleft()
        self._hand_out(batch)
        return batch  # noqa: ASYNC910  # a breath, or a pull
