"""What the head of a call says: its codec, its compression, its deadline; and calls by GET."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.compression import accepted_encoding, known_encoding
from exo_stream.protocol.connect.failure import CallError, Code
from exo_stream.protocol.http import Head

_UNARY: Final = {codec.unary_type: codec for codec in Codec}
_STREAMING: Final = {codec.streaming_type: codec for codec in Codec}
_TIMEOUT_DIGITS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Call:
    """How a call is made, and how it wants to be answered.

    ``encoding`` is what the request is compressed with, ``answer_encoding`` what the answer may
    be compressed with; ``timeout_seconds`` is None without a deadline.
    """

    codec: Codec
    encoding: str
    answer_encoding: str
    timeout_seconds: float | None = None


def codec_of(head: Head, *, streams: bool) -> Codec:
    """The codec that a POST is made in. Raises CallError if it is no call of this kind."""
    known = _STREAMING if streams else _UNARY
    content_type = (head.header("content-type") or "").partition(";")[0].strip().lower()
    if content_type not in known:
        raise CallError(Code.UNIMPLEMENTED, f"this method takes {' and '.join(known)}", status=415)
    return known[content_type]


def post_call(head: Head, codec: Codec, *, streams: bool) -> Call:
    """What the head of a POST says. Raises CallError if it cannot be served."""
    version = head.header("connect-protocol-version")
    if version not in {None, "1"}:
        raise CallError(Code.INVALID_ARGUMENT, "connect-protocol-version must be 1")
    prefix = "connect-" if streams else ""
    return Call(
        codec,
        known_encoding(head.header(f"{prefix}content-encoding")),
        accepted_encoding(head.header(f"{prefix}accept-encoding")),
        timeout_of(head),
    )


def get_call(head: Head) -> tuple[Call, bytes]:
    """What a GET asks, and its message as it came. Raises CallError if it cannot be served."""
    query = _query(head.query)
    if query.get("connect", b"v1") != b"v1":
        raise CallError(Code.INVALID_ARGUMENT, "the parameter connect must be v1")
    codec = _UNARY.get("application/" + query.get("encoding", b"").decode(errors="replace"))
    if codec is None:
        raise CallError(
            Code.INVALID_ARGUMENT, "the parameter encoding must be proto or json", status=415
        )
    if "message" not in query:
        raise CallError(Code.INVALID_ARGUMENT, "the parameter message is missing")
    call = Call(
        codec,
        known_encoding(query.get("compression", b"").decode(errors="replace")),
        accepted_encoding(head.header("accept-encoding")),
        timeout_of(head),
    )
    message = query["message"]
    return call, _unbase64(message) if query.get("base64") == b"1" else message


def timeout_of(head: Head) -> float | None:
    """Connect-Timeout-Ms in seconds. Raises CallError if it is no such number."""
    text = head.header("connect-timeout-ms")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _TIMEOUT_DIGITS_MAX):
        raise CallError(
            Code.INVALID_ARGUMENT,
            f"connect-timeout-ms is a number of at most {_TIMEOUT_DIGITS_MAX} digits",
        )
    return int(text) / 1000


def _query(text: str) -> Mapping[str, bytes]:
    """The parameters of a query, their values as bytes: a binary message need not be base64."""
    pairs = [pair.partition("=") for pair in text.split("&")]
    return {
        unquote_to_bytes(name).decode(errors="replace"): unquote_to_bytes(value.replace("+", " "))
        for name, _, value in pairs
    }


def _unbase64(text: bytes) -> bytes:
    """Base64 of either alphabet, padded or not."""
    try:
        padding = b"=" * (-len(text) % 4)
        return b64decode(text.translate(_STANDARD) + padding, validate=True)
    except Base64Error:
        raise CallError(Code.INVALID_ARGUMENT, "the message is no base64") from None


_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
