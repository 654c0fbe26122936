"""The store's own API on a port: from a request to the method it calls, and back."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Final

import trio

from exo_stream.errors import ExoStreamError
from exo_stream.platform import Platform
from exo_stream.protocol.connect.call import Call, codec_of, get_call, post_call
from exo_stream.protocol.connect.compression import ENCODINGS, IDENTITY
from exo_stream.protocol.connect.envelope import COMPRESSED, HEAD_BYTES, OneEnvelope, end_stream
from exo_stream.protocol.connect.failure import CallError, Code, error_body
from exo_stream.protocol.http import Headers, RefusedError, Response
from exo_stream.server.port import Port
from exo_stream.server.request import BodyWriter, Request
from exo_stream.server.routes import ANY_METHOD, Answer, Streamed
from exo_stream.server.store_api.answering import AnyMethod, Pieces, Reply, wait_room
from exo_stream.server.store_api.compact import Compact
from exo_stream.server.store_api.cors import cross_origin, preflight
from exo_stream.server.store_api.failures import call_error, deadline_exceeded
from exo_stream.server.store_api.ingest import Ingest
from exo_stream.server.store_api.query import Query
from exo_stream.server.store_api.reducing import Reducing
from exo_stream.server.store_api.stream import Stream
from exo_stream.server.store_api.streaming import SEND_BYTES, Streaming, send_in_parts
from exo_stream.server.store_api.transcoding import Transcoder

_ACCEPTS: Final = ", ".join(ENCODINGS)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that has been read: how it is to be answered, by when, and what it asks."""

    call: Call
    method: AnyMethod
    deadline: float | None
    question: object


