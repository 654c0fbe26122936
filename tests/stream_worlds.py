"""Streams as a test meets them: embedded or through a client, with a clock that it moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from trio.testing import MockClock

from exo_stream import Platform
from exo_stream.storage.engine import Engine
from exo_stream.streams.offset import Offset
from exo_stream.streams.verify import StreamCheck
from exo_stream.testing import FakeClock, connected
from tests.worlds import in_memory


@dataclass(frozen=True, slots=True)
class World:
    """``streams`` is what is tested; the platform behind it is there to be looked into."""

    streams: Any
    platform: Platform
    clock: FakeClock

    async def text(self, name: str, offset: Any = "-1") -> bytes:
        """All that follows ``offset``, read page by page."""
        found = b""
        while True:
            page = await self.streams.read(name, offset)
            found += b"".join(message.data for message in page.messages)
            if page.up_to_date:
                return found
            offset = page.next_offset

    async def upkeep(self) -> None:
        """Have everything done that is to be done by now."""
        upkeep = self.platform.streams.upkeep
        upkeep._next_look, upkeep._has_remainders = 0, True
        await upkeep.sweep()
        await upkeep._drop_remainders()


Open = Callable[..., AbstractAsyncContextManager[World]]


@asynccontextmanager
async def embedded(engine: Engine | None = None, **options: Any) -> AsyncIterator[World]:
    clock = options.pop("clock", None) or FakeClock()
    async with in_memory(engine)(clock=clock, **options) as platform:
        yield World(platform.streams, platform, clock)


@asynccontextmanager
async def remote(engine: Engine | None = None, **options: Any) -> AsyncIterator[World]:
    async with embedded(engine, **options) as world, connected(world.platform) as client:
        yield World(client.streams, world.platform, world.clock)


def both_worlds() -> Any:
    """The fixture ``world`` of a module whose tests are to hold for either."""

    @pytest.fixture(params=[embedded, remote], ids=["embedded", "client"])
    async def world(
        request: pytest.FixtureRequest, autojump_clock: MockClock
    ) -> AsyncIterator[World]:
        open_: Open = request.param
        async with open_() as world:
            yield world

    return world


def at(position: int) -> Offset:
    return Offset.at(position)


async def rows(platform: Platform, keyspace: int) -> list[bytes]:
    """The keys of all live rows of a keyspace."""
    sources = platform.sources
    found: list[bytes] = []
    start: bytes | None = bytes([keyspace])
    while start is not None:
        page = await sources.reads.page(
            sources.reads.engine.version,
            start,
            bytes([keyspace + 1]),
            rows_max=1_000,
            forward=True,
        )
        found += [row.key[1:] for row in page.rows]
        start = page.resume
    return found


async def check_streams(platform: Platform) -> None:
    """What ``exo-stream verify`` asks of the streams of a file."""
    sources, check = platform.sources, StreamCheck()
    start: bytes | None = b"\x00"
    while start is not None:
        page = await sources.reads.page(
            sources.reads.engine.version, start, b"\xff", rows_max=1_000, forward=True
        )
        for row in page.rows:
            value = row.value or b""
            head = value[: check.heads.get(row.key[0], 0)]
            check.take(row.key[0], row.key[1:], head, len(value))
        start = page.resume
    assert check.problems() == []
