"""How bytes and messages read: JSON for programs, one safe line for people. No I/O."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Final

from exo_stream.errors import InvalidRequestError
from exo_stream.feed import (
    CaughtUp,
    FeedMessage,
    FellBehind,
    Heartbeat,
    Progress,
    SnapshotBegin,
    SnapshotEnd,
    SnapshotPage,
)
from exo_stream.model import Batch, Entry

Json = str | int | float | bool | None | list["Json"] | Mapping[str, "Json"]

BASE64: Final = "base64:"
"""Begins a key or a value, on the command line and on a terminal, that is not text."""

_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_CONTROLS_IN_JSON: Final = re.compile("[\x7f-\x9f\u2028\u2029]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def from_argument(argument: str) -> bytes:
    """The bytes that an argument names: its UTF-8 text, or what follows ``base64:``.

    Raises InvalidRequestError if what follows is not base64.
    """
    if not argument.startswith(BASE64):
        return os.fsencode(argument)
    try:
        return base64.b64decode(argument.removeprefix(BASE64), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestError(f"not base64: {argument[:80]!r}") from None


def text(data: bytes) -> str | None:
    """``data`` as UTF-8 text; None if it is not."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def readable(data: bytes) -> str:
    """``data`` on one line, without anything that a terminal would obey."""
    decoded = text(data)
    if decoded is None:
        return BASE64 + base64.b64encode(data).decode()
    return _CONTROLS.sub(_escaped, decoded)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def json_line(value: Json) -> str:
    """One JSON value on one line, text readable as it is."""
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _CONTROLS_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def named(name: str, data: bytes | None) -> dict[str, Json]:
    """A field of a JSON object: ``name``, or ``name_b64`` where the bytes are not UTF-8."""
    decoded = None if data is None else text(data)
    if data is None or decoded is not None:
        return {name: decoded}
    return {f"{name}_b64": base64.b64encode(data).decode()}


def entry_objects(entries: Iterable[Entry]) -> list[Json]:
    """The entries as JSON objects; the value of a deletion is null."""
    return [{**named("key", entry.key), **named("value", entry.value)} for entry in entries]


def batch_object(batch: Batch) -> Json:
    """A batch as ``follow --json`` and ``batch --json`` print it."""
    return {
        "sequence": batch.sequence,
        "cursor": str(batch.cursor),
        "entries": entry_objects(batch.entries),
    }


def message_object(message: FeedMessage) -> Json:  # noqa: PLR0911 - one for each message
    """A message of a feed as JSON: a batch, or an object that begins with its ``type``."""
    match message:
        case Batch():
            return batch_object(message)
        case SnapshotBegin(sequence):
            return {"type": "snapshot_begin", "sequence": sequence}
        case SnapshotPage(sequence, entries):
            return {
                "type": "snapshot_page",
                "sequence": sequence,
                "entries": entry_objects(entries),
            }
        case SnapshotEnd(cursor):
            return {"type": "snapshot_end", "cursor": str(cursor)}
        case CaughtUp(cursor):
            return {"type": "caught_up", "cursor": str(cursor)}
        case FellBehind(cursor, behind):
            return {"type": "fell_behind", "cursor": str(cursor), "behind": behind}
        case Progress(cursor):
            return {"type": "progress", "cursor": str(cursor)}
        case Heartbeat(frontier):
            return {"type": "heartbeat", "frontier": frontier}
        # No default: mypy's exhaustive-match makes a forgotten message a type error.


def remark(message: FeedMessage) -> str | None:
    """What to tell a person of a message that carries no entries; None if it is not worth it."""
    match message:
        case SnapshotBegin(sequence):
            return f"the table at sequence {sequence}"
        case SnapshotEnd():
            return "the table ends here, what follows is new"
        case CaughtUp(cursor):
            return f"caught up at sequence {cursor.sequence}"
        case FellBehind(behind=behind):
            return f"{counted(behind, 'batch', 'batches')} behind"
        case _:
            return None


def size(count: float) -> str:
    """A number of bytes as people read it, four characters of figures at most."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def counted(count: int, one: str, several: str) -> str:
    """A number and what it counts."""
    return f"{count:,} {one if count == 1 else several}"
