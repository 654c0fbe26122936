"""Following streams over one connection: events of what is there, then of what comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from exo_stream.protocol.streams.events import COMMENT, gone_event
from exo_stream.server.request import BodyWriter
from exo_stream.server.streams.hub import PORTION_BYTES_MAX, Hub, Seat
from exo_stream.server.streams.portions import Portion
from exo_stream.server.streams.service import Service
from exo_stream.stream_errors import OffsetEvictedError, StreamGoneError, StreamNotFoundError
from exo_stream.streams.offset import Offset, Where
from exo_stream.streams.values import ReadResult

SEAT_BYTES_MAX: Final = 65_536
"""A larger event is sent by each reader itself: what the kernel does not take of it is held."""

GONE: Final = (StreamNotFoundError, StreamGoneError, OffsetEvictedError)
"""What ends a reader's stream while it follows."""


class _Place:
    """A stream of a connection, and where its reader stands in it.

    What was read is not kept once it has been sent: an idle reader holds nothing of its stream.
    """

    __slots__ = ("is_end", "is_new", "is_seated", "is_up_to_date", "name", "seat", "sequence")

    def __init__(self, name: str, seat: Seat) -> None:
        self.name = name
        self.seat = seat
        self.is_new = True
        self.is_seated = False
        self.is_end = False
        self.is_up_to_date = False
        self.sequence = 0

    def moved(self, portion: Portion, seat: Seat) -> None:
        """Stand behind what was just sent."""
        self.seat = seat
        self.is_new = False
        self.is_seated = False
        self.is_end = portion.is_end
        self.is_up_to_date = portion.result.up_to_date
        self.sequence = portion.result.sequence


class Following:
    """The events of one connection. It ends when its streams do, or when its time is over.

    ``ahead`` is a cursor of the client's that is later than ours, if it has one. Where a
    connection ``is_labelled``, each event tells which stream it is of.
    """

    def __init__(self, service: Service, hub: Hub, ahead: str, *, is_labelled: bool) -> None:
        self._service = service
        self._hub = hub
        self._ahead = ahead
        self._is_labelled = is_labelled
        self._woken = trio.Event()

    async def start(self, name: str, offset: Where) -> ReadResult:
        """Where a reader who asks for ``offset`` begins. Raises what reading there raises."""
        return await self._service.streams.read(name, offset, bytes_max=1)

    async def run(self, starts: Sequence[tuple[str, Offset]], writer: BodyWriter) -> None:
        """Send what follows these offsets, first what is there, then what comes."""
        await trio.lowlevel.checkpoint_if_cancelled()
        deadline = trio.current_time() + self._service.settings.sse_seconds
        everything = places = [
            _Place(name, self._seat(name, offset.position, writer)) for name, offset in starts
        ]
        try:
            while places := [place for place in places if not place.is_end]:
                is_at_end = all(place.is_seated for place in places)
                if is_at_end and not await self._rest(places, writer, deadline):
                    return
                for place in places:
                    if not place.is_seated:
                        await self._advance(place, writer)
        finally:
            for place in everything:
                self._hub.leave(place.name, place.seat)

    def _seat(self, name: str, position: int, writer: BodyWriter) -> Seat:
        take = partial(_take, writer, self._ahead, self._label(name))
        return Seat(position, take, self._woken)

    def _label(self, name: str) -> str:
        return name if self._is_labelled else ""

    async def _advance(self, place: _Place, writer: BodyWriter) -> None:
        """Take a seat at the stream's end, or send one portion more of what is before it."""
        if place.is_up_to_date and not place.seat.is_lost:
            self._hub.sit(place.name, place.sequence, place.seat)
            place.is_seated = True
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        with self._service.port.budget.open_share() as share:
            await share.wait_take(PORTION_BYTES_MAX)
            try:
                portion = await self._read(place.name, place.seat.position)
            except GONE:
                await self._end(place, writer)
                return
            # At first an event says where the reader stands, whether or not there is anything.
            if portion.has_event or place.is_new:
                await writer.send(portion.event(self._ahead, self._label(place.name)))
            position = portion.next_offset.position
            place.moved(portion, self._seat(place.name, position, writer))

    async def _read(self, name: str, position: int) -> Portion:
        streams, offset = self._service.streams, Offset.at(position)
        result = await streams.read(name, offset, bytes_max=PORTION_BYTES_MAX)
        return Portion(result, self._service.clock())

    async def _rest(self, places: Sequence[_Place], writer: BodyWriter, deadline: float) -> bool:
        """Leave the work to the hub until a seat is lost, or until it is time to say that we are
        here; False if the connection ends.
        """
        service = self._service
        quiet = trio.current_time() + service.settings.keep_alive_seconds
        scope = trio.CancelScope(deadline=min(quiet, deadline))
        with scope, service.port.told_to_leave(scope.cancel):
            await self._woken.wait()
        if service.port.draining or trio.current_time() >= deadline:
            return False
        if scope.cancelled_caught:
            await writer.send(COMMENT)
            for place in places:
                # Whoever follows a stream keeps it alive, and learns so that it is there.
                place.is_seated = await self._touch(place)
        self._woken = trio.Event()
        for place in places:
            place.seat.woken = self._woken
            place.is_seated &= not place.seat.is_lost
        return True

    async def _touch(self, place: _Place) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await self._service.streams.read(
                place.name, Offset.at(place.seat.position), bytes_max=1
            )
        except GONE:
            place.seat.lose()
        return not place.seat.is_lost

    async def _end(self, place: _Place, writer: BodyWriter) -> None:
        """Say that there will be no more of a stream, where others go on; else just end."""
        place.is_end = True
        if self._is_labelled:
            await writer.send(gone_event(json.dumps(place.name)))
        else:
            await trio.lowlevel.checkpoint_if_cancelled()


def _take(writer: BodyWriter, ahead: str, label: str, portion: Portion) -> bool:
    """Write what came to a reader who waits for it, if it can be done without waiting."""
    if portion.is_end:
        return False
    if not portion.has_event:
        return True
    chunk = portion.chunk(ahead, label)
    return len(chunk) <= SEAT_BYTES_MAX and writer.try_send_encoded(
        chunk, portion.event(ahead, label)
    )
