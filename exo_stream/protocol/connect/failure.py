"""Errors as Connect tells them: a code with its HTTP status, a sentence, and typed details."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

from google.protobuf.message import Message

from exo_stream.protocol.connect.generated.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    RetryInfo,
)

TYPE_PREFIX: Final = "type.googleapis.com/"
"""Before the name of a detail's type in the URL that names it."""


class Code(Enum):
    """The codes of Connect that are used here, each with its HTTP status."""

    UNKNOWN = ("unknown", 500)
    INVALID_ARGUMENT = ("invalid_argument", 400)
    DEADLINE_EXCEEDED = ("deadline_exceeded", 504)
    NOT_FOUND = ("not_found", 404)
    PERMISSION_DENIED = ("permission_denied", 403)
    RESOURCE_EXHAUSTED = ("resource_exhausted", 429)
    ABORTED = ("aborted", 409)
    OUT_OF_RANGE = ("out_of_range", 400)
    UNIMPLEMENTED = ("unimplemented", 501)
    INTERNAL = ("internal", 500)
    UNAVAILABLE = ("unavailable", 503)
    DATA_LOSS = ("data_loss", 500)

    @property
    def status(self) -> int:
        """The HTTP status of a unary answer with this code."""
        return self.value[1]

    def __str__(self) -> str:
        return self.value[0]


class CallError(Exception):
    """A call fails with a code, a sentence and details; ``status`` where it is not the code's."""

    def __init__(
        self, code: Code, message: str, details: Sequence[Message] = (), *, status: int = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = tuple(details)
        self.status = status or code.status


def error_value(error: CallError) -> dict[str, object]:
    """The error as JSON has it.

    Each detail is there twice. Connect wants the bare name of its type, and clients in TypeScript
    look for that; those in Rust look for the URL that Exoware's server sends.
    """
    value: dict[str, object] = {"code": str(error.code), "message": error.message}
    if error.details:
        value["details"] = [
            {"type": prefix + detail.DESCRIPTOR.full_name, "value": unpadded(detail)}
            for detail in error.details
            for prefix in ("", TYPE_PREFIX)
        ]
    return value


def error_body(error: CallError) -> bytes:
    """The body of a unary answer that failed."""
    return json.dumps(error_value(error), separators=(",", ":")).encode()


def unpadded(message: Message) -> str:
    """A message in the base64 of details and headers: the standard alphabet, without padding."""
    return b64encode(message.SerializeToString(deterministic=True)).decode().rstrip("=")


def error_info(reason: str, domain: str, metadata: Mapping[str, str] | None = None) -> ErrorInfo:
    """The detail that programs tell errors apart by."""
    return ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def retry_info(milliseconds: int = 1000) -> RetryInfo:
    """The detail that says when the same call may succeed."""
    seconds, rest = divmod(milliseconds, 1000)
    return RetryInfo(retry_delay={"seconds": seconds, "nanos": rest * 1_000_000})


def invalid(
    reason: str,
    domain: str,
    field: str,
    description: str,
    metadata: Mapping[str, str] | None = None,
) -> CallError:
    """The error of a request that breaks a rule: which field, and how."""
    info = error_info(reason, domain, {**(metadata or {}), "description": description})
    violation = BadRequest.FieldViolation(field=field, description=description)
    return CallError(
        Code.INVALID_ARGUMENT,
        f"{field}: {description}",
        [BadRequest(field_violations=[violation]), info],
    )
