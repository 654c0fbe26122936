"""The routes of the streams face: every path below /v1/stream/, and /v1/streams for several."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from exo_stream.errors import ExoStreamError
from exo_stream.logger import log
from exo_stream.platform import Platform
from exo_stream.protocol.http import Headers, RefusedError, Response
from exo_stream.protocol.origin import ANY
from exo_stream.protocol.streams.asked import fields_of
from exo_stream.protocol.streams.cors import METHODS, PREFLIGHT, origin_headers
from exo_stream.protocol.streams.names import ROOT, stream_name
from exo_stream.protocol.streams.problems import problem, refusal_of, refused, renamed
from exo_stream.protocol.streams.queries import streams_query
from exo_stream.protocol.streams.subscribing import CONTROL
from exo_stream.server.port import Port
from exo_stream.server.request import Request
from exo_stream.server.routes import ANY_METHOD, Answer, Streamed, Takeover
from exo_stream.server.streams.following import Following
from exo_stream.server.streams.rates import Rates
from exo_stream.server.streams.reading import Reading
from exo_stream.server.streams.service import Service, empty
from exo_stream.server.streams.settings import StreamSettings
from exo_stream.server.streams.subscriptions import SubscriptionRoutes
from exo_stream.server.streams.writing import Writing
from exo_stream.storage.memory_engine import wall_clock

SEVERAL: Final = "/v1/streams"
"""Events of several streams over one connection."""

_WRITES: Final = frozenset({"PUT", "POST", "DELETE"})
_METHODS: Final = frozenset(METHODS.split(", "))


class StreamRoutes:
    """Answers requests to streams, in their own words whatever happens."""

    def __init__(
        self,
        platform: Platform,
        port: Port,
        settings: StreamSettings,
        *,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        self._port = port
        self._service = Service(platform, port, settings, clock)
        self._reading = Reading(self._service)
        self._writing = Writing(self._service)
        self._subscriptions = SubscriptionRoutes(self._service)
        rate = settings.requests_per_second
        self._rates = None if rate is None else Rates(rate)
        self._is_open = ANY in port.visitors.origins

    def add_routes(self) -> None:
        """Let the port answer them. Longer routes below /v1/stream/ win over this one."""
        self._port.routes.add(ANY_METHOD, f"{ROOT}*", self.answer)
        self._port.routes.add(ANY_METHOD, SEVERAL, self.answer)

    async def answer(self, request: Request) -> Answer:
        """The answer to any request: errors are problems with the codes of this face."""
        head = request.head
        fields = fields_of(head.headers)
        origin = fields.get("origin")
        shown = origin_headers(
            origin,
            is_listed=origin is not None and self._port.visitors.lists(origin),
            is_open=self._is_open,
        )
        try:
            answer = await self._judge(request, fields)
        except RefusedError as error:
            refusal = renamed(error)
        except ExoStreamError as error:
            refusal = refusal_of(error)
            if refusal.status == 500:
                log.exception("stream request failed", path=head.path, code=error.code)
        else:
            return _with(answer, shown)
        await trio.lowlevel.checkpoint_if_cancelled()
        return problem(refusal, head.path, shown)

    async def _judge(self, request: Request, fields: dict[str, str]) -> Answer:
        head = request.head
        await trio.lowlevel.checkpoint_if_cancelled()
        if head.method == "OPTIONS":
            return empty(204, *PREFLIGHT)
        if head.method not in _METHODS or (head.path == SEVERAL and head.method in _WRITES):
            raise refused(
                "METHOD_NOT_ALLOWED",
                f"streams do not answer {head.method} here",
                (("allow", METHODS),),
            )
        self._check(request, fields)
        if head.path == SEVERAL:
            return await self._follow(request)
        if head.path.startswith(CONTROL):
            return await self._subscriptions.answer(request, fields)
        return await self._ask(request, stream_name(head.path), fields)

    async def _ask(self, request: Request, name: str, fields: dict[str, str]) -> Answer:
        match request.head.method:
            case "POST":
                return await self._writing.post(request, name, fields)
            case "GET":
                return await self._reading.get(request, name, fields)
            case "HEAD":
                return await self._reading.head(name)
            case "PUT":
                return await self._writing.put(request, name, fields)
            case _:
                return await self._writing.delete(name)

    def _check(self, request: Request, fields: dict[str, str]) -> None:
        """Refuse the writes of foreign pages, and who asks too often."""
        origin = fields.get("origin")
        if (
            origin is not None
            and request.head.method in _WRITES
            and not self._port.visitors.knows_origin(origin, fields.get("host"))
        ):
            raise refused("FORBIDDEN_ORIGIN", "pages of this origin may not write")
        if self._rates is not None:
            wait = self._rates.take(request.remote, trio.current_time())
            if wait:
                raise refused("RATE_LIMITED", "too many requests", (("retry-after", str(wait)),))

    async def _follow(self, request: Request) -> Streamed:
        await trio.lowlevel.checkpoint_if_cancelled()
        service = self._service
        wanted = streams_query(request.head.query)
        following = Following(service, service.hub(request), "", is_labelled=True)
        starts = [
            (name, (await following.start(name, offset)).start_offset) for name, offset in wanted
        ]
        headers: Headers = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
        return Streamed(200, headers, partial(following.run, starts))


def _with(answer: Answer, headers: Headers) -> Answer:
    match answer:
        case Response(status, own, body):
            return Response(status, own + headers, body)
        case Streamed(status, own, write):
            return Streamed(status, own + headers, write)
        case Takeover():
            raise AssertionError("no stream is taken over")
