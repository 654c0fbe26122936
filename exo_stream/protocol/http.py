"""HTTP/1.1 requests and responses as values: bytes in, heads and bodies out, and back.

Strategy: httptools (llhttp) finds the structure, strictly; this file refuses what two readers of
the same bytes could understand differently (RFC 9112, section 11), bounds what a head may be,
and writes responses of which no part can be injected.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import httptools

from exo_stream.errors import ExoStreamError, LocalProtocolError

STATUS_OF_CODE: Final = {
    "invalid_request": 400,
    "limit_exceeded": 413,
    "key_too_large": 413,
    "value_too_large": 413,
    "stream_config_mismatch": 409,
    "stream_path_blocked": 409,
    "fork_from_tombstone": 409,
    "content_type_mismatch": 409,
    "stream_closed": 409,
    "stream_seq_conflict": 409,
    "offset_conflict": 409,
    "stream_not_found": 404,
    "stream_gone": 410,
    "offset_evicted": 410,
    "invalid_stream_name": 400,
    "invalid_offset": 400,
    "fork_offset_beyond_tail": 400,
    "empty_append": 400,
    "invalid_producer_state": 400,
    "stream_too_large": 413,
    "invalid_state": 409,
    "undeclared_key_access": 400,
    "config": 400,
    "serialization": 400,
    "paused": 503,
    "sealed": 409,
    "lock_timeout": 503,
    "timed_out": 503,
    "preflight_failed": 409,
    "projection_failed": 500,
    "event_gap": 500,
    "transaction_conflict": 409,
    "conflict": 409,
    "batch_evicted": 410,
    "cursor_ahead": 409,
    "log_mismatch": 409,
    "producer_fenced": 403,
    "producer_gap": 409,
    "unsupported": 501,
    "not_visible_yet": 503,
    "snapshot_expired": 410,
    "overloaded": 503,
    "store_failed": 503,
    "store_full": 507,
    "outcome_unknown": 503,
    "platform_closed": 503,
    "unavailable": 503,
}
"""The HTTP status of each error code; 500 for the rest."""

SECURITY_HEADERS: Final = (
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
)
"""Sent with every response whose own headers do not say otherwise."""

_SINGULAR: Final = ("host", "content-length", "transfer-encoding", "sec-websocket-key")
_BODILESS: Final = frozenset({204, 304})

Headers = tuple[tuple[str, str], ...]


class RefusedError(Exception):
    """The request is not served: answer with the problem it describes."""

    def __init__(self, status: int, code: str, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers

    @property
    def response(self) -> Response:
        """What to answer."""
        return problem(self.status, self.code, self.detail, self.headers)


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request: ASCII throughout, header names in lower case, in their order.

    ``length`` is the announced length of the body, ``None`` if it comes in chunks.
    """

    method: str
    target: str
    version: str
    headers: Headers
    length: int | None = 0
    keep_alive: bool = True
    upgrades: bool = False

    @property
    def path(self) -> str:
        """The target up to its query, percent-encoding untouched."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the first question mark, percent-encoding untouched."""
        return self.target.partition("?")[2]

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.length != 0

    def header(self, name: str) -> str | None:
        """The values of a header, joined by commas if it came more than once."""
        values = [value for key, value in self.headers if key == name]
        return ", ".join(values) if values else None

    def tokens(self, name: str) -> list[str]:
        """The members of a list-valued header, as they came."""
        value = self.header(name)
        return [token.strip() for token in value.split(",") if token.strip()] if value else []


class EndOfBody:
    """The request is complete; what follows is another one."""


END_OF_BODY: Final = EndOfBody()

Event = Head | bytes | EndOfBody


