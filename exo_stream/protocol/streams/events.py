"""Server-Sent Events of a stream: what was appended, and after each of those where it leads.

The shape is what the clients of Durable Streams expect to the byte: no blank after a colon, a
control event after every data event.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Final, Literal

Encoding = Literal["text", "json", "base64"]
"""How the bytes of a stream travel in events."""

COMMENT: Final = b":\n\n"
"""Says nothing, and keeps a connection from looking dead."""


def encoding_of(media_type: str) -> Encoding:
    """How a stream of this media type travels."""
    if media_type == "application/json":
        return "json"
    return "text" if media_type.startswith("text/") else "base64"


def data_event(encoding: Encoding, data: bytes, *, id_: str = "") -> bytes:
    """A data event; ``id_`` is the event's id, if it needs one.

    A text's lines become lines of the event, however they end; a blank at a line's beginning is
    doubled, since readers of events take one away. What is no UTF-8 in it becomes U+FFFD: events
    are UTF-8.
    """
    head = f"event: data\nid:{id_}\ndata:".encode() if id_ else b"event: data\ndata:"
    if encoding == "base64":
        return b"".join((head, b64encode(data), b"\n\n"))
    if encoding == "text":
        data = data.decode(errors="replace").encode()
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if data.startswith(b" "):
        data = b" " + data
    data = data.replace(b"\n ", b"\n  ").replace(b"\n", b"\ndata:")
    return b"".join((head, data, b"\n\n"))


def control_event(
    next_offset: str,
    cursor: str,
    *,
    is_up_to_date: bool,
    is_closed: bool,
    stream: str = "",
) -> bytes:
    """A control event. Of a closed stream at its end it has no cursor: nothing more is cached.

    ``stream`` is a JSON string that names the stream, where a connection carries several.
    """
    fields = [f'"stream":{stream}'] if stream else []
    fields.append(f'"streamNextOffset":"{next_offset}"')
    if not is_closed:
        fields.append(f'"streamCursor":"{cursor}"')
    if is_up_to_date:
        fields.append('"upToDate":true')
    if is_closed:
        fields.append('"streamClosed":true')
    return f"event: control\ndata:{{{','.join(fields)}}}\n\n".encode()


def gone_event(stream: str) -> bytes:
    """A control event: of ``stream``, a JSON string that names it, nothing more comes."""
    return f'event: control\ndata:{{"stream":{stream},"streamGone":true}}\n\n'.encode()


def incomplete(data: bytes) -> int:
    """How many bytes at the end of ``data`` are the beginning of a UTF-8 character: 0 to 3."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < length else 0
        if byte < 0x80:
            return 0
    return 0
