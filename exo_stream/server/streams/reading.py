"""Reading streams over HTTP: a page at once, or a wait for what comes; what a stream is like."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import trio

from exo_stream.protocol.http import Headers, Response
from exo_stream.protocol.streams.etags import is_known
from exo_stream.protocol.streams.events import encoding_of
from exo_stream.protocol.streams.instants import rfc_3339
from exo_stream.protocol.streams.queries import ReadQuery, read_query
from exo_stream.server.request import Request
from exo_stream.server.routes import Answer, Streamed
from exo_stream.server.streams.following import Following
from exo_stream.server.streams.hub import Seat
from exo_stream.server.streams.portions import Portion
from exo_stream.server.streams.service import CLOSED, NO_STORE, UP_TO_DATE, Service, empty
from exo_stream.streams.offset import Offset
from exo_stream.streams.values import ReadResult, media_type


class Reading:
    """Answers GET and HEAD."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._page_bytes_max = service.port.limits.page_bytes_max
        caches = service.settings.caches
        self._cached = ("cache-control", f"{caches}, max-age=60, stale-while-revalidate=300")

    async def get(self, request: Request, name: str, fields: Mapping[str, str]) -> Answer:
        """A page of the stream; or, of a live read, what comes next."""
        query = read_query(request.head.query)
        if query.live == "sse":
            return await self._follow(request, name, query)
        await request.wait_hold(self._page_bytes_max)
        result = await self._service.streams.read(
            name, query.offset or "-1", bytes_max=self._page_bytes_max
        )
        body = result.body
        request.release(self._page_bytes_max - len(body))
        if query.live == "long-poll":
            return await self._long_poll(request, query, result, body)
        if query.offset == "now":
            return Response(200, (_type(result), *_position(result), NO_STORE), body)
        tag = result.etag
        headers = (*_position(result), ("etag", tag), self._cached)
        if is_known(fields.get("if-none-match"), tag):
            return Response(304, headers)
        return Response(200, (_type(result), *headers), body)

    async def head(self, name: str) -> Response:
        """What the stream is like; its time to live runs on."""
        result = await self._service.streams.head(name)
        config = result.config
        headers: Headers = (
            ("content-type", config.content_type),
            ("stream-next-offset", str(result.next_offset)),
        )
        if result.oldest_offset != Offset.start():
            headers += (("stream-oldest-offset", str(result.oldest_offset)),)
        if config.ttl_seconds is not None:
            headers += (("stream-ttl", str(config.ttl_seconds)),)
        if config.expires_at is not None:
            headers += (("stream-expires-at", rfc_3339(config.expires_at)),)
        if config.retention_seconds is not None:
            headers += (("stream-retention-seconds", str(config.retention_seconds)),)
        if config.retention_bytes is not None:
            headers += (("stream-retention-bytes", str(config.retention_bytes)),)
        if result.closed:
            headers += (CLOSED,)
        return empty(200, *headers)

    async def _follow(self, request: Request, name: str, query: ReadQuery) -> Streamed:
        following = Following(
            self._service,
            self._service.hub(request),
            self._service.ahead(query.cursor),
            is_labelled=False,
        )
        start = await following.start(name, query.offset or "-1")
        headers: Headers = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
        if encoding_of(media_type(start.config.content_type)) == "base64":
            headers += (("stream-sse-data-encoding", "base64"),)
        return Streamed(200, headers, partial(following.run, [(name, start.start_offset)]))

    async def _long_poll(
        self, request: Request, query: ReadQuery, result: ReadResult, body: bytes
    ) -> Response:
        await trio.lowlevel.checkpoint_if_cancelled()
        ahead = self._service.ahead(query.cursor)
        if not result.stored and not (result.closed and result.up_to_date):
            portion = await self._wait(request, result)
            if portion is None:
                tail = ("stream-next-offset", str(result.next_offset))
                cursor = ("stream-cursor", self._service.cursor(ahead))
                return empty(204, tail, UP_TO_DATE, cursor)
            result, body = portion.result, portion.body
        if not result.stored:
            return empty(204, *_position(result))
        cursor = ("stream-cursor", self._service.cursor(ahead))
        headers = (*_position(result), cursor, ("etag", result.etag), self._cached)
        return Response(200, (_type(result), *headers), body)

    async def _wait(self, request: Request, result: ReadResult) -> Portion | None:
        """What follows ``result``, as soon as something does; None if it takes too long."""
        found: list[Portion] = []

        def take(portion: Portion) -> bool:
            found.append(portion)
            return False

        service, hub = self._service, self._service.hub(request)
        seat = Seat(result.next_offset.position, take, trio.Event())
        async with request.watched():
            with (
                trio.move_on_after(service.settings.long_poll_seconds) as scope,
                service.port.told_to_leave(scope.cancel),
            ):
                hub.sit(result.name, result.sequence, seat)
                try:
                    await seat.woken.wait()
                finally:
                    hub.leave(result.name, seat)
        if found or not seat.is_lost:
            return found[0] if found else None
        # Sent away: the stream is gone, or the platform is. The read says which.
        again = await service.streams.read(result.name, result.next_offset, bytes_max=1)
        return Portion(again, service.clock()) if again.stored or again.closed else None


def _type(result: ReadResult) -> tuple[str, str]:
    return ("content-type", result.config.content_type)


def _position(result: ReadResult) -> Headers:
    """Where the next read goes on, and whether there is anything for it at the time."""
    offset = ("stream-next-offset", str(result.next_offset))
    if not result.up_to_date:
        return (offset,)
    return (offset, UP_TO_DATE, CLOSED) if result.closed else (offset, UP_TO_DATE)
