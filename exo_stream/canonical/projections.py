"""The projections of a platform's events: any number, each with a file and a task of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from os import PathLike, fspath
from pathlib import Path
from random import SystemRandom
from typing import Final

import trio

from exo_stream.canonical.projection import Projector
from exo_stream.canonical.projection_applying import Handler
from exo_stream.canonical.projection_rules import ProjectorConfig, ProjectorStatus, check_name
from exo_stream.errors import ConfigError
from exo_stream.ground import Ground
from exo_stream.nursery import nursery_unseen
from exo_stream.storage.hop import Hop, open_thread_hop
from exo_stream.storage.projection_file import Identity, file_of

_JITTER: Final = SystemRandom()

OpenHop = Callable[[str], AbstractAsyncContextManager[Hop]]


class Projections:
    """Named projections with their files in one folder, as ``CanonicalStore.projections`` opens.

    What happens to one is none of the others' business: each has its own file, its own two
    threads, its own task and its own state.
    """

    def __init__(
        self,
        ground: Ground,
        folder: Path,
        nursery: trio.Nursery,
        open_hop: OpenHop,
        stack: AsyncExitStack,
    ) -> None:
        self._ground = ground
        self._folder = folder
        self._nursery = nursery
        self._open_hop = open_hop
        self._stack = stack
        self._projectors: dict[str, Projector] = {}

    async def add(
        self,
        name: str,
        handler: Handler,
        *,
        tables: Sequence[str] = (),
        schema_version: int = 1,
        config: ProjectorConfig | None = None,
        run: bool = True,
        chance: Callable[[], float] = _JITTER.random,
    ) -> Projector:
        """Project every event through ``handler`` into the file ``NAME.duckdb`` of the folder.

        ``tables`` is SQL that makes its tables, run in a new file and by every rebuild; whoever
        changes it or the handler raises ``schema_version``, which asks for a ``rebuild``. With
        ``run`` a task applies events as they come; else ``run_once`` and ``catch_up`` do. What
        is wrong with the file shows in the projection's state. ``chance``, for tests, is the
        jitter. Raises ConfigError for a name that cannot be, or is taken.
        """
        check_name(name)
        if name in self._projectors:
            raise ConfigError(f"there is a projection {name} already")
        if type(schema_version) is not int or not 0 <= schema_version < 1 << 32:
            raise ConfigError("a schema version is a number from 0 to 2**32 - 1")
        log_id = self._ground.sources.log_id
        identity = Identity(name, log_id, schema_version, tuple(tables))
        writing = await self._stack.enter_async_context(self._open_hop(f"writer of {name}"))
        reading = await self._stack.enter_async_context(self._open_hop(f"reader of {name}"))
        projector = Projector(
            self._ground,
            file_of(self._folder, name),
            identity,
            handler,
            config or ProjectorConfig(),
            hops=(writing, reading),
            chance=chance,
        )
        self._projectors[name] = projector
        self._stack.push_async_callback(projector.close)
        self._ground.companions.append(projector)
        self._stack.callback(self._ground.companions.remove, projector)
        if run:
            projector.resume()
        self._nursery.start_soon(projector.run_continuous)
        return projector

    def __getitem__(self, name: str) -> Projector:
        return self._projectors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._projectors)

    def __len__(self) -> int:
        return len(self._projectors)

    async def statuses(self) -> list[ProjectorStatus]:
        """How each of them is, in the order they were added."""
        await trio.lowlevel.checkpoint()
        return [await projector.status() for projector in self._projectors.values()]


@asynccontextmanager
async def open_projections(
    ground: Ground,
    folder: str | PathLike[str],
    *,
    open_hop: OpenHop = open_thread_hop,
    among: list[Projections] | None = None,
) -> AsyncIterator[Projections]:
    """Run projections while the body runs; their files are closed in order after it.

    They are in the list ``among`` meanwhile. ``open_hop`` is for tests: it replaces the threads.
    """
    # The files are closed after their tasks have ended, and the threads after the files.
    async with AsyncExitStack() as stack:
        with nursery_unseen() as own:
            async with trio.open_nursery() as nursery:
                projections = Projections(ground, Path(fspath(folder)), nursery, open_hop, stack)
                known = [] if among is None else among
                known.append(projections)
                stack.callback(known.remove, projections)
                with own:
                    yield projections
                nursery.cancel_scope.cancel()
