"""Writing to streams over HTTP: PUT creates and forks, POST appends and closes, DELETE deletes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import trio

from exo_stream.limits import KIB
from exo_stream.protocol.http import Headers, RefusedError, Response
from exo_stream.protocol.streams import elements
from exo_stream.protocol.streams.asked import (
    DEFAULT_TYPE,
    AskedAppend,
    AskedProducer,
    AskedStream,
    asked_append,
    asked_stream,
)
from exo_stream.protocol.streams.names import source_name
from exo_stream.protocol.streams.problems import refused
from exo_stream.server.request import Request
from exo_stream.server.streams.service import CLOSED, Service, empty
from exo_stream.stream_errors import StreamGoneError, StreamNotFoundError
from exo_stream.streams.values import (
    AppendResult,
    CreateResult,
    ProducerAppendResult,
    StreamConfig,
    StreamProducer,
    media_type,
)

JSON: Final = "application/json"

FRAMING_BYTES_MAX: Final = 64 * KIB
"""What a body of JSON may have beside its messages: brackets, commas, blanks."""

_THREAD_BYTES_MIN: Final = 1024 * KIB
"""Larger bodies of JSON are checked in a thread: their milliseconds are not everybody's."""


class Writing:
    """Answers PUT, POST and DELETE."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._bytes_max = service.port.limits.stream_append_bytes_max + FRAMING_BYTES_MAX

    async def put(self, request: Request, name: str, fields: Mapping[str, str]) -> Response:
        """Create the stream, or say that it is there already."""
        asked = asked_stream(fields)
        body = await self._body(request)
        result = await self._create(name, asked, body)
        location = f"http://{fields.get('host', 'localhost')}{request.head.path}"
        headers: Headers = (
            ("content-type", result.config.content_type),
            ("stream-next-offset", str(result.next_offset)),
        )
        if result.created:
            headers += (("location", location),)
        if result.closed:
            headers += (CLOSED,)
        return empty(201 if result.created else 200, *headers)

    async def post(self, request: Request, name: str, fields: Mapping[str, str]) -> Response:
        """Append to the stream, close it, or both."""
        try:
            asked = asked_append(fields)
            messages = await self._appended(asked, await self._body(request))
        except RefusedError as error:
            refusal = error
        else:
            return await self._append(name, asked, messages)
        # That there is no such stream comes before everything that is wrong with the request.
        await self._service.streams.head(name)
        raise refusal

    async def _append(self, name: str, asked: AskedAppend, messages: list[bytes]) -> Response:
        if asked.producer is not None:
            return await self._produce(name, asked, asked.producer, messages)
        streams = self._service.streams
        if not messages:
            return empty(204, *_where(await streams.close_stream(name)))
        result = await streams.batch_append(
            name,
            messages,
            asked.content_type,
            seq=asked.seq,
            expected_offset=asked.expected_offset,
            close=asked.is_closing,
        )
        return empty(204, *_where(result))

    async def delete(self, name: str) -> Response:
        """Delete the stream."""
        await self._service.streams.delete(name)
        return empty(204)

    async def _produce(
        self, name: str, asked: AskedAppend, producer: AskedProducer, messages: list[bytes]
    ) -> Response:
        result = await self._service.streams.append_with_producer(
            name,
            messages,
            asked.content_type if messages else None,
            StreamProducer(producer.id, producer.epoch, producer.seq),
            close=asked.is_closing,
            seq=asked.seq,
            expected_offset=asked.expected_offset,
        )
        headers = (
            *_where(result),
            ("producer-epoch", str(result.epoch)),
            ("producer-seq", str(result.seq)),
        )
        return empty(204 if result.duplicate or not messages else 200, *headers)

    async def _create(self, name: str, asked: AskedStream, body: bytes) -> CreateResult:
        streams = self._service.streams
        if asked.fork is None:
            config = StreamConfig(
                content_type=asked.content_type or DEFAULT_TYPE,
                ttl_seconds=asked.ttl_seconds,
                expires_at=asked.expires_at,
                closed=asked.is_closed,
                retention_seconds=asked.retention_seconds,
                retention_bytes=asked.retention_bytes,
            )
            messages = await self._messages(config.content_type, body)
            return await streams.create_stream_with_data(name, config, messages)
        source = source_name(asked.fork.source)
        content_type = asked.content_type
        messages = []
        if body:
            if content_type is None:
                content_type = await self._inherited_type(name, source)
            messages = await self._messages(content_type, body)
        return await streams.create_fork(
            name,
            source,
            offset=asked.fork.offset,
            sub_offset=asked.fork.sub_offset,
            content_type=content_type,
            ttl_seconds=asked.ttl_seconds,
            expires_at=asked.expires_at,
            retention_seconds=asked.retention_seconds,
            retention_bytes=asked.retention_bytes,
            messages=messages,
            close=asked.is_closed,
        )

    async def _inherited_type(self, name: str, source: str) -> str:
        """Of a fork that is there already its own: its source may be gone."""
        streams = self._service.streams
        with suppress(StreamNotFoundError, StreamGoneError):
            return (await streams.head(name)).config.content_type
        return (await streams.head(source)).config.content_type

    async def _appended(self, asked: AskedAppend, body: bytes) -> list[bytes]:
        """What a POST appends: nothing only if it closes."""
        if not body:
            if not asked.is_closing:
                raise refused("EMPTY_BODY", "there is nothing to append")
            await trio.lowlevel.checkpoint_if_cancelled()
            return []
        if asked.content_type is None:
            raise refused("BAD_REQUEST", "what is appended has a Content-Type")
        messages = await self._messages(asked.content_type, body)
        if not messages:
            raise refused("EMPTY_ARRAY", "an empty array appends nothing")
        return messages

    async def _messages(self, content_type: str, body: bytes) -> list[bytes]:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not body:
            return []
        if media_type(content_type) != JSON:
            return [body]
        if len(body) < _THREAD_BYTES_MIN:
            return elements.split(body)
        return await trio.to_thread.run_sync(elements.split, body)

    async def _body(self, request: Request) -> bytes:
        """The whole body. One that is too large is read to its end, so that the refusal is read
        by whoever sends before it listens, and the connection is kept.
        """
        length = request.head.length
        if length == 0:
            await trio.lowlevel.checkpoint_if_cancelled()
            return b""
        if length is not None and length > self._bytes_max and request.continues:
            raise self._too_large(length)
        body = request.read_now()
        if body is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            return body
        size = 0
        pieces: list[bytes] = []
        while piece := await request.receive():
            size += len(piece)
            if size > self._bytes_max:
                pieces.clear()
            else:
                request.hold(len(piece))
                pieces.append(piece)
        if size > self._bytes_max:
            raise self._too_large(size)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _too_large(self, size: int) -> RefusedError:
        return refused(
            "PAYLOAD_TOO_LARGE", f"a body has at most {self._bytes_max} bytes, but this {size}"
        )


def _where(result: AppendResult | ProducerAppendResult) -> Headers:
    offset = ("stream-next-offset", str(result.next_offset))
    return (offset, CLOSED) if result.closed else (offset,)
