"""The port: what all connections of one listener share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final

import trio

from exo_stream.limits import Limits
from exo_stream.logger import log
from exo_stream.protocol.origin import Visitors
from exo_stream.server.budget import Budget
from exo_stream.server.routes import Routes
from exo_stream.server.transport import Transport

_PATIENCE_SECONDS: Final = 1
"""A peer that took nothing for so long may be cut when others wait for memory."""

Leave = Callable[[], None]
"""Asks a connection to end soon: at once if it is idle, else when its answer is sent."""


@dataclass(eq=False)
class Port:
    """Bounds, routes and visitors, and who is connected at the moment."""

    limits: Limits
    visitors: Visitors
    routes: Routes = field(default_factory=Routes)
    draining: bool = False
    tasks: trio.Nursery | None = None
    """For what serves several connections: it lasts until the last of them has ended."""

    def __post_init__(self) -> None:
        self.budget = Budget(self.limits.in_flight_bytes_max, self.cut_slowest)
        self.transports: set[Transport] = set()
        self._leaves: set[Leave] = set()
        self._date = ("", -1)

    @contextmanager
    def told_to_leave(self, leave: Leave) -> Iterator[None]:
        """Inside, ``leave`` is called when the port drains; at once if it already does."""
        self._leaves.add(leave)
        try:
            if self.draining:
                leave()
            yield
        finally:
            self._leaves.discard(leave)

    def drain(self) -> None:
        """Be not ready any more, and ask every connection to end."""
        self.draining = True
        for leave in tuple(self._leaves):
            leave()

    def cut_slowest(self) -> None:
        """Close by force the connection whose peer has taken nothing for the longest time."""
        latest = trio.current_time() - _PATIENCE_SECONDS
        blocked = [
            (transport.blocked_since, id(transport), transport)
            for transport in self.transports
            if transport.blocked_since is not None
            and transport.blocked_since <= latest
            and not transport.closed
        ]
        if blocked:
            since, _, slowest = min(blocked)
            log.info("slowest peer cut", seconds=trio.current_time() - since)
            slowest.kill()

    def date(self) -> str:
        """The time as HTTP writes it, made once a second."""
        second = int(trio.current_time())
        if self._date[1] != second:
            self._date = (formatdate(usegmt=True), second)
        return self._date[0]
