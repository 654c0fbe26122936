"""The two handles that programs hold, over one engine in memory: embedded, and a client's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from trio.testing import MockClock

from exo_stream import Client, Platform
from tests.network import connected_over, networked
from tests.worlds import in_memory

Handle = Platform | Client


@asynccontextmanager
async def embedded() -> AsyncIterator[Handle]:
    async with in_memory()() as platform:
        yield platform


@asynccontextmanager
async def remote() -> AsyncIterator[Handle]:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            yield client


def both_handles() -> Any:
    """The fixture ``handle`` of a module whose tests are to hold for either."""

    @pytest.fixture(params=[embedded, remote], ids=["embedded", "client"])
    async def handle(
        request: pytest.FixtureRequest, autojump_clock: MockClock
    ) -> AsyncIterator[Handle]:
        async with request.param() as handle:
            yield handle

    return handle
