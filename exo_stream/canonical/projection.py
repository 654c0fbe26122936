"""One projection: a handler that turns events into tables of its own, in order, each once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from exo_stream.canonical.projection_applying import STORAGE, Applier, Handler
from exo_stream.canonical.projection_events import ProjectionEvents
from exo_stream.canonical.projection_rules import (
    STORAGE_BACKOFF,
    Event,
    ProjectorConfig,
    ProjectorStatus,
    Remedy,
    RunStats,
    State,
    delay_seconds,
    detect_gaps,
    remedy,
)
from exo_stream.canonical.projection_txn import interruptible
from exo_stream.errors import (
    CorruptionError,
    CursorAheadError,
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
from exo_stream.storage.hop import Hop
from exo_stream.storage.projection_file import (
    Identity,
    ProjectionFile,
    Rows,
    begin_rebuilt,
    drop_rebuilt,
    install_rebuilt,
    open_projection_file,
)
from exo_stream.storage.projection_tables import DeadLetter

_CURED_BY_REBUILD: Final = CorruptionError | CursorAheadError | InvalidStateError | LogMismatchError


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
        self._path = path
        self._identity = identity
        self._config = config
        self._write, self._read = hops
        self._applier = Applier(identity.name, handler, config, self._write, ground.clock)
        self._chance = chance
        self._events = ProjectionEvents(ground, config)
        self._file: ProjectionFile | None = None
        self._turn = trio.StrictFIFOLock()
        """Held by whoever applies events: the handler is never called beside itself."""
        self._reading = trio.StrictFIFOLock()
        """Held by whoever reads the tables, or puts other ones in their place."""
        self._state: State = "stopped"
        self._failure: ExoStreamError | None = None
        self._running: trio.CancelScope | None = None
        self._wanted = trio.Event()
        self._moved = trio.Event()
        self._alone_through = -1
        """Events up to this one are applied one by one, since together they failed."""
        self._retries = 0
        self._applied = 0
        self._skipped = 0

    @property
    def cursor(self) -> int | None:
        """The id of the last event applied, None before the first or while it has no file."""
        return None if self._file is None else self._file.cursor

    @property
    def failure(self) -> ExoStreamError | None:
        """What it stopped for, or is trying again for; ``__cause__`` is what the handler raised."""
        return self._failure

    async def get_lag(self) -> int:
        """How many events are still to be applied."""
        return await self._events.target() - self._next(self._file)

    async def status(self) -> ProjectorStatus:
        """How it is, as of now."""
        record = await self._events.record()
        first, target = self._next(self._file), await self._events.target()
        age: float | None = 0.0
        if first < target:
            age = await self._events.age_seconds(first)
        return ProjectorStatus(
            self.name,
            self._state,
            self.cursor,
            target - first,
            age,
            record.sealed_event_id is not None and first >= target,
            0 if self._file is None else self._file.letter_count,
            "" if self._failure is None else str(self._failure),
            self._retries,
            self._applied,
            self._skipped,
        )

    async def query(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """The rows of a SELECT over the tables as of ``cursor``, beside the handler.

        Raises InvalidRequestError for what is no query, OverloadedError if it takes longer than
        ``query_seconds_max``.
        """
        async with self._reading:
            file = self._file
            if file is None:
                raise InvalidStateError(f"projection {self.name} has no tables") from self._failure
            with trio.move_on_after(self._ground.sources.limits.query_seconds_max):
                call = partial(file.read, sql, tuple(parameters))
                return await interruptible(self._read, call, file.interrupt_read)
        raise OverloadedError("the query took too long and was stopped")

    async def wait_applied(self, event_id: int) -> None:
        """Return once ``event_id`` has been applied. Raises what the projection stopped for."""
        await trio.lowlevel.checkpoint()
        while self._next(self._file) <= event_id:
            if self._state == "failed" and self._failure is not None:
                raise self._failure.again() from self._failure.__cause__
            if self._state == "stopped":
                raise InvalidStateError(f"projection {self.name} is stopped")
            await self._moved.wait()

    async def run_once(self) -> RunStats:
        """Apply one batch, no further than the seal; zeros if there is nothing to apply.

        Raises ProjectionError if the handler fails for good.
        """
        async with self._turn:
            file = await self._opened()
            began = trio.current_time()
            events = await self._events.present(self._next(file))
            before = self._skipped
            await self._settle(events, None)
            return self._stats(events, began, before)

    async def catch_up(self) -> RunStats:
        """Apply everything up to the seal, or to the newest event there is when it gets there."""
        began, before, applied, size = trio.current_time(), self._skipped, 0, 0
        while (done := await self.run_once()).events_applied or done.events_skipped:
            applied += done.events_applied
            size += done.bytes_processed
        duration, skipped = trio.current_time() - began, self._skipped - before
        return RunStats(applied, size, duration, self.cursor, 0, skipped)

    def shutdown(self) -> None:
        """Stop applying events: the batch under way is undone. ``resume`` goes on."""
        if self._wanted.is_set():
            self._wanted = trio.Event()
        self._turn_to("stopped")
        if self._running is not None:
            self._running.cancel()

    def resume(self) -> None:
        """Go on, or try again after a failure."""
        self._retries = 0
        self._wanted.set()
        self._turn_to("running")

    async def rebuild(self) -> RunStats:
        """Apply every event from 0 on to fresh tables, and put them in the old ones' place.

        That is one step: until then the old tables are there and stay as they are, and if it
        fails or is cancelled they remain. Cures what a file cannot be opened for. Dead letters
        of the old tables are gone. It raises as ``run_once`` does.
        """
        was, failure = self._state, self._failure
        self.shutdown()
        try:
            async with self._turn:
                if self._file is None and not isinstance(failure, _CURED_BY_REBUILD):
                    await self._opened()
                self._turn_to("rebuilding")
                done = await self._rebuilt()
        except BaseException:
            self._failure = failure
            self._turn_to(was)
            if was in ("running", "retrying"):
                self.resume()
            raise
        self._failure = None
        self._turn_to("stopped")
        if was != "stopped":
            self.resume()
        return done

    async def dead_letters(self) -> list[DeadLetter]:
        """The events that were put aside, by id."""
        async with self._reading:
            return [] if self._file is None else await self._read(self._file.letters)

    async def replay_dead_letters(self, limit: int = 100) -> RunStats:
        """Hand up to ``limit`` events that were put aside to the handler again, the oldest first.

        One that goes through is forgotten, in the transaction of its effect; one that fails stays,
        with its count of retries, and after ``replay_retries_max`` is permanent and left alone.
        """
        began, applied, failed, size = trio.current_time(), 0, 0, 0
        letters = [letter for letter in await self.dead_letters() if not letter.permanent]
        for letter in letters[:limit]:
            async with self._turn:
                file = await self._opened()
                if letter not in await self._read(file.letters):
                    continue  # somebody else has just replayed it
                try:
                    await self._applier.replay(file, letter)
                except ProjectionError as error:
                    await self._applier.note_replay(file, letter, error)
                    failed += 1
                else:
                    applied += 1
                    size += len(letter.event_bytes)
        return RunStats(applied, size, trio.current_time() - began, self.cursor, 0, failed)

    async def remove_dead_letter(self, event_id: int) -> None:
        """Forget an event that was put aside, without its effect."""
        async with self._turn:
            file = await self._opened()
            await self._applier.forget(file, event_id)

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
                    await self._follow()
                except PlatformClosedError:
                    self._turn_to("stopped")
                    return  # noqa: ASYNC910  that was one
                except ExoStreamError as error:
                    if self._wanted.is_set():
                        self._wanted = trio.Event()
                    self._failure = error
                    self._turn_to("failed")
                    log.error("projection failed", projection=self.name, error=str(error))  # noqa: TRY400  its cause is for whoever asks

    async def close(self) -> None:  # noqa: ASYNC910  none, if there is nothing to close
        """Let go of the file; the task has ended."""
        file, self._file = self._file, None
        with trio.CancelScope(shield=True):  # bounded by one CHECKPOINT; a thread cannot be left
            if file is not None:
                await self._write(file.close)
        self._turn_to("stopped")

    async def _follow(self) -> None:
        async with self._turn:
            await self._settle([], None)  # opens the file, however often it must try
        self._runs()
        self._events.restart(self._next(self._file))
        while True:
            events = await self._taken()
            async with self._turn:
                first = self._next(self._file)
                if events and events[0][0] == first:
                    await self._settle(events, None)
                elif events:
                    self._events.restart(first)  # somebody has applied some beside us
            self._runs()

    def _runs(self) -> None:
        if self._wanted.is_set():  # else ``shutdown`` has had the last word
            self._failure = None
            self._turn_to("running")

    async def _taken(self) -> list[Event]:
        try:
            return await self._events.take()
        except (OverloadedError, StoreError) as error:
            await self._wait_to_retry(error, delay_seconds(STORAGE_BACKOFF, 0, self._chance()))
            return []

    async def _settle(self, events: Sequence[Event], rebuilt: ProjectionFile | None) -> None:
        """See to it that these events are behind the cursor, whatever that takes."""
        faults = 0
        while True:
            try:
                file = rebuilt or await self._opened()
                left = [event for event in events if event[0] >= self._next(file)]
                if not left:
                    return  # noqa: ASYNC910  what opened the file, or applied them, was one
                self._check_no_gap(self._next(file), left)
                await self._step(file, left)
            except STORAGE as error:
                if rebuilt is not None:
                    raise
                await self._let_go()
                delay = delay_seconds(STORAGE_BACKOFF, faults, self._chance())
                faults += 1
                await self._wait_to_retry(error, delay)

    async def _step(self, file: ProjectionFile, events: Sequence[Event]) -> None:  # noqa: ASYNC910
        """Try these events, or the first of them alone if it is known that one will fail."""
        if events[0][0] <= self._alone_through:
            events = events[:1]
        try:
            await self._applier.apply(file, events)
        except ProjectionError as error:
            if len(events) > 1:
                self._alone_through = events[-1][0]
            else:
                await self._after_failure(file, events[0], error)
        else:
            self._applied += len(events)
            self._went_on()

    async def _after_failure(  # noqa: ASYNC910  each remedy has one
        self, file: ProjectionFile, event: Event, error: ProjectionError
    ) -> None:
        strategy = self._config.error_strategy
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        match remedy(strategy, cause, self._retries):
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

    async def _pass_over(
        self, file: ProjectionFile, event: Event, letter: DeadLetter | None
    ) -> None:
        await self._applier.pass_over(file, event, letter)
        self._skipped += 1
        self._went_on()

    async def _rebuilt(self) -> RunStats:
        old, began, before, applied, size = self._file, trio.current_time(), self._skipped, 0, 0
        make = partial(begin_rebuilt, self._path, self._identity, old, now=self._ground.clock())
        rebuilt = await self._write(make)
        try:
            while events := await self._events.present(self._next(rebuilt)):
                await self._settle(events, rebuilt)
                applied += len(events)
                size += sum(len(event) for _, event in events)
            newest = await self._events.target()
            async with self._reading:
                self._file = await self._write(partial(self._swapped, rebuilt, old, newest))
        except BaseException:
            if old is not None and old.is_closed:
                self._file = None
            with trio.CancelScope(shield=True):  # a thread cannot be left
                await self._write(partial(drop_rebuilt, rebuilt))
            raise
        self._went_on()
        duration, skipped = trio.current_time() - began, self._skipped - before
        return RunStats(applied - skipped, size, duration, self.cursor, 0, skipped)

    def _swapped(
        self, rebuilt: ProjectionFile, old: ProjectionFile | None, newest: int
    ) -> ProjectionFile:
        install_rebuilt(rebuilt, self._path, old)
        lock = rebuilt.lock if old is None else old.lock
        return open_projection_file(
            self._path, self._identity, newest=newest, now=self._ground.clock(), lock=lock
        )

    async def _opened(self) -> ProjectionFile:
        """The file, opened if it is not. Raises what a rebuild cures, and FileInUseError."""
        if self._file is None:
            newest = await self._events.target()
            call = partial(
                open_projection_file, self._path, self._identity,
                newest=newest, now=self._ground.clock(),
            )  # fmt: skip
            self._file = await self._write(call)
        return self._file  # noqa: ASYNC910  # what follows is one

    async def _let_go(self) -> None:
        """Close a file that has failed; what it holds is known when it has been opened again."""
        async with self._reading:
            file, self._file = self._file, None
            if file is not None:
                await self._write(partial(_dropped, file))

    async def _wait_to_retry(self, error: ExoStreamError, seconds: float) -> None:
        self._failure = error
        self._turn_to("retrying" if self._state != "rebuilding" else "rebuilding")
        log.warning("projection retries", projection=self.name, error=str(error))
        await trio.sleep(seconds)

    def _went_on(self) -> None:
        self._retries = 0
        self._failure = None
        self._moved.set()
        self._moved = trio.Event()

    def _turn_to(self, state: State) -> None:
        self._state = state
        self._moved.set()
        self._moved = trio.Event()

    def _stats(self, events: Sequence[Event], began: float, skipped_before: int) -> RunStats:
        skipped = self._skipped - skipped_before
        size = sum(len(event) for _, event in events)
        duration = trio.current_time() - began if events else 0.0
        return RunStats(len(events) - skipped, size, duration, self.cursor, 0, skipped)

    @staticmethod
    def _check_no_gap(first: int, events: Sequence[Event]) -> None:
        gaps, missing = detect_gaps(first, [event_id for event_id, _ in events])
        if gaps:
            raise CorruptionError(f"from event {first} on, {missing} events are missing")

    @staticmethod
    def _next(file: ProjectionFile | None) -> int:
        return 0 if file is None or file.cursor is None else file.cursor + 1


def _dropped(file: ProjectionFile) -> None:
    file.abandon()
    file.release()
