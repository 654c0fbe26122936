"""The query of a read: from which offset, and whether to wait for what comes after."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from exo_stream.protocol.streams.names import checked_name
from exo_stream.protocol.streams.problems import refused

Live = Literal["long-poll", "sse"]

STREAMS_MAX: Final = 256
"""How many streams one connection can follow."""

_OFFSET: Final = re.compile(r"-1|now|[0-9]{16}_[0-9]{16}")
_READ: Final = frozenset({"offset", "live", "cursor"})

_NOT_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class ReadQuery:
    """What a GET asks. ``offset`` is ``-1``, ``now``, a position, or None: the start."""

    offset: str | None = None
    live: Live | None = None
    cursor: str | None = None


def read_query(query: str) -> ReadQuery:
    """The query of a GET, in its encoding. Parameters that nobody knows are ignored.

    Raises RefusedError with INVALID_OFFSET or BAD_REQUEST.
    """
    if not query:
        return ReadQuery()
    found: dict[str, str] = {}
    for name, value in parameters(query):
        if name not in _READ:
            continue
        if name in found:
            code = "INVALID_OFFSET" if name == "offset" else "BAD_REQUEST"
            raise refused(code, f"more than one {name}")
        found[name] = value
    offset, live = found.get("offset"), found.get("live")
    if offset is not None:
        check_offset(offset)
    if live is None:
        return ReadQuery(offset, None, found.get("cursor"))
    if offset is None:
        raise refused("BAD_REQUEST", "a live read needs an offset")
    if live == "long-poll":
        return ReadQuery(offset, "long-poll", found.get("cursor"))
    if live == "sse":
        return ReadQuery(offset, "sse", found.get("cursor"))
    raise refused("BAD_REQUEST", "live is long-poll or sse")


def streams_query(query: str) -> list[tuple[str, str]]:
    """The names and offsets in the query of a read of several streams, ``from=OFFSET:NAME`` each.

    Raises RefusedError with INVALID_OFFSET, INVALID_STREAM_NAME or BAD_REQUEST.
    """
    froms: dict[str, str] = {}
    for parameter, value in parameters(query):
        if parameter != "from":
            continue
        offset, colon, name = value.partition(":")
        if not colon:
            raise refused("BAD_REQUEST", "a stream is asked for as from=OFFSET:NAME")
        check_offset(offset)
        if froms.setdefault(checked_name(name), offset) is not offset:
            raise refused("BAD_REQUEST", f"{name!r} is asked for twice")
    if not 1 <= len(froms) <= STREAMS_MAX:
        raise refused("BAD_REQUEST", f"1 to {STREAMS_MAX} streams can be asked for as from=…")
    return list(froms.items())


def check_offset(token: str) -> None:
    """Raise RefusedError with INVALID_OFFSET unless ``token`` is one."""
    if not _OFFSET.fullmatch(token):
        raise refused("INVALID_OFFSET", "an offset is one that this server gave, '-1' or 'now'")


def parameters(query: str) -> list[tuple[str, str]]:
    """The names and values of a query, in their order. Raises RefusedError if it has no meaning."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [(_decoded(name), _decoded(value)) for name, _, value in pairs]


def _decoded(text: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    if _NOT_PERCENT.search(text):
        raise refused("BAD_REQUEST", "a percent sign without two hexadecimal digits")
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise refused("BAD_REQUEST", "the query is not UTF-8") from None
