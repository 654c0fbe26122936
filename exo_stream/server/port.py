"""The port: what all connections of one listener share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate

import trio

from exo_stream.limits import Limits
from exo_stream.protocol.origin import Visitors
from exo_stream.server.budget import Budget
from exo_stream.server.routes import Routes

Leave = Callable[[], None]
"""Asks a connection to end soon: at once if it is idle, else when its answer is sent."""


@dataclass(eq=False)
class Port:
    """Bounds, routes and visitors, and who is connected at the moment."""

    limits: Limits
    visitors: Visitors
    routes: Routes = field(default_factory=Routes)
    draining: bool = False

    def __post_init__(self) -> None:
        self.budget = Budget(self.limits.in_flight_bytes_max)
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

    def date(self) -> str:
        """The time as HTTP writes it, made once a second."""
        second = int(trio.current_time())
        if self._date[1] != second:
            self._date = (formatdate(usegmt=True), second)
        return self._date[0]
