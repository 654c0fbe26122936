"""The file of one projection as its projector keeps it: opened, let go of, replaced, at rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from exo_stream.canonical.projection_txn import interruptible
from exo_stream.errors import ExoStreamError, InvalidStateError, OverloadedError
from exo_stream.ground import Ground
from exo_stream.logger import log
from exo_stream.storage.at_rest import AtRest
from exo_stream.storage.dead_letter import DeadLetter
from exo_stream.storage.hop import Hop
from exo_stream.storage.lock_file import LockFile
from exo_stream.storage.projection_copy import put_to_rest
from exo_stream.storage.projection_file import (
    Identity,
    ProjectionFile,
    Rows,
    begin_rebuilt,
    drop_rebuilt,
    install_rebuilt,
    open_projection_file,
)


class KeptFile:
    """The file of one projection; None is in ``file`` until it is needed, and after it has failed.

    ``turn`` is held by whoever writes to it: the handler is never called beside itself.
    """

    def __init__(
        self,
        ground: Ground,
        path: Path,
        identity: Identity,
        target: Callable[[], Awaitable[int]],
        hops: tuple[Hop, Hop],
    ) -> None:
        self.turn: Final = trio.StrictFIFOLock()
        self.write, self._read = hops
        self.file: ProjectionFile | None = None
        self._ground = ground
        self._path = path
        self._identity = identity
        self._target = target
        self._reading = trio.StrictFIFOLock()
        """Held by whoever reads the tables, or puts other ones in their place."""
        self._is_over = False

    @property
    def next_event_id(self) -> int:
        """The id of the event to be applied next."""
        return 0 if self.file is None else self.file.next_event_id

    async def opened(self) -> ProjectionFile:
        """The file, opened if it is not. Raises what a rebuild cures, and FileInUseError."""
        if self.file is None:
            newest = await self._target()
            self.file = await self.write(partial(self._open, newest))
        return self.file  # noqa: ASYNC910  # what follows is one

    async def let_go(self) -> None:
        """Close a file that has failed; what it holds is known when it has been opened again."""
        async with self._reading:
            file, self.file = self.file, None
            if file is not None:
                await self.write(file.drop)

    async def query(self, sql: str, parameters: Sequence[object]) -> Rows:
        """The rows of a SELECT, beside whoever writes."""
        async with self._reading:
            file = self.file
            if file is None:
                raise InvalidStateError(f"projection {self._identity.name} has no tables")
            with trio.move_on_after(self._ground.sources.limits.query_seconds_max):
                call = partial(file.read, sql, tuple(parameters))
                return await interruptible(self._read, call, file.interrupt_read)
        raise OverloadedError("the query took too long and was stopped")

    async def letters(self, first: int, limit: int, bytes_max: int) -> list[DeadLetter]:
        """Dead letters from the id ``first`` on, as ``ProjectionFile.letters`` says."""
        async with self._reading:
            if self.file is None:
                return []
            return await self._read(partial(self.file.letters, first, limit, bytes_max))

    async def letters_due(self, delays: Sequence[int] | None, limit: int) -> list[int]:
        """The ids of dead letters that may be replayed now, as ``ProjectionFile`` says."""
        now = self._ground.clock()
        async with self._reading:
            if self.file is None:
                return []
            return await self._read(partial(self.file.letters_due, now, delays, limit))

    async def replace(self, fill: Callable[[ProjectionFile], Awaitable[None]]) -> None:
        """Have ``fill`` fill an empty file, which takes the old one's place in one step.

        If it raises, or is cancelled, the old one is there as before. ``turn`` is held.
        """
        old = self.file
        now = self._ground.clock()
        rebuilt = await self.write(partial(begin_rebuilt, self._path, self._identity, old, now=now))
        try:
            await fill(rebuilt)
            newest = await self._target()
            async with self._reading:
                self.file = await self.write(partial(self._swapped, rebuilt, old, newest))
        except BaseException:
            if old is not None and old.is_closed:
                self.file = None
            with trio.CancelScope(shield=True):  # a thread cannot be left
                await self.write(partial(drop_rebuilt, rebuilt))
            raise

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[AtRest | None]:
        """Complete and closed while the body runs; queries wait meanwhile. ``turn`` is held.

        None if there is none to be used. A copy made in the body is consistent by itself: all of
        it is in the one file, since the write-ahead log was emptied, and nobody changes it.
        """
        async with self._reading:
            found, file = await self._put_to_rest(), self.file
            try:
                yield found
            finally:
                if found is not None and file is not None:
                    with trio.CancelScope(shield=True):  # bounded by the opening of a file
                        await self._wake(file)

    async def close(self) -> None:  # noqa: ASYNC910  none, if there is nothing to close
        """Let go of it for ever."""
        self._is_over, (file, self.file) = True, (self.file, None)
        with trio.CancelScope(shield=True):  # bounded by one CHECKPOINT; a thread cannot be left
            if file is not None and not file.is_closed:  # else it is at rest, and let go of then
                await self.write(file.close)

    async def _put_to_rest(self) -> AtRest | None:
        if self._is_over:
            await trio.lowlevel.checkpoint()
            return None
        try:
            return await self.write(partial(put_to_rest, await self.opened(), self._identity))
        except ExoStreamError as error:
            log.warning("projection not at rest", projection=self._identity.name, error=str(error))
            return None  # noqa: ASYNC910  what failed was one

    async def _wake(self, file: ProjectionFile) -> None:
        await trio.lowlevel.checkpoint()
        if self.file is not file:
            file.release()  # closed meanwhile
            return
        self.file = None
        try:
            # Nobody has applied more meanwhile.
            self.file = await self.write(partial(self._open, file.next_event_id, file.lock))
        except ExoStreamError as error:
            log.warning("projection not reopened", projection=self._identity.name, error=str(error))

    def _swapped(
        self, rebuilt: ProjectionFile, old: ProjectionFile | None, newest: int
    ) -> ProjectionFile:
        install_rebuilt(rebuilt, self._path, old)
        return self._open(newest, rebuilt.lock if old is None else old.lock)

    def _open(self, newest: int, lock: LockFile | None = None) -> ProjectionFile:
        now = self._ground.clock()
        return open_projection_file(self._path, self._identity, newest=newest, now=now, lock=lock)
