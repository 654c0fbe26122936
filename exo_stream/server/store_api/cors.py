"""Browser pages of listed origins: what they may send, and which headers they may read."""

from __future__ import annotations

from typing import Final

from exo_stream.protocol.http import Head, Headers, Response

_EXPOSED: Final = "x-store-query-detail-bin, content-encoding, connect-content-encoding"
_SECONDS: Final = 7200
"""For so long a browser need not ask again; some ask earlier."""


def cross_origin(origin: str | None) -> Headers:
    """The headers with which a page of ``origin``, which may call, can read an answer."""
    if origin is None:
        return ()
    return (
        ("access-control-allow-origin", origin),
        ("access-control-expose-headers", _EXPOSED),
        ("vary", "origin"),
    )


def preflight(head: Head) -> Response:
    """The answer to a browser that asks whether a page may call; the page's origin may."""
    headers: Headers = (
        *cross_origin(head.header("origin")),
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-max-age", str(_SECONDS)),
    )
    asked = head.header("access-control-request-headers")
    if asked is not None:
        headers += (("access-control-allow-headers", asked),)
    return Response(204, headers)
