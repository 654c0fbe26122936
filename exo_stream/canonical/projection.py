"""One projection: a handler that turns events into tables of its own, in order, each once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import trio

from exo_stream.canonical.projection_applying import STORAGE, Applier, Handler
from exo_stream.canonical.projection_events import ProjectionEvents
from exo_stream.canonical.projection_kept import KeptFile
from exo_stream.canonical.projection_letters import DeadLetters
from exo_stream.canonical.projection_rules import (
    STORAGE_BACKOFF,
    Event,
    FailFast,
    ProjectorConfig,
    ProjectorStatus,
    Remedy,
    RunStats,
    State,
    check_no_gap,
    delay_seconds,
    remedy,
)
from exo_stream.errors import (
    CorruptionError,
    CursorAheadError,
    EventGapError,
    ExoStreamError,
    InvalidStateError,
    LogMismatchError,
    OverloadedError,
    PlatformClosedError,
    ProjectionError,
    StoreError,
)
from exo_stream.ground import Ground
from exo_stream.logger import log
from exo_stream.nursery import nursery_unseen
from exo_stream.storage.at_rest import AtRest
from exo_stream.storage.dead_letter import DeadLetter
from exo_stream.storage.hop import Hop
from exo_stream.storage.projection_file import Identity, ProjectionFile, Rows

_CURED_BY_REBUILD: Final = CorruptionError | CursorAheadError | InvalidStateError | LogMismatchError


@dataclass(slots=True)
class _Totals:
    """What was done since the projection was added."""

    applied: int = 0
    skipped: int = 0
    gaps: int = 0


class Projector:
    """A named projection of the platform's events; made by ``Projections.add``.

    Its tables are always those of an exact prefix of the events, up to ``cursor``.
    """

    def __init__(
        self,
        ground: Ground,
        path: Path,
        identity: Identity,
        handler: Handler,
        config: ProjectorConfig,
        *,
        hops: tuple[Hop, Hop],
        chance: Callable[[], float],
    ) -> None:
        self.name: Final = identity.name
        self._ground = ground
        self._config = config
        self._chance = chance
        self._events = ProjectionEvents(ground, config)
        self._kept = KeptFile(ground, path, identity, self._events.target, hops)
        self._applier = Applier(identity.name, handler, config, hops[0], ground.clock)
        self._letters = DeadLetters(identity.name, self._kept, self._applier, config)
        self._rebuilds = trio.StrictFIFOLock()
        """Held by whoever rebuilds, so that a second one begins when the first is over."""
        self._state: State = "stopped"
        self._failure: ExoStreamError | None = None
        self._running: trio.CancelScope | None = None
        self._wanted = trio.Event()
        self._moved = trio.Event()
        self._alone = range(0)
        """These events are applied one by one, since together they failed."""
        self._is_waiting = False
        self._retries = 0
        self._totals = _Totals()

    @property
    def cursor(self) -> int | None:
        """The id of the last event applied, None before the first or while it has no file."""
        return None if self._kept.file is None else self._kept.file.cursor

    @property
    def state(self) -> State:
        """How it is."""
        if self._rebuilds.locked():
            return "rebuilding"
        return "retrying" if self._is_waiting else self._state

    @property
    def failure(self) -> ExoStreamError | None:
        """What it stopped for, or is trying again for; ``__cause__`` is what the handler raised."""
        return self._failure

    async def get_lag(self) -> int:
        """How many events are still to be applied."""
        return await self._events.target() - self._kept.next_event_id

    async def status(self) -> ProjectorStatus:
        """How it is, as of now."""
        record = await self._events.record()
        first, target = self._kept.next_event_id, await self._events.target()
        age: float | None = 0.0
        if first < target:
            age = await self._events.age_seconds(first)
        file = self._kept.file
        return ProjectorStatus(
            self.name,
            self.state,
            self.cursor,
            target - first,
            age,
            record.sealed_event_id is not None and first >= target,
            0 if file is None else file.letter_count,
            "" if self._failure is None else str(self._failure),
            self._retries,
            self._totals.applied,
            self._totals.skipped,
            self._totals.gaps,
        )

    async def query(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """The rows of a SELECT over the tables as of ``cursor``, beside the handler.

        Raises InvalidRequestError for what is no query, OverloadedError if it takes longer than
        ``query_seconds_max``.
        """
        try:
            return await self._kept.query(sql, parameters)
        except InvalidStateError as error:
            raise error from self._failure

    async def wait_applied(self, event_id: int) -> None:
        """Return once ``event_id`` has been applied. Raises what the projection stopped for."""
        await trio.lowlevel.checkpoint()
        while self._kept.next_event_id <= event_id:
            if self.state == "failed" and self._failure is not None:
                raise self._failure.again() from self._failure.__cause__
            if self.state == "stopped":
                raise InvalidStateError(f"projection {self.name} is stopped")
            await self._moved.wait()

    async def run_once(self) -> RunStats:
        """Apply one batch, no further than the seal; zeros if there is nothing to apply.

        Raises ProjectionError if the handler fails for good, EventGapError where events are
        missing, unless they are to be skipped.
        """
        async with self._kept.turn:
            began, before = trio.current_time(), replace(self._totals)
            events = await self._present(None)
            await self._see_to(partial(self._settled, events, None))
            return self._stats(events, began, before)

    async def catch_up(self) -> RunStats:
        """Apply everything up to the seal, or to the newest event there is when it gets there."""
        began, before, size = trio.current_time(), replace(self._totals), 0
        while (done := await self.run_once()).events_applied or done.events_skipped:
            size += done.bytes_processed
        return replace(self._stats((), began, before), bytes_processed=size)

    def shutdown(self) -> None:
        """Stop applying events: the batch under way is undone. ``resume`` goes on."""
        if self._wanted.is_set():
            self._wanted = trio.Event()
        self._turn_to("stopped")
        self._make_way()

    def resume(self) -> None:
        """Go on, or try again after a failure."""
        self._retries = 0
        self._wanted.set()
        self._turn_to("running")

    async def rebuild(self) -> RunStats:
        """Apply every event from 0 on to fresh tables, and put them in the old ones' place.

        That is one step: until then the old tables are there and stay as they are, and if it
        fails or is cancelled they remain. Cures what a file cannot be opened for. Dead letters
        of the old tables are gone. It raises as ``run_once`` does. Afterwards the projection
        runs, if it did or had failed.
        """
        try:
            async with self._rebuilds:
                self._make_way()
                async with self._kept.turn:
                    done = await self._rebuilt()
                if self._state == "failed":
                    self.resume()
        finally:
            self._turn_to(self._state)  # it is no longer that of being rebuilt
        return done

    async def dead_letters(self, first: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Events that were put aside, by id: up to ``limit`` from the id ``first`` on, fewer if
        they are large.
        """
        return await self._letters.page(first, limit)

    async def replay_dead_letters(self, limit: int = 100) -> RunStats:
        """Hand up to ``limit`` events that were put aside to the handler again, the oldest first.

        One that goes through is forgotten, in the transaction of its effect; one that fails stays,
        with its count of retries, and after ``replay_retries_max`` is permanent and left alone.
        """
        return await self._letters.replay(limit)

    async def replay_dead_letter(self, event_id: int) -> None:
        """Hand this event to the handler again, though it be permanent.

        Raises ProjectionError if the handler fails at it again, InvalidStateError if it was not
        put aside.
        """
        await self._letters.replay_one(event_id)

    async def remove_dead_letter(self, event_id: int) -> None:
        """Forget an event that was put aside, without its effect."""
        await self._letters.remove(event_id)

    async def run_continuous(self) -> None:
        """Apply events as they come, until cancelled: ``Projections.add`` runs it in a task.

        A failure of the handler, or a file that cannot be used, is no error of this task: the
        projection is ``failed``, and waits for ``resume`` or ``rebuild``.
        """
        while True:
            while not self._wanted.is_set():  # another one, if it was stopped again meanwhile
                await self._wanted.wait()
            with trio.CancelScope() as self._running:
                try:
                    await self._follow_and_replay()
                except PlatformClosedError:
                    self._turn_to("stopped")
                    return  # noqa: ASYNC910  that was one
                except ExoStreamError as error:
                    if self._wanted.is_set():
                        self._wanted = trio.Event()
                    self._failure = error
                    if not isinstance(error, ProjectionError | EventGapError):
                        await self._kept.let_go()  # it is of no use; a rebuild does without
                    self._turn_to("failed")
                    log.error("projection failed", projection=self.name, error=str(error))  # noqa: TRY400  its cause is for whoever asks

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[AtRest | None]:
        """Its file, complete and closed while the body runs; queries and events wait meanwhile.

        None if it has none to be used, or is busy for longer than a handler may be: rebuilt, say.
        """
        found = None
        with trio.move_on_after(self._config.handler_timeout_ms / 1_000) as scope:
            await self._kept.turn.acquire()
        if scope.cancelled_caught:
            yield None
            return
        try:
            async with self._kept.at_rest() as found:
                yield found
        finally:
            self._kept.turn.release()
            if found is not None and self._kept.file is None and self._wanted.is_set():
                self._make_way()  # and begin again: that opens the file, however often it must try

    async def close(self) -> None:
        """Let go of the file; the task has ended."""
        await self._kept.close()
        self._turn_to("stopped")

    async def _follow_and_replay(self) -> None:
        if self._config.replay is None:
            await self._follow()
            return
        with nursery_unseen():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._letters.replay_when_due, self._config.replay)
                await self._follow()

    async def _follow(self) -> None:
        async with self._kept.turn:
            await self._see_to(partial(self._settled, (), None))  # opens the file
        self._runs()
        self._events.restart(self._kept.next_event_id)
        while True:
            events, gap = await self._taken()
            async with self._kept.turn:
                first = self._kept.next_event_id
                if gap is not None and gap.event_id == first:
                    await self._see_to(partial(self._passed, gap))
                    self._events.restart(self._kept.next_event_id)
                elif events and events[0][0] == first:
                    await self._see_to(partial(self._settled, events, None))
                elif events:
                    self._events.restart(first)  # somebody has applied some beside us
            self._runs()

    def _runs(self) -> None:
        if self._wanted.is_set():  # else ``shutdown`` has had the last word
            self._failure = None
            self._turn_to("running")

    async def _taken(self) -> tuple[Sequence[Event], EventGapError | None]:
        try:
            return await self._events.take(), None
        except EventGapError as gap:
            return (), gap  # noqa: ASYNC910  that was one
        except (OverloadedError, StoreError) as error:
            await self._wait_to_retry(error, delay_seconds(STORAGE_BACKOFF, 0, self._chance()))
            return (), None

    async def _present(self, rebuilt: ProjectionFile | None) -> Sequence[Event]:
        """What is there to be applied; nothing if this was a gap, which is behind us then."""
        file = rebuilt or await self._kept.opened()
        try:
            return await self._events.present(file.next_event_id)
        except EventGapError as error:
            gap = error
        if rebuilt is None:
            await self._see_to(partial(self._passed, gap))
        else:
            await self._passed(gap, rebuilt)
        return ()

    async def _see_to(self, done: Callable[[], Awaitable[bool]]) -> None:
        """Do this until it is done, and open a file that fails again, however often it must."""
        faults = 0
        while True:
            try:
                if await done():
                    return  # noqa: ASYNC910  that was one
            except STORAGE as error:
                await self._kept.let_go()
                delay = delay_seconds(STORAGE_BACKOFF, faults, self._chance())
                faults += 1
                await self._wait_to_retry(error, delay)

    async def _settled(self, events: Sequence[Event], rebuilt: ProjectionFile | None) -> bool:
        """Take a step to have these events behind the cursor; whether they are."""
        file = rebuilt or await self._kept.opened()
        left = [event for event in events if event[0] >= file.next_event_id]
        if not left:
            return True  # noqa: ASYNC910  what opened the file, or applied them, was one
        check_no_gap(file.next_event_id, left)
        await self._step(file, left)
        return False

    async def _passed(self, gap: EventGapError, rebuilt: ProjectionFile | None = None) -> bool:
        """Go on after a gap, if that is what is wanted."""
        file = rebuilt or await self._kept.opened()
        if isinstance(self._config.gap_strategy, FailFast):
            await self._applier.note_problem(file, str(gap))
            raise gap
        log.warning("gap passed over", projection=self.name, error=str(gap))
        await self._applier.pass_over(file, gap.event_id + gap.missing - 1, None)
        self._totals.gaps += 1
        self._totals.skipped += gap.missing
        self._went_on()
        return True

    async def _step(self, file: ProjectionFile, events: Sequence[Event]) -> None:  # noqa: ASYNC910  each way on has one
        """Try these events, or the first of them alone if it is known that one will fail."""
        if events[0][0] in self._alone:
            events = events[:1]
        try:
            await self._applier.apply(file, events)
        except ProjectionError as error:
            if len(events) > 1:
                self._alone = range(events[0][0], events[-1][0] + 1)
            else:
                await self._after_failure(file, events[0], error)
        else:
            self._totals.applied += len(events)
            self._went_on()

    async def _after_failure(  # noqa: ASYNC910  each remedy has one
        self, file: ProjectionFile, event: Event, error: ProjectionError
    ) -> None:
        strategy = self._config.error_strategy
        match self._remedy(error):
            case Remedy.STOP:
                await self._applier.note_problem(file, str(error))
                raise error
            case Remedy.RETRY:
                delay = delay_seconds(strategy, self._retries, self._chance())
                self._retries += 1
                await self._wait_to_retry(error, delay)
            case Remedy.SKIP:
                log.warning(
                    "event skipped", projection=self.name, event_id=event[0], error=str(error)
                )
                await self._pass_over(file, event, None)
            case Remedy.DEAD_LETTER:
                log.warning("event put aside", projection=self.name, event_id=event[0])
                now = self._ground.clock()
                await self._pass_over(file, event, DeadLetter(*event, str(error), now))

    def _remedy(self, error: ProjectionError) -> Remedy:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        try:
            return remedy(self._config.error_strategy, cause, self._retries)
        # A strategy may be somebody else's, as the handler is.
        except Exception as objection:
            what = f"its strategy raised {type(objection).__name__}"
            raise ProjectionError(self.name, error.event_id, what) from objection

    async def _pass_over(
        self, file: ProjectionFile, event: Event, letter: DeadLetter | None
    ) -> None:
        await self._applier.pass_over(file, event[0], letter)
        self._totals.skipped += 1
        self._went_on()

    async def _rebuilt(self) -> RunStats:
        began, before, size = trio.current_time(), replace(self._totals), 0
        failure = self._failure

        async def fill(rebuilt: ProjectionFile) -> None:  # noqa: ASYNC910  each turn is one
            nonlocal size
            target = -1
            while rebuilt.next_event_id != target:  # a gap is a step with no event
                target = rebuilt.next_event_id
                events = await self._present(rebuilt)
                while not await self._settled(events, rebuilt):
                    pass
                size += sum(len(event) for _, event in events)

        try:
            if self._kept.file is None and not isinstance(failure, _CURED_BY_REBUILD):
                await self._kept.opened()
            await self._kept.replace(fill)
        except BaseException:
            self._failure = failure
            raise
        self._went_on()
        return replace(self._stats((), began, before), bytes_processed=size)

    async def _wait_to_retry(self, error: ExoStreamError, seconds: float) -> None:
        self._failure = error
        self._is_waiting = True
        self._turn_to(self._state)
        log.warning("projection retries", projection=self.name, error=str(error))
        try:
            await trio.sleep(seconds)
        finally:
            self._is_waiting = False

    def _make_way(self) -> None:
        if self._running is not None:
            self._running.cancel()

    def _went_on(self) -> None:
        self._retries = 0
        self._failure = None
        self._turn_to(self._state)

    def _turn_to(self, state: State) -> None:
        self._state = state
        self._moved.set()
        self._moved = trio.Event()

    def _stats(self, events: Sequence[Event], began: float, before: _Totals) -> RunStats:
        now = self._totals
        skipped, gaps = now.skipped - before.skipped, now.gaps - before.gaps
        applied = now.applied - before.applied
        duration = trio.current_time() - began if applied or skipped else 0.0
        size = sum(len(event) for _, event in events)
        return RunStats(applied, size, duration, self.cursor, gaps, skipped)
