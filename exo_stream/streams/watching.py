"""Waiting for a stream to change: a parked place in the index of interest, and a feed of reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, Self

import trio

from exo_stream.errors import PlatformClosedError
from exo_stream.interest import Interest, Parked
from exo_stream.selectors import StreamSelector
from exo_stream.streams.offset import Offset
from exo_stream.streams.values import ReadResult

END_SECONDS_MAX: Final = 1
"""To listen no more takes a step, and waits for nobody."""
PATIENCE_SECONDS_MAX: Final = 3600
"""A follower reads at least so often, whatever it is told."""


class Watch:
    """Told of every batch about one stream from here on: what is appended, closed or deleted.

    Enter it, read, and if that brought nothing ``wait`` and read again: nothing is missed, for it
    listens from before the read. It is only a hint, the read tells.
    """

    def __init__(self, interest: Interest, name: str) -> None:
        self._interest = interest
        self._selector = StreamSelector(name)
        self._parked: Parked | None = None

    def __enter__(self) -> Self:
        self._parked = self._interest.park(self._selector)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._parked is not None
        self._interest.unpark(self._selector, self._parked)
        self._parked = None

    async def begin(self) -> None:
        """Enter it, for a feed."""
        await trio.lowlevel.checkpoint()
        self.__enter__()

    async def end(self) -> None:
        """Leave it, entered or not, for a feed."""
        if self._parked is not None:
            self.__exit__(None, None, None)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait(self) -> None:
        """Return when something happened since the last ``wait``, or since it was entered.

        Raises PlatformClosedError when nothing more will.
        """
        assert self._parked is not None, "a watch is used inside its with block"
        await self._parked.woken.wait()
        if self._interest.closed:
            raise PlatformClosedError("the platform stopped")
        self._interest.unpark(self._selector, self._parked)
        self._parked = self._interest.park(self._selector)


class Hint(Protocol):
    """What tells a feed that there may be something to read: a watch, here or from afar."""

    async def begin(self) -> None: ...

    async def wait(self) -> None: ...

    async def end(self) -> None: ...


Read = Callable[[Offset], Awaitable[ReadResult]]


class StreamFeed:
    """What follows an offset, read by read, then every append as it comes, until the close.

    Iterate it inside its block; ``offset`` is where to go on later. It raises StreamNotFoundError
    or StreamGoneError when the stream ends otherwise. A stream does not expire while it is
    followed, unless at a time that was set.
    """

    def __init__(self, watch: Hint, read: Read, offset: Offset) -> None:
        self._watch = watch
        self._read = read
        self._ended = False
        self.offset = offset

    async def __aenter__(self) -> Self:
        await self._watch.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_SECONDS_MAX):
            await self._watch.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReadResult:
        while not self._ended:
            result = await self._read(self.offset)
            self.offset = result.next_offset
            self._ended = result.closed and result.up_to_date
            if result.stored:
                return result
            if not self._ended:
                with trio.move_on_after(_patience_seconds(result)):
                    await self._watch.wait()
        await trio.lowlevel.checkpoint()
        raise StopAsyncIteration


def _patience_seconds(result: ReadResult) -> float:
    """After how long in which nothing happened a follower reads again, which is an access."""
    ttl_seconds = result.config.ttl_seconds
    return PATIENCE_SECONDS_MAX if ttl_seconds is None else max(0.05, ttl_seconds / 3)
