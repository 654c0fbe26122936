"""Following the log: a position, and the patience to wait for what comes after it.

Nothing runs on a subscriber's behalf and nothing is queued for it. Each step is taken by whoever
pulls, when it pulls: a page from the tail, from the log when it has fallen behind, or a sleep in
the index of interest when it has caught up. Replay and live are the same loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from exo_stream.actors.reads import Reads
from exo_stream.errors import (
    BatchEvictedError,
    CursorAheadError,
    InvalidRequestError,
    LogMismatchError,
    PlatformClosedError,
)
from exo_stream.feed import (
    CaughtUp,
    FellBehind,
    Heartbeat,
    Progress,
    SnapshotBegin,
    SnapshotEnd,
    SnapshotPage,
)
from exo_stream.frontier import Frontier
from exo_stream.interest import AnySeat, B, Encoder, Interest, Seat
from exo_stream.limits import Limits
from exo_stream.matchers import Matcher, RowRange
from exo_stream.matching import Matching
from exo_stream.model import Cursor, Entry, Keyspace, row_key
from exo_stream.payload import EncodedBatch
from exo_stream.selectors import AnySelector, StoreSelector
from exo_stream.snapshots import Snapshot, SnapshotHolder, Snapshots
from exo_stream.starts import After, FromEvent, FromSequence, FromSnapshot, Last, Now, Since, Start
from exo_stream.tail import Tail


@dataclass(frozen=True, slots=True)
class Delivered:
    """Some consecutive matching batches, with their matching entries only."""

    batches: list[EncodedBatch]


Pulled = (
    Delivered
    | SnapshotBegin
    | SnapshotPage
    | SnapshotEnd
    | CaughtUp
    | FellBehind
    | Progress
    | Heartbeat
)


@dataclass(frozen=True, slots=True)
class Sources:
    """What every subscription of a platform reads from."""

    log_id: str
    reads: Reads
    tail: Tail
    frontier: Frontier
    matching: Matching
    interest: Interest
    snapshots: Snapshots
    limits: Limits


class Subscription:
    """Every matching batch after a position, then every new one: in order, without gaps.

    ``position`` is the last sequence that was pulled, or known not to match. Cancelled at any
    await, it has not moved: the next pull goes on from there. After ``heartbeat_seconds`` in which
    nothing was to be told there is a ``Heartbeat``.
    """

    def __init__(
        self,
        sources: Sources,
        selector: AnySelector,
        *,
        heartbeat_seconds: int | None = None,
        snapshots: SnapshotHolder | None = None,
    ) -> None:
        self.selector = selector
        self.position = 0
        self._sources = sources
        self._snapshots = snapshots or sources.snapshots
        self._snapshot: Snapshot | None = None
        self._read_snapshot: Snapshot | None = None
        self._held: Matcher | None = None
        self._row_ranges: deque[RowRange] = deque()
        self._begun = False
        self._caught_up = False
        self._reported = 0
        self._spoke_at = trio.current_time()
        self._heartbeat_seconds = heartbeat_seconds or sources.limits.heartbeat_seconds

    async def start(self, start: Start) -> Cursor:
        """Resolve ``start``, once; answer the cursor that it means.

        Raises LogMismatchError, CursorAheadError or BatchEvictedError for a cursor that cannot
        be resumed from, SnapshotExpiredError if no snapshot is to be had, InvalidSelectorError or
        OverloadedError for a selector that breaks a rule, or is one too many, PlatformClosedError.
        """
        if self._sources.interest.closed:
            await trio.lowlevel.checkpoint()
            raise PlatformClosedError("the platform is closed")
        try:
            # First, so that "now" is when it was asked for, however long a regex takes to compile.
            await self._begin(start)
            self._held = await self._sources.matching.hold(self.selector)
        except BaseException:
            self.close()
            raise
        self._row_ranges = deque(self._held.row_ranges)
        self._reported = self.position
        return self.cursor

    async def _begin(self, start: Start) -> None:
        if isinstance(start, FromSnapshot):
            await trio.lowlevel.checkpoint()
            self._snapshot = self._snapshots.open()
            self.position = self._snapshot.sequence
            return
        self.position = await self._resolve(start)
        if self.position + 1 < self._floor and self._sources.reads.engine.own_sequences:
            # The backend says why: because it evicted that, or because it keeps no log at all.
            await self._sources.reads.log_page(self.position, self._sources.frontier.visible)
        self._check_retained()

    @property
    def _matcher(self) -> Matcher:
        assert self._held is not None, "a subscription is started first, and closed last"
        return self._held

    @property
    def cursor(self) -> Cursor:
        """Where to resume if everything pulled so far is finished."""
        return Cursor(self._sources.log_id, self.position)

    @property
    def following(self) -> bool:
        """Whether it is at the frontier and has said so: it may take a live seat."""
        return self._caught_up and self.position == self._sources.frontier.visible

    @property
    def holds_page(self) -> bool:
        """Whether the next pull makes a page of this subscriber's own: of the file or the table,
        not of the tail, which all share.
        """
        return self._snapshot is not None or self.position < self._sources.tail.after

    def close(self) -> None:
        """Let go of everything; a second time it does nothing."""
        self._let_go_of_snapshot()
        if self._held is not None:
            self._held = None
            self._sources.matching.release(self.selector)

    def _let_go_of_snapshot(self) -> None:
        for snapshot in (self._snapshot, self._read_snapshot):
            if snapshot is not None:
                snapshot.close()
        self._snapshot = self._read_snapshot = None

    async def pull(self) -> Pulled:
        """The next message; waits until there is one.

        Raises BatchEvictedError if the next batch is gone, SnapshotExpiredError if the snapshot
        was read too slowly.
        """
        while True:
            message = await self._next_ready()
            if message is None:
                message = await self._sleep()
            if message is not None:
                self._spoke_at = trio.current_time()
                return message

    async def pull_ready(self) -> Pulled | None:
        """The next message if there is one already; None when ``following``.

        So that nothing which others need is held while it sleeps.
        """
        message = await self._next_ready()
        if message is None:
            await trio.lowlevel.checkpoint()
        else:
            self._spoke_at = trio.current_time()
        return message

    def take_seat(self, encode: Encoder[B], try_send: Callable[[B], bool]) -> Seat[B]:
        """Have the fan-out write to ``try_send`` from here on. Only while ``following``."""
        assert self.following, (self.position, self._sources.frontier.visible)
        seat = Seat(self.selector, self.position, encode, try_send)
        self._sources.interest.take_seat(seat)
        return seat

    def leave_seat(self, seat: AnySeat) -> None:
        """Go on pulling after what the seat has taken. Synchronous, and done before any reply."""
        taken = self._sources.interest.leave_seat(seat)
        if taken > self.position:
            self.position = taken
            self._spoke_at = trio.current_time()

    @property
    def patience_seconds(self) -> float:
        """After how long without anything new there may be something to ``report``."""
        left = max(0, self._heartbeat_due - trio.current_time())
        return min(self._sources.limits.progress_seconds, left)

    @property
    def _heartbeat_due(self) -> float:
        # One sum for whoever waits and whoever looks: of two that differ in their last bit, one
        # says that it is not time yet, and the other that no time is left.
        return self._spoke_at + self._heartbeat_seconds

    def report(self) -> Progress | Heartbeat | None:
        """What a subscriber that has heard nothing for a while is to be told, if anything."""
        now = trio.current_time()
        if self.position > self._reported:
            self._spoke_at, self._reported = now, self.position
            return Progress(self.cursor)
        if now >= self._heartbeat_due:
            self._spoke_at = now
            return Heartbeat(self._sources.frontier.visible)
        return None

    async def _resolve(self, start: Start) -> int:
        # First, so that nothing is evicted between resolving a relative start and checking it.
        await trio.lowlevel.checkpoint()
        frontier, floor = self._sources.frontier.visible, self._floor
        match start:
            case After(Cursor(log_id, sequence)):
                if log_id != self._sources.log_id:
                    raise LogMismatchError(self._sources.log_id)
                position = sequence
            case FromSequence(sequence):
                if not sequence:
                    raise InvalidRequestError("the first sequence number is 1")
                position = sequence - 1
            case Now():
                position = frontier
            case Last(count):
                position = max(floor - 1, frontier - count)
            case FromEvent(event_id):
                return await self._before_event(event_id)
            case Since(committed_at):
                found = await self._sources.reads.sequence_at(committed_at)
                # Rows below the floor stay in the file until their turn to be deleted comes, and
                # one above the frontier is of a COMMIT that may still fail.
                return min(max(found, self._floor) - 1, self._sources.frontier.visible)
            case _:
                position = floor - 1
        if position > frontier:
            raise CursorAheadError(frontier)
        return position

    async def _before_event(self, event_id: int) -> int:
        """The sequence before the batch of an event; the newest one if it is the next event."""
        reads = self._sources.reads
        version = reads.engine.version
        ids = [event_id, max(0, event_id - 1)]
        asked = [row_key(Keyspace.EVENT, number.to_bytes(8, "big")) for number in ids]
        event, previous = await reads.rows(version, asked, values=False)
        if event is not None:
            return event.sequence - 1
        if previous is None and event_id:
            raise CursorAheadError(version.frontier)
        return version.frontier

    @property
    def _floor(self) -> int:
        return self._sources.reads.engine.version.floor

    def _check_retained(self) -> None:
        if self.position + 1 < self._floor:
            raise BatchEvictedError(self._floor)

    async def _pull_row_page(self) -> SnapshotBegin | SnapshotPage | SnapshotEnd | Heartbeat:
        assert self._snapshot is not None
        if not self._begun:
            await trio.lowlevel.checkpoint()
            self._begun = True
            return SnapshotBegin(self.position)
        while self._row_ranges:
            rows = await self._next_rows(self._snapshot)
            if rows:
                return SnapshotPage(self.position, tuple(rows))
            if trio.current_time() - self._spoke_at >= self._sources.limits.progress_seconds:
                return Heartbeat(self._sources.frontier.visible)
        await trio.lowlevel.checkpoint()
        # The log behind it stays until this reader has caught up: whoever has just read a whole
        # table would be evicted first.
        self._snapshot.finish()
        self._snapshot, self._read_snapshot = None, self._snapshot
        return SnapshotEnd(self.cursor)

    async def _next_rows(self, snapshot: Snapshot) -> Sequence[Entry]:
        """What matches of the next page of the table. Cancelled, it can be asked for again."""
        start, end = self._row_ranges[0]
        page = await self._sources.reads.page(
            snapshot.check(),
            start,
            end,
            rows_max=self._sources.limits.page_rows_max,
            forward=True,
        )
        rows = [Entry(row.key[0], row.key[1:], row.value) for row in page.rows]
        if isinstance(self.selector, StoreSelector):
            rows = await self._sources.matching.narrow(self._matcher, rows)
        self._row_ranges.popleft()
        if page.resume is not None:
            self._row_ranges.appendleft((page.resume, end))
        return rows

    async def _next_ready(self) -> Pulled | None:
        if self._snapshot is not None:
            return await self._pull_row_page()
        while True:
            self._check_retained()
            if self.position < self._sources.frontier.visible:
                message = await self._read_on()
                if message is not None:
                    return message
            elif not self._caught_up:
                await trio.lowlevel.checkpoint()
                self._caught_up = True
                self._reported = self.position
                self._let_go_of_snapshot()
                return CaughtUp(self.cursor)
            elif self._sources.interest.closed:
                raise PlatformClosedError("the platform stopped")
            else:
                # And no checkpoint: nothing may be committed before it sleeps.
                return None  # noqa: ASYNC910  see above

    async def _read_on(self) -> Delivered | FellBehind | Progress | None:
        sources, through = self._sources, self._sources.frontier.visible
        page = sources.tail.since(
            self.position,
            batches_max=sources.limits.page_rows_max,
            bytes_max=sources.limits.page_bytes_max,
        )
        if page is None and self._caught_up:
            await trio.lowlevel.checkpoint()
            self._caught_up = False
            return FellBehind(self.cursor, through - self.position)
        if page is None:
            page = await sources.reads.log_page(self.position, through)
        else:
            await trio.lowlevel.checkpoint()
        matcher = self._matcher
        if matcher.regexes:
            matching = await sources.matching.select(matcher, page)
        else:
            matching = [match for batch in page if (match := matcher.select(batch))]
        self.position = page[-1].sequence if page else through
        if matching:
            self._reported = self.position
            return Delivered(matching)
        if trio.current_time() - self._spoke_at >= sources.limits.progress_seconds:
            self._reported = self.position
            return Progress(self.cursor)
        return None

    async def _sleep(self) -> Delivered | Progress | Heartbeat | None:
        """Wait until something matches, or until it is time to say that nothing did."""
        interest = self._sources.interest
        parked = interest.park(self.selector)
        try:
            with trio.move_on_after(self.patience_seconds):
                await parked.woken.wait()
        finally:
            interest.unpark(self.selector, parked)
        if parked.must_look:
            return None
        if parked.found is None:
            self.position = max(self.position, interest.through)
            return self.report()
        return self._take(parked.found, parked.through)

    def _take(self, found: Sequence[EncodedBatch], through: int) -> Delivered | None:
        """What the fan-out found, unless it was still busy with what came before we slept."""
        fresh = [batch for batch in found if batch.sequence > self.position]
        if fresh:
            self.position = fresh[0].sequence - 1
            self._check_retained()
        self.position = max(self.position, through)
        if not fresh:
            return None
        self._reported = self.position
        return Delivered(fresh)
