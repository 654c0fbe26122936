"""Browser pages of listed origins: what they may send, and which headers they may read."""

from __future__ import annotations

import re
from typing import Final

from exo_stream.protocol.http import Head, Headers, Response
from exo_stream.protocol.origin import ANY, Visitors

_EXPOSED: Final = "x-store-query-detail-bin, content-encoding, connect-content-encoding"
_SECONDS: Final = 7200
"""For so long a browser need not ask again; some ask earlier."""

_NAME: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
"""A name of a header (RFC 9110, section 5.6.2): nothing else is repeated to a browser."""


def cross_origin(origin: str | None, visitors: Visitors) -> Headers:
    """The headers with which a page of ``origin``, which may call, can read an answer."""
    if origin is None:
        return ()
    if ANY in visitors.origins:
        allowed = ANY
    elif visitors.lists(origin):
        allowed = origin
    else:
        return ()  # of our own, which needs no leave
    return (
        ("access-control-allow-origin", allowed),
        ("access-control-expose-headers", _EXPOSED),
        ("vary", "origin"),
    )


def preflight(head: Head, visitors: Visitors) -> Response:
    """The answer to a browser that asks whether a page may call; the page's origin may."""
    headers: Headers = (
        *cross_origin(head.header("origin"), visitors),
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-max-age", str(_SECONDS)),
    )
    asked = head.tokens("access-control-request-headers")
    if asked and all(map(_NAME.fullmatch, asked)):
        headers += (("access-control-allow-headers", ", ".join(asked)),)
    return Response(204, headers)
