"""Entity tags: whether a client has a page already."""

from __future__ import annotations


def is_known(if_none_match: str | None, tag: str) -> bool:
    """Whether a client that sent this ``If-None-Match`` header has the page with ``tag`` already.

    Compared weakly, as RFC 9110 wants it in 13.1.2.
    """
    if if_none_match is None:
        return False
    if if_none_match == tag:
        return True
    members = (member.strip().removeprefix("W/") for member in if_none_match.split(","))
    return any(member in {tag, "*"} for member in members)
