"""What all requests to the streams of one port share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import random
from typing import Final

from exo_stream.platform import Platform
from exo_stream.protocol.http import Headers, Response
from exo_stream.protocol.streams import cursors
from exo_stream.server.port import Port
from exo_stream.server.request import Request
from exo_stream.server.streams.hub import Hub
from exo_stream.server.streams.settings import StreamSettings
from exo_stream.streams.streams import Streams

NO_STORE: Final = ("cache-control", "no-store")
UP_TO_DATE: Final = ("stream-up-to-date", "true")
CLOSED: Final = ("stream-closed", "true")


@dataclass(eq=False)
class Service:
    """The platform's streams, the port they are served on, how, and who waits at their ends.

    ``clock`` answers microseconds since the Unix epoch.
    """

    platform: Platform
    port: Port
    settings: StreamSettings
    clock: Callable[[], int]

    def __post_init__(self) -> None:
        self._hub: Hub | None = None

    @property
    def streams(self) -> Streams:
        """The Storage methods."""
        return self.platform.streams

    def hub(self, request: Request) -> Hub:
        """Who waits at the ends of streams: with everybody on this port, once it is listening."""
        frontier = self.platform.sources.frontier
        if self.port.tasks is None:
            return Hub(self.streams, frontier, request.nursery, self.clock)
        if self._hub is None:
            self._hub = Hub(self.streams, frontier, self.port.tasks, self.clock)
        return self._hub

    def ahead(self, asked: str | None) -> str:
        """A cursor for a client whose own is not behind ours; empty for all others."""
        if asked is None:
            return ""
        now = self.clock()
        cursor = cursors.cursor(now, asked, random())  # noqa: S311  nothing secret depends on it
        return "" if cursor == cursors.cursor(now, None, 0) else cursor

    def cursor(self, ahead: str) -> str:
        """The cursor of an answer that is made now."""
        return ahead or cursors.cursor(self.clock(), None, 0)


def empty(status: int, *headers: tuple[str, str], more: Headers = ()) -> Response:
    """An answer without a body, which no cache keeps."""
    return Response(status, (*headers, *more, NO_STORE))
