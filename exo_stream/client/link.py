"""What keeps a client connected: one connection at a time, and everything that must outlive it."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_bytes
from typing import Final

import trio

from exo_stream.actors.mailbox import Bell
from exo_stream.client.address import Address
from exo_stream.client.call import Call, Retry
from exo_stream.client.connection import Connection, Ending, Follower
from exo_stream.client.dialing import Dial, open_websocket
from exo_stream.client.numbering import Numbering
from exo_stream.client.patience import Patience
from exo_stream.errors import (
    LimitExceededError,
    OutcomeUnknownError,
    SnapshotExpiredError,
    UnavailableError,
)
from exo_stream.limits import MIB, Limits
from exo_stream.logger import log
from exo_stream.protocol import messages as m
from exo_stream.protocol.closing import Advice

FRAME_BYTES: Final = MIB
"""Requests that wait are put into one frame until it is about so large."""
MESSAGE_BYTES: Final = 512
"""What a message takes in a frame beside the keys and values of a call, at most."""
NOTES_MAX: Final = 1_024
"""What a frame holds beside requests."""
PRODUCER_ID_BYTES: Final = 16
SNAPSHOT_GONE: Final = "the snapshot went with the connection; begin again"


class Link:
    """The calls and feeds of one client, and the connection that serves them now.

    Lost, it comes back as soon as anybody wants something: calls are sent again, writes under
    the number they had, and feeds go on where they were. When its patience is used up, whoever
    waits is told, and the next call begins anew.
    """

    def __init__(
        self, address: Address, dial: Dial, *, limits: Limits, patience: Patience, name: str
    ) -> None:
        self.patience = patience
        self.limits = limits
        self.connection: Connection | None = None
        self.part_bytes_max = limits.batch_bytes_max
        self.log_id = ""
        self._address = address
        self._dial = dial
        self._name = name
        self._waiting: deque[Call] = deque()
        self._feeds: dict[Follower, None] = {}
        self._unsubscribed: dict[Follower, None] = {}
        self._numbering = Numbering(token_bytes(PRODUCER_ID_BYTES))
        self._bell = Bell()
        self._demand = Bell()
        self._connections = 0
        self._attempt = 0
        self._lost_at = 0.0
        self._finishing = False
        self._closed = False
        self._scope = trio.CancelScope()

    # --- for callers -------------------------------------------------------------------------

    async def ask(self, call: Call) -> m.Reply:
        """The answer to ``call``, however many connections it takes.

        Raises what the server answered; UnavailableError when patience is used up, or
        OutcomeUnknownError for a write that may have arrived. Cancelled, it leaves nothing
        behind but what the server is doing already.
        """
        self._check_open()
        self._put_in_line(call)
        try:
            return await call.wait()
        finally:
            if not call.settled:
                call.abandoned = True
                if call in self._waiting:
                    self._waiting.remove(call)
                    call.release()

    def post(self, call: Call) -> None:
        """Make ``call`` and wait for nothing; a client that is closed does not."""
        if not (self._closed or self._finishing):
            self._put_in_line(call)

    async def pause(self, attempt: int) -> None:
        """Wait before the next attempt of something."""
        # Jitter, not a secret.
        await trio.sleep(self.patience.pause_seconds(attempt, random.random()))  # noqa: S311  jitter

    def follow(self, feed: Follower) -> None:
        """Subscribe ``feed`` now, and again after every loss, until it is forgotten."""
        self._check_open()
        self._feeds[feed] = None
        self.want(feed)

    def want(self, feed: Follower) -> None:
        """Subscribe a feed that is not subscribed, or not any more."""
        self._unsubscribed[feed] = None
        self._ring()

    def forget(self, feed: Follower) -> None:
        """No longer follow."""
        self._feeds.pop(feed, None)
        self._unsubscribed.pop(feed, None)

    def finish(self) -> None:
        """Say goodbye and end, in bounded time."""
        self._finishing = True
        self._scope.deadline = trio.current_time() + 2 * self.limits.close_seconds_max
        self._bell.ring()
        if self.connection is None:
            self._scope.cancel()

    def _put_in_line(self, call: Call) -> None:
        self._waiting.append(call)
        self._ring()

    def _ring(self) -> None:
        """For whoever speaks on a connection, and for whoever would make one."""
        self._bell.ring()
        self._demand.ring()

    def _check_open(self) -> None:
        if self._closed or self._finishing:
            raise UnavailableError("the client is closed")

    # --- the one task -----------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Connect, and stay connected until ``finish``.

        Raises UnavailableError if the first attempt fails, unless patience covers it.
        """
        try:
            with self._scope:
                self._lost_at = trio.current_time()
                while True:
                    try:
                        async with self._connected() as connection:
                            task_status.started()
                            await self._converse(connection)
                        break
                    except UnavailableError:
                        if self.log_id or not self._may_try_first_again():
                            raise
                        await self.pause(self._attempt)
                while not self._finishing:
                    await self._come_back()
        finally:
            self._closed = True
            self._give_up("the client is closed")

    def _may_try_first_again(self) -> bool:
        self._attempt += 1
        return (
            self.patience.covers_first
            and self._attempt < self.patience.attempts_max
            and trio.current_time() - self._lost_at < self.patience.outage_seconds_max
        )

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        async with open_websocket(self._dial, self._address, self.limits) as websocket:
            self._connections += 1
            connection = Connection(
                self._connections,
                websocket,
                self.limits,
                room_seconds_max=self.patience.room_seconds_max,
                ring=self._bell.ring,
                after_frame=self._ring_if_waiting,
            )
            await connection.greet(self._name)
            assert connection.welcome is not None
            self.log_id = connection.welcome.log_id
            self.part_bytes_max = connection.part_bytes_max
            self.connection = connection
            yield connection

    async def _converse(self, connection: Connection) -> None:
        log.debug("server connected", server=str(self._address), connection=connection.number)
        try:
            with connection.hanging_up():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.hear)
                    nursery.start_soon(connection.watch)
                    await self._speak(connection)
        finally:
            self.connection = None
            self._pick_up(connection)
        ending = connection.ending or Ending(Advice.STOP, "closed by the client")
        if self._finishing:
            return
        log.info("connection lost", server=str(self._address), reason=ending.reason)
        self._lost_at = trio.current_time()
        self._attempt = 0 if self._was_worth_it(connection, ending) else self._attempt + 1
        if ending.advice is Advice.STOP:
            self._give_up(ending.reason)
        else:
            self._lose_patience(ending.reason)

    def _was_worth_it(self, connection: Connection, ending: Ending) -> bool:
        """Whether the next connection is a first attempt: this one brought something.

        A server that answers, but breaks the protocol or hangs up as a last resort soon after,
        would do so on every connection.
        """
        if ending.advice is Advice.BACK_OFF:
            return trio.current_time() - connection.begun_at >= self.patience.outage_seconds_max
        return connection.answered

    async def _come_back(self) -> None:
        """One more attempt, as soon as anybody wants it, after a pause."""
        if not (self._waiting or self._feeds):
            await self._demand.wait()
            self._lost_at = trio.current_time()
            return
        await self.pause(self._attempt)
        try:
            async with self._connected() as connection:
                await self._converse(connection)
        except UnavailableError as error:
            self._attempt += 1
            log.debug("attempt failed", server=str(self._address), reason=str(error))
            self._lose_patience(str(error))

    def _lose_patience(self, reason: str) -> None:
        outage_seconds = trio.current_time() - self._lost_at
        if (
            self._attempt >= self.patience.attempts_max
            or outage_seconds >= self.patience.outage_seconds_max
        ):
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        """Tell everybody who waits; each gets an error object of its own."""
        self._attempt = 0
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            self._disappoint(call, reason)
        feeds, self._feeds = self._feeds, {}
        self._unsubscribed.clear()
        for feed in feeds:
            feed.fail(UnavailableError(reason))

    def _disappoint(self, call: Call, reason: str) -> None:
        if call.sent and call.retry in {Retry.NUMBERED, Retry.ONCE}:
            call.fail(OutcomeUnknownError(f"the write may have taken effect: {reason}"))
        else:
            call.fail(UnavailableError(reason))

    # --- one connection -----------------------------------------------------------------------

    async def _speak(self, connection: Connection) -> None:
        while True:
            messages = self._next_messages(connection)
            if messages:
                await connection.speak(messages)
            elif self._finishing:
                await connection.close()
                await trio.lowlevel.checkpoint()
            else:
                await self._bell.wait()

    def _next_messages(self, connection: Connection) -> list[m.Message]:
        """All that can be said now, in one frame."""
        messages, connection.notes = connection.notes[:NOTES_MAX], connection.notes[NOTES_MAX:]
        if connection.leaving:
            return messages
        room = connection.room
        bytes_max = connection.announced("message_bytes_max", self.limits.message_bytes_max)
        while self._unsubscribed and room > 0:
            feed = next(iter(self._unsubscribed))
            del self._unsubscribed[feed]
            id_ = connection.next_id()
            connection.feeds[id_] = feed
            messages.append(feed.subscribe(id_))
            room -= 1
        size = MESSAGE_BYTES * len(messages)
        bound = bytes_max
        while self._waiting and room > 0:
            # The first call may need all that the server takes; those behind it fill a frame up.
            if size and size + MESSAGE_BYTES + self._waiting[0].size > bound:
                break
            if self._waiting[0].needs_number and self._numbering.is_exhausted:
                break
            call = self._waiting.popleft()
            request = self._request(call, connection, bytes_max)
            if request is not None:
                messages.append(request)
                size += MESSAGE_BYTES + call.size
                bound = min(FRAME_BYTES, bytes_max)
                room -= 1
        return messages

    def _request(self, call: Call, connection: Connection, bytes_max: int) -> m.Request | None:
        """What to send for ``call``; None if it has failed before it could be sent."""
        if call.retry is Retry.NEVER and call.connection != connection.number:
            call.fail(SnapshotExpiredError(SNAPSHOT_GONE))
            return None
        if MESSAGE_BYTES + call.size > bytes_max:
            size = MESSAGE_BYTES + call.size
            call.fail(LimitExceededError("message_bytes_max", bytes_max, size))
            return None
        if call.needs_number and connection.knows_producers:
            call.number(self._numbering)
        call.sent = True
        call.connection = connection.number
        id_ = connection.next_id()
        connection.calls[id_] = call
        return call.build(id_, call.producer)

    def _ring_if_waiting(self) -> None:
        # An answer makes room for a request, and may make a number free.
        if self._waiting or self._unsubscribed:
            self._bell.ring()

    def _pick_up(self, connection: Connection) -> None:
        """Take over from a connection that is lost what must go on."""
        reason = connection.ending.reason if connection.ending else "the connection was lost"
        again: list[Call] = []
        for call in connection.calls.values():
            call.losses += 1
            if call.abandoned:
                call.release()
            elif call.retry is Retry.NEVER:
                call.fail(SnapshotExpiredError(SNAPSHOT_GONE))
            elif call.retry is Retry.ONCE or call.needs_number:
                # Of a server that does not know producers: sent again, it might be written twice.
                self._disappoint(call, reason)
            elif call.losses >= self.patience.attempts_max:
                # It may be what kills them, while others are answered.
                self._disappoint(call, f"connection after connection, {call.losses} now: {reason}")
            else:
                call.assembly = None
                again.append(call)
        self._waiting.extendleft(reversed(again))
        for feed in self._feeds:
            feed.lost()
