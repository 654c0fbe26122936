"""Names of streams: what stands behind the root in a request's path, decoded and judged."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from exo_stream.protocol.streams.problems import refused

ROOT: Final = "/v1/stream/"
"""Every stream is a path below it."""

RESERVED: Final = "__ds"
"""The first segment of the control routes, which no stream can have."""

NAME_BYTES_MAX: Final = 1_024

_NOT_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def stream_name(path: str) -> str:
    """The name of the stream at ``path``, a request's path with its root.

    An encoded slash is a slash: ``a%2Fb`` and ``a/b`` are one stream. Raises RefusedError with
    INVALID_STREAM_NAME for what no stream can be called.
    """
    assert path.startswith(ROOT), path
    return checked_name(decoded(path.removeprefix(ROOT)))


def source_name(path: str) -> str:
    """The name in a ``Stream-Forked-From`` header: the full path of a stream on this server."""
    if not path.startswith(ROOT):
        raise refused("BAD_REQUEST", f"a fork's source is a path below {ROOT}")
    return stream_name(path)


def decoded(text: str) -> str:
    """``text`` without its percent-encoding, which must be one of UTF-8."""
    if "%" not in text:
        return text
    if _NOT_PERCENT.search(text):
        raise refused("INVALID_STREAM_NAME", "a percent sign without two hexadecimal digits")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise refused("INVALID_STREAM_NAME", "the percent-encoding is not UTF-8") from None


def checked_name(name: str) -> str:
    """``name`` itself if a stream can have it; else it raises INVALID_STREAM_NAME."""
    if len(name.encode()) > NAME_BYTES_MAX:
        raise refused("INVALID_STREAM_NAME", f"a name has at most {NAME_BYTES_MAX} bytes")
    if _CONTROL.search(name):
        raise refused("INVALID_STREAM_NAME", "a name has no control characters")
    segments = name.split("/")
    if "" in segments:
        raise refused("INVALID_STREAM_NAME", "a name has no empty segment")
    if "." in segments or ".." in segments:
        raise refused("INVALID_STREAM_NAME", "a name has no segment '.' or '..'")
    if segments[0] == RESERVED:
        raise refused("INVALID_STREAM_NAME", f"names below {RESERVED} are reserved")
    return name
