"""One try of a projection's handler: its transaction, its deadline, and what its failure is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import trio

from exo_stream.canonical.projection_rules import Event, ProjectorConfig
from exo_stream.canonical.projection_txn import ProjectionTxn
from exo_stream.errors import (
    CorruptionError,
    InvalidStateError,
    OutcomeUnknownError,
    ProjectionError,
    StoreError,
    StoreFullError,
)
from exo_stream.storage.dead_letter import DeadLetter
from exo_stream.storage.hop import Hop
from exo_stream.storage.projection_file import ProjectionFile

Handler = Callable[[ProjectionTxn, Sequence[Event]], Awaitable[None]]
"""Gets events in order, and the transaction that becomes durable together with the cursor. It is
called again with the same events if that transaction did not: what it does elsewhere it may do
twice, what it does in its tables happens once."""

STORAGE: Final = (StoreFullError, OutcomeUnknownError)
"""The file cannot be written, which is no event's fault."""

_TOLD_LENGTH_MAX: Final = 500


class Applier:
    """Hands events to the handler and commits; raises ProjectionError for what the handler did,
    and what is in STORAGE, or CorruptionError, for what the file did. Either way nothing of the
    try is kept.
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        config: ProjectorConfig,
        write: Hop,
        clock: Callable[[], int],
    ) -> None:
        self._name = name
        self._handler = handler
        self._config = config
        self._write = write
        self._clock = clock

    async def apply(self, file: ProjectionFile, events: Sequence[Event]) -> None:
        """Apply events that follow the cursor, and move it."""
        await self._handled(file, events)
        await self._commit(file, events[0][0], lambda: events[-1][0])

    async def replay(self, file: ProjectionFile, letter: DeadLetter) -> None:
        """Apply an event that was put aside, and forget that it was."""
        await self._handled(file, [(letter.event_id, letter.event_bytes)])

        def cursor() -> int | None:
            file.remove_letter(letter.event_id)
            return file.cursor

        await self._commit(file, letter.event_id, cursor)

    async def pass_over(
        self, file: ProjectionFile, through: int, letter: DeadLetter | None
    ) -> None:
        """Move the cursor past events without their effect, and put one aside if told."""

        def pass_over() -> None:
            file.begin()
            if letter is not None:
                file.put_letter(letter)
            file.commit(through, now=self._clock())

        await self._write(pass_over)

    async def note_replay(
        self, file: ProjectionFile, letter: DeadLetter, error: ProjectionError
    ) -> None:
        """Count a replay that failed."""
        count = letter.retry_count + 1
        noted = replace(
            letter,
            error_message=str(error),
            retry_count=count,
            last_retry_at=self._clock(),
            permanent=count >= self._config.replay_retries_max,
        )

        def note() -> None:
            file.begin()
            file.put_letter(noted)
            file.commit(file.cursor, now=self._clock())

        await self._write(note)

    async def forget(self, file: ProjectionFile, event_id: int) -> None:
        """Forget that an event was put aside."""

        def forget() -> None:
            file.begin()
            file.remove_letter(event_id)
            file.commit(file.cursor, now=self._clock())

        await self._write(forget)

    async def note_problem(self, file: ProjectionFile, problem: str) -> None:
        """Write down what the projection stops for, for those who look at the file later."""

        def note() -> None:
            file.begin()
            file.commit(file.cursor, now=self._clock(), problem=problem)

        await self._write(note)

    async def _handled(self, file: ProjectionFile, events: Sequence[Event]) -> None:
        """Run the handler in a new transaction, which is then still open."""
        await self._write(file.begin)
        txn = ProjectionTxn(file, self._write)
        failure: Exception | None = None
        scope = trio.CancelScope(relative_deadline=self._config.handler_timeout_ms / 1_000)
        try:
            with scope:
                await self._handler(txn, events)
        # The handler is somebody else's: whatever it raises is a failure of this projection only.
        except Exception as error:  # noqa: BLE001  the handler is somebody else's
            failure = error
        finally:
            txn.close()
        if isinstance(txn.failure, (*STORAGE, CorruptionError)):
            raise txn.failure
        if failure is None and isinstance(txn.failure, Exception):
            failure = txn.failure
        first = events[0][0]
        if failure is not None:
            raise ProjectionError(self._name, first, f"raised {_told(failure)}") from failure
        if scope.cancel_called:
            milliseconds = self._config.handler_timeout_ms
            raise ProjectionError(self._name, first, f"took longer than {milliseconds} ms")
        if txn.failure is not None:
            raise ProjectionError(self._name, first, "gave up on a statement")

    async def _commit(
        self, file: ProjectionFile, first: int, cursor: Callable[[], int | None]
    ) -> None:
        try:
            await self._write(lambda: file.commit(cursor(), now=self._clock()))
        except STORAGE:
            raise
        except (InvalidStateError, StoreError) as error:
            raise ProjectionError(self._name, first, str(error)) from error


def _told(error: Exception) -> str:
    """What was raised, in one line of bounded length: it is kept, printed, and sent."""
    text = " ".join(str(error).split())[:_TOLD_LENGTH_MAX]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
