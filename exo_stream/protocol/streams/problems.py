"""Errors of the streams routes, as problems with codes that their clients know.

The codes are those that a Durable Streams server publishes; where it has none, ours in its style.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from exo_stream.errors import ExoStreamError, ProducerFencedError, ProducerGapError
from exo_stream.protocol.http import STATUS_OF_CODE, Headers, RefusedError, Response
from exo_stream.stream_errors import (
    OffsetConflictError,
    OffsetEvictedError,
    StreamClosedError,
    StreamSeqConflictError,
)

STATUS_OF_PROBLEM: Final = {
    "NOT_FOUND": 404,
    "GONE": 410,
    "ALREADY_EXISTS": 409,
    "CONTENT_TYPE_MISMATCH": 409,
    "STREAM_CLOSED": 409,
    "SEQUENCE_CONFLICT": 409,
    "OFFSET_CONFLICT": 409,
    "FORK_FROM_TOMBSTONE": 409,
    "PATH_BLOCKED": 409,
    "INVALID_OFFSET": 400,
    "INVALID_STREAM_NAME": 400,
    "INVALID_JSON": 400,
    "EMPTY_BODY": 400,
    "EMPTY_ARRAY": 400,
    "BAD_REQUEST": 400,
    "PRODUCER_EPOCH_FENCED": 403,
    "FORBIDDEN_ORIGIN": 403,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "PAYLOAD_TOO_LARGE": 413,
    "RATE_LIMITED": 429,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "INSUFFICIENT_STORAGE": 507,
}
"""The HTTP status of each code."""

_PROBLEM_OF_CODE: Final = {
    "stream_not_found": "NOT_FOUND",
    "stream_gone": "GONE",
    "offset_evicted": "GONE",
    "stream_config_mismatch": "ALREADY_EXISTS",
    "stream_path_blocked": "PATH_BLOCKED",
    "fork_from_tombstone": "FORK_FROM_TOMBSTONE",
    "content_type_mismatch": "CONTENT_TYPE_MISMATCH",
    "stream_closed": "STREAM_CLOSED",
    "stream_seq_conflict": "SEQUENCE_CONFLICT",
    "producer_gap": "SEQUENCE_CONFLICT",
    "offset_conflict": "OFFSET_CONFLICT",
    "invalid_stream_name": "INVALID_STREAM_NAME",
    "invalid_offset": "INVALID_OFFSET",
    "fork_offset_beyond_tail": "INVALID_OFFSET",
    "empty_append": "EMPTY_BODY",
    "invalid_producer_state": "BAD_REQUEST",
    "producer_fenced": "PRODUCER_EPOCH_FENCED",
    "stream_too_large": "PAYLOAD_TOO_LARGE",
}
"""What an error of the streams face is called here."""

_PROBLEM_OF_STATUS: Final = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
    501: "NOT_IMPLEMENTED",
    503: "UNAVAILABLE",
    507: "INSUFFICIENT_STORAGE",
}
"""What any other error of the platform is called here; the rest is ours alone."""


def refused(code: str, detail: str, headers: Headers = ()) -> RefusedError:
    """The refusal with a code of this face; its status follows from it."""
    return RefusedError(STATUS_OF_PROBLEM[code], code, detail, headers)


def refusal_of(error: ExoStreamError) -> RefusedError:
    """The refusal for an error of the platform or of the streams face."""
    code = _PROBLEM_OF_CODE.get(error.code)
    if code is None:
        code = _PROBLEM_OF_STATUS.get(STATUS_OF_CODE.get(error.code, 500), "INTERNAL_ERROR")
    wait: Headers = (("retry-after", "1"),) if error.retryable else ()
    return refused(code, str(error), wait + _headers_of(error))


def renamed(error: RefusedError) -> RefusedError:
    """A refusal by what is below this face, under the name that this face has for it."""
    if error.code in STATUS_OF_PROBLEM:
        return error
    code = _PROBLEM_OF_STATUS.get(error.status, "BAD_REQUEST")
    return RefusedError(error.status, code, error.detail, error.headers)


def problem(error: RefusedError, instance: str, headers: Headers) -> Response:
    """A refusal as RFC 9457 has it; ``instance`` is the path it is about."""
    value = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "instance": instance,
    }
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    own = (("content-type", "application/problem+json"), ("cache-control", "no-store"))
    return Response(error.status, (*own, *error.headers, *headers), body)


def _headers_of(error: ExoStreamError) -> Headers:
    """What a client needs to go on after this error."""
    match error:
        case StreamClosedError():
            return (("stream-next-offset", error.next_offset), ("stream-closed", "true"))
        case StreamSeqConflictError() | OffsetConflictError():
            return (("stream-next-offset", error.next_offset),)
        case OffsetEvictedError():
            return (("stream-oldest-offset", error.oldest_offset),)
        case ProducerFencedError():
            return (("producer-epoch", str(error.current_epoch)),)
        case ProducerGapError():
            return (
                ("producer-expected-seq", str(error.expected_seq)),
                ("producer-received-seq", str(error.received_seq)),
            )
        case _:
            return ()
