"""Routes: which function answers which method and path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from exo_stream.protocol.http import Headers, RefusedError, Response
from exo_stream.server.request import BodyWriter, Request
from exo_stream.server.transport import Transport

ANY_METHOD: Final = "*"
"""A route that judges the method itself."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A response whose body ``write`` sends piece by piece, as for Server-Sent Events.

    It is cancelled when the peer leaves. An error in it can only cut the connection.
    """

    status: int
    headers: Headers
    write: Callable[[BodyWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Takeover:
    """No response: ``run`` has the connection from here to its end, as a WebSocket does.

    What followed the head comes first when the transport is read.
    """

    run: Callable[[Transport], Awaitable[None]]


Answer = Response | Streamed | Takeover

Handler = Callable[[Request], Awaitable[Answer]]
"""Answers one request; an ExoStreamError or RefusedError it raises becomes a problem."""


class Routes:
    """Handlers by path and method. A path that ends in ``/*`` takes everything below it."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Handler]] = {}
        self._below: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Have ``handler`` answer; the route must be new. GET answers HEAD as well."""
        table, key = (self._below, path[:-1]) if path.endswith("/*") else (self._exact, path)
        methods = table.setdefault(key, {})
        assert method not in methods, (method, path)
        methods[method] = handler

    def find(self, method: str, path: str) -> Handler:
        """The handler for a request. Raises RefusedError: 404, or 405 with what is allowed."""
        methods = self._exact.get(path) or self._longest_below(path)
        if methods is None:
            raise RefusedError(404, "invalid_request", "there is nothing at this path")
        handler = methods.get(method) or methods.get(ANY_METHOD)
        if handler is None and method == "HEAD":
            handler = methods.get("GET")
        if handler is None:
            allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
            raise RefusedError(
                405,
                "invalid_request",
                f"this path does not answer {method}",
                (("allow", ", ".join(allowed)),),
            )
        return handler

    def _longest_below(self, path: str) -> dict[str, Handler] | None:
        matching = [prefix for prefix in self._below if path.startswith(prefix)]
        return self._below[max(matching, key=len)] if matching else None