class RequestParser:
    """Requests from bytes: ``feed`` what arrived, then take events until there are none.

    A request gives a ``Head``, pieces of its body, and ``END_OF_BODY``. After a head that asks
    for an upgrade nothing more is parsed: ``rest`` holds what followed it. What is wrong is
    raised behind the events that came before it, and is the end.
    """

    def __init__(self, *, head_bytes_max: int, headers_max: int) -> None:
        self._head_bytes_max = head_bytes_max
        self._headers_max = headers_max
        self._parser = httptools.HttpRequestParser(self)
        self._events: deque[Event] = deque()
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._head_bytes = 0
        self._fed_bytes = 0
        self._has_begun = False
        self._error: RefusedError | None = None
        self.rest = b""

    @property
    def idle(self) -> bool:
        """Whether no part of a next request has arrived."""
        return not (self._fed_bytes or self._has_begun or self._events or self._error)

    def feed(self, data: bytes) -> None:
        """Parse ``data``."""
        if self._error is not None:
            return
        self._fed_bytes += len(data)
        try:
            self._parser.feed_data(data)
            # A head or a trailer that is not complete yet has told nobody its size: the parser
            # holds it. So nothing at all may take longer than a head to become an event.
            if self._fed_bytes > self._head_bytes_max and not self._events:
                self._refuse_size()
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
        except httptools.HttpParserCallbackError as error:
            refusal = error.__context__
            assert isinstance(refusal, RefusedError), refusal
            self._error = refusal
        except httptools.HttpParserError as error:
            self._error = RefusedError(400, "invalid_request", f"not HTTP/1.1: {error}")
        except RefusedError as error:
            self._error = error

    def next_event(self) -> Event | None:
        """The next event of what was fed, ``None`` when more bytes are needed.

        Raises RefusedError, again and again.
        """
        if self._events:
            return self._events.popleft()
        if self._error is not None:
            raise self._error
        return None

    def whole_body(self) -> bytes | None:
        """The rest of a request's body, if it is here to its end and in one piece; then it is
        taken.
        """
        events = self._events
        if events and events[0] is END_OF_BODY:
            events.popleft()
            return b""
        if len(events) > 1 and events[1] is END_OF_BODY and isinstance(events[0], bytes):
            body = events.popleft()
            events.popleft()
            assert isinstance(body, bytes), body
            return body
        return None

    def on_message_begin(self) -> None:
        """Called by httptools."""
        self._has_begun = True
        self._url = b""
        self._headers = []
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Called by httptools, perhaps more than once for one target."""
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """Called by httptools for headers, and again for the trailers of a chunked body."""
        value = value or b""
        self._count(len(name) + len(value) + 4)
        if not (name.isascii() and value.isascii()):
            raise RefusedError(400, "invalid_request", "a header is not ASCII")
        if len(self._headers) >= self._headers_max:
            raise RefusedError(431, "limit_exceeded", f"more than {self._headers_max} headers")
        self._headers.append((name.decode().lower(), value.decode().strip(" \t")))

    def on_headers_complete(self) -> None:
        """Called by httptools between the head and the body."""
        self._fed_bytes = 0
        if not self._url.isascii():
            raise RefusedError(400, "invalid_request", "the target is not ASCII")
        version = self._parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise RefusedError(505, "unsupported", "only HTTP/1.1 is spoken here")
        headers = tuple(self._headers)
        self._events.append(
            Head(
                method=self._parser.get_method().decode(),
                target=_origin_form(self._url.decode(), headers),
                version=version,
                headers=headers,
                length=_length(headers),
                keep_alive=self._parser.should_keep_alive(),
                upgrades=self._parser.should_upgrade(),
            )
        )

    def on_body(self, body: bytes) -> None:
        """Called by httptools."""
        self._fed_bytes = 0
        self._events.append(body)

    def on_message_complete(self) -> None:
        """Called by httptools."""
        self._has_begun = False
        self._fed_bytes = 0
        self._events.append(END_OF_BODY)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._head_bytes_max:
            self._refuse_size()

    def _refuse_size(self) -> None:
        raise RefusedError(
            431, "limit_exceeded", f"the head is larger than {self._head_bytes_max} bytes"
        )


def _origin_form(target: str, headers: Headers) -> str:
    """The target as path and query; a proxy's absolute form must name the same host."""
    if target.startswith("/") or target == "*":
        return target
    scheme, separator, rest = target.partition("://")
    authority, slash, path = rest.partition("/")
    if separator and scheme.lower() == "http" and ("host", authority) in headers:
        return slash + path or "/"
    raise RefusedError(400, "invalid_request", "the target is no path")


def _length(headers: Headers) -> int | None:
    """The length of the body, ``None`` if chunked. Raises for what could be read in two ways."""
    names = [name for name, _ in headers]
    for name in _SINGULAR:
        if names.count(name) > 1:
            raise RefusedError(400, "invalid_request", f"more than one header {name}")
    values = dict(headers)
    coding, length = values.get("transfer-encoding"), values.get("content-length")
    if coding is not None:
        if length is not None:
            raise RefusedError(400, "invalid_request", "a length and a transfer coding")
        if coding.lower() != "chunked":
            raise RefusedError(501, "unsupported", "a transfer coding other than chunked")
        return None
    if length is None:
        return 0
    if not length.isdigit():
        raise RefusedError(400, "invalid_request", "the content-length is no number")
    return int(length)


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose body is at hand; header names in lower case."""

    status: int
    headers: Headers = ()
    body: bytes = b""


def json_response(status: int, value: object, headers: Headers = ()) -> Response:
    """``value`` as JSON, with a newline at its end for people's terminals."""
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    return Response(status, (("content-type", "application/json"), *headers), body)


def problem(status: int, code: str, detail: str, headers: Headers = ()) -> Response:
    """An error as RFC 9457 has it, with our stable ``code``."""
    value = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    return Response(status, (("content-type", "application/problem+json"), *headers), body)


def problem_of(error: ExoStreamError) -> Response:
    """The response for an error of ours."""
    status = STATUS_OF_CODE.get(error.code, 500)
    wait = (("retry-after", "1"),) if error.retryable else ()
    return problem(status, error.code, str(error), wait)


def render_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of a response, security headers included where ``headers`` do not name them.

    Raises LocalProtocolError for a header that would break out of its line.
    """
    own = list(headers)
    named = {name for name, _ in own}
    own += [header for header in SECURITY_HEADERS if header[0] not in named]
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in own]
    for line in lines:
        if not (line.isascii() and line.isprintable()):
            raise LocalProtocolError(f"not a header: {line!r}")
    return "\r\n".join([*lines, "\r\n"]).encode()


def render(response: Response, headers: Headers = ()) -> bytes:
    """A response as a whole, with these headers more."""
    ends = framing(response.status, len(response.body), "1.1")
    return render_head(response.status, response.headers + headers + ends) + response.body


def framing(status: int, length: int | None, version: str) -> Headers:
    """The headers that say where the body ends: its length, ``None`` for chunks.

    A reader of HTTP/1.0 knows no chunks: there the end of the connection is the end.
    """
    if status in _BODILESS:
        return ()
    if length is not None:
        return (("content-length", str(length)),)
    return (("transfer-encoding", "chunked"),) if version == "1.1" else ()


def chunk_head(size: int) -> bytes:
    """What stands before a chunk of ``size`` bytes; ``\\r\\n`` stands after it."""
    return b"%x\r\n" % size


LAST_CHUNK: Final = b"0\r\n\r\n"

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
