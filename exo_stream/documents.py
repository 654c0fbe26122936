"""The JSON of rules and requests: half understood it might do too much. No I/O."""

from __future__ import annotations

import json


def parsed(document: bytes) -> object:
    """The value that a text in UTF-8 writes; no object in it has a field twice.

    Raises ValueError, and never another exception, that says why the text is no such document.
    """
    try:
        value: object = json.loads(document.decode(), object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("too much within one another") from None
    return value


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands in one object twice")
    return fields
