"""The dead letters of one projection: looked at, replayed by hand or by themselves, forgotten."""

from __future__ import annotations

from typing import Final

import trio

from exo_stream.canonical.projection_applying import STORAGE, Applier
from exo_stream.canonical.projection_kept import KeptFile
from exo_stream.canonical.projection_rules import ProjectorConfig, ReplayConfig, RunStats
from exo_stream.errors import (
    ExoStreamError,
    InvalidRequestError,
    InvalidStateError,
    ProjectionError,
)
from exo_stream.logger import log
from exo_stream.storage.dead_letter import DeadLetter
from exo_stream.storage.projection_file import ProjectionFile

LETTERS_MAX: Final = 1_000
"""So many are listed or replayed in one call."""

_BYTES_MAX: Final = 16 << 20
"""Of the events of one listing; one alone may have as many as an event has."""


class DeadLetters:
    """What a projection has put aside. A replay is one transaction: the letter goes with the
    effect, or is counted as failed once more. It is out of order, and does not move the cursor.
    """

    def __init__(
        self, name: str, kept: KeptFile, applier: Applier, config: ProjectorConfig
    ) -> None:
        self._name = name
        self._kept = kept
        self._applier = applier
        self._config = config

    async def page(self, first: int, limit: int) -> list[DeadLetter]:
        """Some of them by id, from the id ``first`` on."""
        _check(first, limit)
        return await self._kept.letters(first, limit, _BYTES_MAX)

    async def replay(self, limit: int) -> RunStats:
        """Replay the oldest that are not permanent."""
        _check(0, limit)
        began, applied, failed, size = trio.current_time(), 0, 0, 0
        for event_id in await self._kept.letters_due(None, limit):
            try:
                letter = await self._replay(event_id, forced=False)
            except ProjectionError:
                failed += 1
                continue
            if letter is not None:  # else somebody else has just replayed it
                applied += 1
                size += len(letter.event_bytes)
        duration = trio.current_time() - began
        return RunStats(applied, size, duration, self._cursor, 0, failed)

    async def replay_one(self, event_id: int) -> None:
        """Replay this one, though it be permanent. Raises what its handler's failure is."""
        _check(event_id, 1)
        if await self._replay(event_id, forced=True) is None:
            raise InvalidStateError(f"event {event_id} is not put aside")

    async def remove(self, event_id: int) -> None:
        """Forget this one, if it is there."""
        _check(event_id, 1)
        async with self._kept.turn:
            await self._applier.forget(await self._kept.opened(), event_id)

    async def replay_when_due(self, config: ReplayConfig) -> None:
        """Replay them as they become due, until cancelled."""
        delays = config.delays(self._config.replay_retries_max)
        while True:
            await trio.sleep(config.check_interval_ms / 1_000)
            try:
                await self._replay_due(config, delays)
            except ExoStreamError as error:
                # Of the file, or of a platform that stops: whoever follows the events sees to it.
                log.warning("replay given up", projection=self._name, error=str(error))

    async def _replay_due(self, config: ReplayConfig, delays: list[int]) -> None:
        failures = 0
        for event_id in await self._kept.letters_due(delays, config.batch_max):
            try:
                await self._replay(event_id, forced=False)
            except ProjectionError as error:
                log.warning("replay failed", projection=self._name, error=str(error))
                failures += 1
            else:
                failures = 0
            if failures >= config.failures_max:
                break

    async def _replay(self, event_id: int, *, forced: bool) -> DeadLetter | None:
        """Replay one, and return what it was; None if it is not there, or is left alone."""
        async with self._kept.turn:
            file = await self._kept.opened()
            found = await self._kept.letters(event_id, 1, _BYTES_MAX)
            if not found or found[0].event_id != event_id or (found[0].permanent and not forced):
                return None
            try:
                await self._applier.replay(file, found[0])
            except (ProjectionError, *STORAGE) as error:
                failure: ExoStreamError = error
            else:
                return found[0]
            if isinstance(failure, ProjectionError):
                failure = await self._noted(file, found[0], failure)
            if isinstance(failure, STORAGE):
                await self._kept.let_go()  # what it holds is known when it is opened again
            raise failure

    async def _noted(
        self, file: ProjectionFile, letter: DeadLetter, failure: ProjectionError
    ) -> ExoStreamError:
        """Count a replay that failed; what is to be raised for it."""
        try:
            await self._applier.note_replay(file, letter, failure)
        except STORAGE as error:
            return error  # noqa: ASYNC910  that was one
        return failure

    @property
    def _cursor(self) -> int | None:
        return None if self._kept.file is None else self._kept.file.cursor


def _check(event_id: int, limit: int) -> None:
    if type(event_id) is not int or not 0 <= event_id < 1 << 64:
        raise InvalidRequestError("an event id is an unsigned 64-bit integer")
    if type(limit) is not int or not 1 <= limit <= LETTERS_MAX:
        raise InvalidRequestError(f"from 1 to {LETTERS_MAX} dead letters are asked for")