class StoreApi:
    """Answers the services of the store, by the Connect protocol."""

    def __init__(self, platform: Platform, port: Port) -> None:
        self._platform = platform
        self._port = port
        self._transcoder = Transcoder(port.limits.connect_parts_max)
        self._methods: dict[str, AnyMethod] = {}
        for service in (Ingest, Query, Reducing, Stream, Compact):
            self._methods.update(service(platform, port).methods())

    def add_routes(self) -> None:
        """Let the port answer every path of the services, those of no method included."""
        for service in {path.rpartition("/")[0] for path in self._methods}:
            self._port.routes.add(ANY_METHOD, f"{service}/*", self.answer)

    async def answer(self, request: Request) -> Answer:
        """The answer to one request, whatever it is; only the connection can fail."""
        head, visitors = request.head, self._port.visitors
        origin = head.header("origin")
        if not visitors.knows_origin(origin, head.header("host")):
            await trio.lowlevel.checkpoint()
            return _refusal(CallError(Code.PERMISSION_DENIED, "pages of this origin may not call"))
        if head.method == "OPTIONS":
            await trio.lowlevel.checkpoint()
            return preflight(head, visitors)
        answer = await self._answer(request)
        return replace(answer, headers=answer.headers + cross_origin(origin, visitors))

    async def _answer(self, request: Request) -> Response | Streamed:
        method = self._methods.get(request.head.path)
        if method is None:
            await trio.lowlevel.checkpoint()
            return _refusal(CallError(Code.UNIMPLEMENTED, "there is no such method", status=404))
        allowed = ("GET", "POST") if method.is_safe else ("POST",)
        if request.head.method not in allowed:
            await trio.lowlevel.checkpoint()
            verbs = ", ".join(allowed)
            error = CallError(Code.UNIMPLEMENTED, f"this method is called by {verbs}", status=405)
            return _refusal(error, (("allow", verbs),))
        if method.streams:
            return await self._answer_streaming(request, method)
        return await self._answer_unary(request, method)

    async def _answer_unary(self, request: Request, method: AnyMethod) -> Response | Streamed:
        try:
            asked = await self._read_unary(request, method)
            await wait_room(request.share, method.reserve)
            async with request.watched() if method.is_long else nullcontext():
                reply = await self._ask(asked)
            return await self._response(asked, reply, request)
        except CallError as error:
            failed = error
        except (ExoStreamError, RefusedError) as error:
            failed = self._call_error(error, method)
        await trio.lowlevel.checkpoint_if_cancelled()
        return _refusal(failed, _told_of(failed))

    async def _read_unary(self, request: Request, method: AnyMethod) -> _Asked:
        head = request.head
        if head.method == "GET":
            call, body = get_call(head)
            deadline = _deadline(call)
        else:
            call = post_call(head, codec_of(head, streams=False), streams=False)
            deadline = _deadline(call)
            body = await request.read(method.bytes_max)
        return await self._read(request, method, call, deadline, body)

    async def _read(
        self, request: Request, method: AnyMethod, call: Call, deadline: float | None, body: bytes
    ) -> _Asked:
        """What was asked. Of what the body held, only what is still needed stays counted."""
        data = await self._transcoder.decompress(
            call.encoding, body, method.bytes_max, request.hold
        )
        if call.encoding != IDENTITY:
            request.release(len(body))
        request.hold(len(data))
        question = await self._transcoder.read(call.codec, data, method)
        request.release(len(data) if method.keeps_request else 2 * len(data))
        return _Asked(call, method, deadline, question)

    async def _ask(self, asked: _Asked) -> Reply:
        assert asked.method.answer is not None
        with trio.CancelScope() as scope:
            if asked.deadline is not None:
                scope.deadline = asked.deadline
                # What needs no waiting would not notice that its time is over.
                await trio.lowlevel.checkpoint()
            return await asked.method.answer(asked.question)
        raise deadline_exceeded()

    async def _response(self, asked: _Asked, reply: Reply, request: Request) -> Response | Streamed:
        call = asked.call
        await wait_room(request.share, max(0, 2 * reply.piece.cost - asked.method.reserve))
        data = await self._transcoder.write(call.codec, reply.piece)
        data, is_compressed = await self._transcoder.compress(call.answer_encoding, data)
        headers: Headers = (("content-type", call.codec.unary_type), *reply.headers)
        if is_compressed:
            headers += (("content-encoding", call.answer_encoding),)
        if len(data) <= SEND_BYTES:
            return Response(200, headers, data)

        async def write(writer: BodyWriter) -> None:
            await send_in_parts(writer, data)

        return Streamed(200, headers, write)

    async def _answer_streaming(self, request: Request, method: AnyMethod) -> Response | Streamed:
        head = request.head
        try:
            codec = codec_of(head, streams=True)
        except CallError as error:
            await trio.lowlevel.checkpoint()
            return _refusal(error, _told_of(error))
        headers: Headers = (
            ("content-type", codec.streaming_type),
            ("connect-accept-encoding", _ACCEPTS),
        )
        try:
            call = post_call(head, codec, streams=True)
            asked = await self._read_streaming(request, method, call)
            assert method.stream is not None
            pieces = method.stream(asked.question, request)
        except CallError as error:
            failed = error
        except (ExoStreamError, RefusedError) as error:
            failed = self._call_error(error, method)
        else:
            return self._streamed(asked, pieces, headers)
        await trio.lowlevel.checkpoint_if_cancelled()
        return Response(200, headers, end_stream(failed, {}))

    async def _read_streaming(self, request: Request, method: AnyMethod, call: Call) -> _Asked:
        deadline = _deadline(call)
        request.bytes_max = method.bytes_max
        envelope = OneEnvelope(method.bytes_max)
        while piece := await request.receive():
            request.hold(len(piece))
            envelope.feed(piece)
        flags, data = envelope.finish()
        request.release(HEAD_BYTES)
        if flags & COMPRESSED and call.encoding == IDENTITY:
            raise CallError(Code.INVALID_ARGUMENT, "a compressed message, and no compression")
        if not flags & COMPRESSED:
            call = replace(call, encoding=IDENTITY)
        return await self._read(request, method, call, deadline, data)

    def _streamed(self, asked: _Asked, pieces: Pieces, headers: Headers) -> Streamed:
        encoding = asked.call.answer_encoding
        if encoding != IDENTITY:
            headers += (("connect-content-encoding", encoding),)
        streaming = Streaming(
            pieces,
            asked.call,
            asked.method.domain,
            self._port,
            self._transcoder,
            deadline=asked.deadline,
            frontier=lambda: self._platform.cursor.sequence,
        )
        return Streamed(200, headers, streaming.write)

    def _call_error(self, error: ExoStreamError | RefusedError, method: AnyMethod) -> CallError:
        return call_error(error, method.domain, self._platform.cursor.sequence)


def _deadline(call: Call) -> float | None:
    return None if call.timeout_seconds is None else trio.current_time() + call.timeout_seconds


def _refusal(error: CallError, headers: Headers = ()) -> Response:
    """A call that failed before, or without, a stream."""
    return Response(
        error.status, (("content-type", "application/json"), *headers), error_body(error)
    )


def _told_of(error: CallError) -> Headers:
    """What a caller whose request cannot be read is told beside the error."""
    match error.status, error.code:
        case 415, _:
            return (("accept-post", "application/proto, application/json"),)
        case _, Code.UNIMPLEMENTED:
            return (("accept-encoding", _ACCEPTS),)
        case _:
            return ()
