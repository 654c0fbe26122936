"""What browser pages of other origins may know and do: the answers to preflights, and headers."""

from __future__ import annotations

from typing import Final

from exo_stream.protocol.http import Headers

METHODS: Final = "GET, POST, PUT, DELETE, HEAD, OPTIONS"

_ASKABLE: Final = (
    "content-type, authorization, if-none-match, stream-seq, stream-ttl, stream-expires-at, "
    "stream-closed, stream-forked-from, stream-fork-offset, stream-fork-sub-offset, "
    "stream-expected-offset, stream-retention-seconds, stream-retention-bytes, "
    "producer-id, producer-epoch, producer-seq"
)
_EXPOSED: Final = (
    "stream-next-offset, stream-cursor, stream-up-to-date, stream-closed, stream-ttl, "
    "stream-expires-at, stream-oldest-offset, stream-retention-seconds, stream-retention-bytes, "
    "stream-sse-data-encoding, producer-epoch, producer-seq, producer-expected-seq, "
    "producer-received-seq, etag, location, retry-after, content-type, content-encoding, vary"
)
_PREFLIGHT_SECONDS: Final = 600

PREFLIGHT: Final[Headers] = (
    ("allow", METHODS),
    ("access-control-allow-methods", METHODS),
    ("access-control-allow-headers", _ASKABLE),
    ("access-control-max-age", str(_PREFLIGHT_SECONDS)),
)
"""What every preflight is told; whether its page may is told by ``allowed``."""

_NOBODY: Final[Headers] = (("cross-origin-resource-policy", "same-origin"), ("vary", "origin"))
_EVERYBODY: Final[Headers] = (
    ("cross-origin-resource-policy", "cross-origin"),
    ("access-control-allow-origin", "*"),
    ("access-control-expose-headers", _EXPOSED),
)


def origin_headers(origin: str | None, *, is_listed: bool, is_open: bool) -> Headers:
    """The headers of an answer to a page of ``origin``, None if it is no page's request.

    ``is_open`` allows every origin; otherwise only one that ``is_listed`` is named.
    """
    if is_open:
        return _EVERYBODY
    if origin is None or not is_listed:
        return _NOBODY
    return (
        *_NOBODY,
        ("access-control-allow-origin", origin),
        ("access-control-expose-headers", _EXPOSED),
    )
