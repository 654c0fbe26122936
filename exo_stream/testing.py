"""The test kit: what you put in place of threads, disks and clocks to test a program of yours.

``open_platform(":memory:", hop=in_place, clock=FakeClock())`` runs without a thread, so that it
works under ``trio.testing.MockClock``, where a minute takes no time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import trio
from trio.testing import memory_stream_pair

from exo_stream.client import Client, connect
from exo_stream.client.address import Address
from exo_stream.errors import StoreError
from exo_stream.nursery import nursery_unseen
from exo_stream.platform import Platform
from exo_stream.protocol.origin import Visitors
from exo_stream.server.listener import Listener
from exo_stream.server.serve import open_port
from exo_stream.storage.hop import in_place

__all__ = ["FakeClock", "FaultyHop", "connected", "in_place"]

T = TypeVar("T")

MORNING: Final = 1_700_000_000_000_000
"""When a fake clock begins: 14 November 2023, in microseconds since the Unix epoch."""


class FakeClock:
    """A wall clock that stands still until it is moved, in either direction."""

    def __init__(self, microseconds: int = MORNING) -> None:
        self.microseconds = microseconds

    def __call__(self) -> int:
        """What time it is, in microseconds since the Unix epoch."""
        return self.microseconds

    def advance(self, seconds: float) -> None:
        """Let so much time pass; a negative amount sets the clock back."""
        self.microseconds += round(seconds * 1_000_000)


class FaultyHop:
    """A hop that stays in place, takes ``latency`` seconds, and refuses the next ``failures``
    transactions before they begin.
    """

    def __init__(self, *, failures: int = 0, latency: float = 0.0) -> None:
        self.failures = failures
        self.latency = latency
        self.commits = 0
        """How many transactions it let through."""

    async def __call__(self, fn: Callable[[], T], /) -> T:
        """Run ``fn`` on the event loop, a little later."""
        await trio.sleep(self.latency)
        if isinstance(fn, partial) and fn.func.__name__ == "commit":
            if self.failures:
                self.failures -= 1
                raise StoreError("injected")
            self.commits += 1
        return fn()


@asynccontextmanager
async def connected(platform: Platform) -> AsyncIterator[Client]:
    """A client of ``platform``, over the real protocol and the real server, without a socket."""
    listener = Listener(open_port(platform, Visitors.welcome()))
    with nursery_unseen() as own:
        async with trio.open_nursery() as nursery:

            async def dial(_address: Address) -> trio.abc.Stream:
                near, far = memory_stream_pair()
                nursery.start_soon(listener.serve_stream, far, "memory")
                await trio.lowlevel.checkpoint()
                return near

            with own:
                async with connect("ws://127.0.0.1", dial=dial, limits=platform.limits) as client:
                    yield client
            nursery.cancel_scope.cancel()
