"""Envelopes: how the messages of a streaming call stand one after the other in a body.

One byte of flags, four of length, then the message. The last envelope of an answer holds no
message but JSON: the error if there was one, and metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from exo_stream.protocol.connect.failure import CallError, Code, error_value

COMPRESSED: Final = 0x01
END_STREAM: Final = 0x02
HEAD_BYTES: Final = 5


class Envelope(NamedTuple):
    """One message of a body, as it came."""

    flags: int
    data: bytes


def enveloped(data: bytes, flags: int = 0) -> bytes:
    """``data`` in an envelope."""
    return envelope_head(len(data), flags) + data


def envelope_head(size: int, flags: int = 0) -> bytes:
    """What stands before a message of ``size`` bytes."""
    return bytes([flags]) + size.to_bytes(4, "big")


def end_stream(error: CallError | None, metadata: Mapping[str, Sequence[str]]) -> bytes:
    """The last envelope of an answer."""
    value: dict[str, object] = {}
    if error is not None:
        value["error"] = error_value(error)
    if metadata:
        value["metadata"] = {name: list(values) for name, values in metadata.items()}
    return enveloped(json.dumps(value, separators=(",", ":")).encode(), END_STREAM)


class OneEnvelope:
    """The one message of a request to a method that streams its answer, from pieces of a body.

    A message that is too large is refused as soon as its head has come.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pieces: list[bytes] = []
        self._received = 0
        self._wanted = HEAD_BYTES
        self._flags = 0

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body. Raises CallError for what can be no such request."""
        self._pieces.append(piece)
        self._received += len(piece)
        if self._wanted == HEAD_BYTES and self._received >= HEAD_BYTES:
            self._read_head()
        if self._received > self._wanted > HEAD_BYTES:
            raise CallError(Code.INVALID_ARGUMENT, "more than one message in a request")

    def finish(self) -> Envelope:
        """The message, when the body is complete."""
        if self._received != self._wanted or self._received < HEAD_BYTES:
            raise CallError(
                Code.INVALID_ARGUMENT,
                f"the body ends in an envelope: {self._received} bytes came of {self._wanted}",
            )
        return Envelope(self._flags, b"".join(self._pieces)[HEAD_BYTES:])

    def _read_head(self) -> None:
        head = b"".join(self._pieces)
        self._pieces = [head]
        self._flags, size = head[0], int.from_bytes(head[1:HEAD_BYTES], "big")
        if self._flags & ~COMPRESSED:
            raise CallError(Code.INVALID_ARGUMENT, f"an envelope with flags {self._flags:#04x}")
        if size > self._bytes_max:
            raise CallError(
                Code.RESOURCE_EXHAUSTED,
                f"a message has at most {self._bytes_max} bytes, this one has {size}",
            )
        self._wanted = HEAD_BYTES + size
