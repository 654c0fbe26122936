"""What an error of ours is on the store's own API: its code, and the details clients look for."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from exo_stream.errors import (
    BatchEvictedError,
    CorruptionError,
    CursorAheadError,
    ExoStreamError,
    InvalidRequestError,
    LimitExceededError,
    NotVisibleYetError,
    OutcomeUnknownError,
    OverloadedError,
    PausedError,
    PlatformClosedError,
    SnapshotExpiredError,
    StoreError,
    UnavailableError,
    UnsupportedError,
)
from exo_stream.protocol.connect.failure import CallError, Code, error_info, retry_info
from exo_stream.protocol.connect.generated.query_pb2 import Detail
from exo_stream.protocol.http import RefusedError

INGEST: Final = "store.ingest"
QUERY: Final = "store.query"
STREAM: Final = "store.stream"
COMPACT: Final = "store.compact"
"""Domains: whose error it is."""

_RETRYABLE: Final = (
    (PlatformClosedError, Code.UNAVAILABLE, "WORKER_NOT_READY", 1000),
    (PausedError, Code.UNAVAILABLE, "WORKER_NOT_READY", 1000),
    (StoreError, Code.UNAVAILABLE, "INGEST_UNAVAILABLE", 1000),
    (SnapshotExpiredError, Code.UNAVAILABLE, "SNAPSHOT_EXPIRED", 1000),
    (UnavailableError, Code.UNAVAILABLE, "UNAVAILABLE", 1000),
    (OverloadedError, Code.RESOURCE_EXHAUSTED, "OVERLOADED", 100),
)
"""Errors after which the same call may succeed: code, reason, and after how many milliseconds."""


def call_error(error: ExoStreamError | RefusedError, domain: str, frontier: int) -> CallError:
    """The error of a call that failed with ``error``, when the newest batch was ``frontier``."""
    match error:
        case NotVisibleYetError():
            return _not_visible_yet(error)
        case BatchEvictedError():
            return batch_evicted(error.oldest_retained, frontier)
        case OutcomeUnknownError() | PlatformClosedError() if domain in {INGEST, COMPACT}:
            # Neither retryable nor refused: whoever sends it again may write it twice.
            return CallError(Code.UNKNOWN, str(error), [error_info("OUTCOME_UNKNOWN", domain)])
        case RefusedError():
            late = error.status == HTTPStatus.REQUEST_TIMEOUT
            return CallError(Code.DEADLINE_EXCEEDED if late else Code.INVALID_ARGUMENT, str(error))
        case _:
            return _plain_error(error, domain)


def _plain_error(error: ExoStreamError, domain: str) -> CallError:
    for kind, code, reason, milliseconds in _RETRYABLE:
        if isinstance(error, kind):
            details = [retry_info(milliseconds), error_info(reason, domain)]
            return CallError(code, str(error), details)
    return CallError(_code_of(error), str(error))


def _code_of(error: ExoStreamError) -> Code:
    match error:
        case LimitExceededError(limit="body_bytes_max"):
            return Code.RESOURCE_EXHAUSTED
        case UnsupportedError():
            return Code.UNIMPLEMENTED
        case InvalidRequestError():
            return Code.INVALID_ARGUMENT
        case CursorAheadError():
            return Code.OUT_OF_RANGE
        case CorruptionError():
            return Code.DATA_LOSS
        case _:
            return Code.INTERNAL


def batch_evicted(oldest_retained: int, frontier: int) -> CallError:
    """The batch is gone; the oldest one retained is named unless there is none at all."""
    if oldest_retained > frontier:
        message, metadata = "evicted: the log is empty", {}
    else:
        message = f"evicted: the oldest retained batch is {oldest_retained}"
        metadata = {"oldest_retained": str(oldest_retained)}
    return CallError(Code.OUT_OF_RANGE, message, [error_info("BATCH_EVICTED", STREAM, metadata)])


def batch_not_found(sequence: int, frontier: int) -> CallError:
    """There is no such batch yet."""
    return CallError(
        Code.NOT_FOUND,
        f"there is no batch {sequence} yet, the newest is {frontier}",
        [error_info("BATCH_NOT_FOUND", STREAM)],
    )


def not_ready() -> CallError:
    """Writes are not taken any more."""
    return CallError(
        Code.UNAVAILABLE,
        "the server is stopping, and takes no writes",
        [error_info("WORKER_NOT_READY", INGEST), retry_info()],
    )


def deadline_exceeded() -> CallError:
    """The call took longer than its caller wants to wait."""
    return CallError(Code.DEADLINE_EXCEEDED, "the deadline of this call has passed")


def leaving(domain: str) -> CallError:
    """The server stops, and this stream with it."""
    return CallError(
        Code.UNAVAILABLE,
        "the server is stopping",
        [error_info("WORKER_NOT_READY", domain), retry_info()],
    )


def _not_visible_yet(error: NotVisibleYetError) -> CallError:
    info = error_info(
        "CONSISTENCY_NOT_READY",
        QUERY,
        {
            "required_sequence_number": str(error.required),
            "current_sequence_number": str(error.frontier),
        },
    )
    detail = Detail(sequence_number=error.frontier)
    return CallError(Code.ABORTED, str(error), [retry_info(), info, detail])
