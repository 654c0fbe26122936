"""The hub: everybody who waits at the end of a stream, read for and written to together.

Each stream with somebody at its end has one task. When something happens to the stream it reads
once for each position its readers stand at, which is one, and tells them all: a seat is written to
without waking its task, a long-poll is woken with its answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final

import trio

from exo_stream.errors import ExoStreamError
from exo_stream.frontier import Frontier
from exo_stream.logger import log
from exo_stream.server.streams.portions import Portion
from exo_stream.streams.offset import Offset
from exo_stream.streams.streams import Streams
from exo_stream.streams.watching import Watch

PORTION_BYTES_MAX: Final = 256 * 1024
"""What is sent to a reader of events at once."""

SEATS_PER_CHECKPOINT: Final = 128
"""How many readers are written to before other tasks get a turn: about a millisecond."""


class Seat:
    """A reader at ``position``, the end of a stream as it knows it.

    ``take`` is given what follows, never blocks, and answers whether the seat goes on behind it.
    Otherwise it is lost, ``woken`` is set, and its reader reads on by itself.
    """

    __slots__ = ("is_lost", "position", "take", "woken")

    def __init__(self, position: int, take: Callable[[Portion], bool], woken: trio.Event) -> None:
        self.position = position
        self.take = take
        self.woken = woken
        self.is_lost = False

    def lose(self) -> None:
        """Have its reader read on by itself."""
        self.is_lost = True
        self.woken.set()


class _Channel:
    """The readers at the end of one stream."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.seats: dict[Seat, None] = {}
        self.scope = trio.CancelScope()
        self.is_stale = False
        self.waiting = trio.CancelScope()

    def lose(self, seat: Seat) -> None:
        """Take a seat away from somebody who still has it."""
        del self.seats[seat]
        seat.lose()

    def refresh(self) -> None:
        """Have the stream read, though nothing may have happened to it."""
        self.is_stale = True
        self.waiting.cancel()


class Hub:
    """The channels of one port; their tasks run in ``nursery``."""

    def __init__(
        self,
        streams: Streams,
        frontier: Frontier,
        nursery: trio.Nursery,
        clock: Callable[[], int],
    ) -> None:
        self._streams = streams
        self._frontier = frontier
        self._nursery = nursery
        self._clock = clock
        self._channels: dict[str, _Channel] = {}

    def __len__(self) -> int:
        return sum(len(channel.seats) for channel in self._channels.values())

    def sit(self, name: str, sequence: int, seat: Seat) -> None:
        """Tell the seat what follows its position, read when the log was at ``sequence``."""
        channel = self._channels.get(name)
        if channel is None:
            # It listens from now on, not from when its task begins.
            channel = self._channels[name] = _Channel(self._streams.watch(name).__enter__())
            self._nursery.start_soon(self._run, name, channel)
        channel.seats[seat] = None
        if sequence < self._frontier.visible:
            channel.refresh()  # something may have been appended since it was read

    def leave(self, name: str, seat: Seat) -> None:
        """Give a seat up, lost already or not, taken or not."""
        channel = self._channels.get(name)
        if channel is not None:
            channel.seats.pop(seat, None)
            if not channel.seats:
                channel.scope.cancel()
                del self._channels[name]

    async def _run(self, name: str, channel: _Channel) -> None:  # noqa: ASYNC910 - its first line is one
        """Tell the readers of one stream what happens to it, until the last has left."""
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            with channel.scope:
                await self._follow(name, channel)
        except ExoStreamError as error:
            # Each of them meets the same trouble, or none, when it reads by itself.
            log.debug("readers sent away", stream=name, code=error.code)
        except Exception:
            # The barrier: a bug met by one stream is not one of everybody's connection.
            log.exception("channel failed", stream=name)
        finally:
            channel.watch.__exit__(None, None, None)
            if self._channels.get(name) is channel:
                del self._channels[name]
            for seat in list(channel.seats):
                channel.lose(seat)

    async def _follow(self, name: str, channel: _Channel) -> None:
        while True:
            with trio.CancelScope() as channel.waiting:
                if not channel.is_stale:
                    await channel.watch.wait()
            channel.is_stale = False
            await self._tell(name, channel)

    async def _tell(self, name: str, channel: _Channel) -> None:
        """Read what follows each position that somebody stands at, and hand it to them."""
        await trio.lowlevel.checkpoint_if_cancelled()
        waiting: defaultdict[int, list[Seat]] = defaultdict(list)
        for seat in channel.seats:
            waiting[seat.position].append(seat)
        for position, seats in waiting.items():
            result = await self._streams.read(
                name, Offset.at(position), bytes_max=PORTION_BYTES_MAX
            )
            portion = Portion(result, self._clock())
            if not portion.has_news:
                continue
            for number, seat in enumerate(seats, start=1):
                if seat in channel.seats:  # it may have left at a checkpoint
                    if seat.take(portion):
                        seat.position = portion.next_offset.position
                    else:
                        channel.lose(seat)
                if number % SEATS_PER_CHECKPOINT == 0:
                    await trio.lowlevel.checkpoint()
            if not result.up_to_date:
                channel.refresh()
