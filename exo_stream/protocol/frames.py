"""The frames that many subscribers share: bodies encoded once, heads made for each.

A ``batches`` frame is ``[["batches", id, [[sequence, committed_at, entries], …]]]``. Its layout is
head + body: the head names the message and the subscription, the body is the array of batches and
is byte-identical for every subscriber with an equal selector. The entries are the payload bytes of
the log, concatenated and never encoded again. A batch that is larger than a frame travels as the
bytes of such a body, cut into ``part`` messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from exo_stream.errors import RemoteProtocolError
from exo_stream.protocol.messages import PartBody

T = TypeVar("T")

EncodedItem = tuple[int, int, bytes]
"""``(sequence, committed_at, payload)`` of one batch; see exo_stream/payload.py."""

HEAD_BYTES_MAX: Final = 64
"""No frame head, part head or batch head is longer, so bodies are cut this much shorter."""

_FRAME_OF_ONE: Final = b"\x81"
_MESSAGE_OF_THREE: Final = b"\x83"
_BATCH: Final = b"\x83"


class SharedBody(NamedTuple):
    """What all subscribers with one selector are sent; each gets a ``head`` of its own before it.

    ``finished`` is the last sequence that is complete with this body, and None for a part after
    which its batch is still incomplete.
    """

    name: str
    body: bytes
    finished: int | None

    def head(self, subscription_id: int) -> bytes:
        """The bytes that stand before the body in a frame to this subscription."""
        return _message_head(self.name, subscription_id)

    def websocket_head(self, subscription_id: int) -> bytes:
        """The same, with the WebSocket frame's own head before it."""
        head = self.head(subscription_id)
        return websocket_head(len(head) + len(self.body)) + head


def batches_body(batches: Sequence[EncodedItem]) -> bytes:
    """The CBOR array of these batches, their payloads as they are."""
    pieces = [cbor_head(4, len(batches))]
    for sequence, committed_at, payload in batches:
        pieces += (_BATCH, cbor_head(0, sequence), cbor_head(0, committed_at), payload)
    return b"".join(pieces)


def split(batches: Sequence[EncodedItem], frame_bytes_max: int) -> list[SharedBody]:
    """These batches as bodies of frames none of which exceeds ``frame_bytes_max``, in order."""
    room = frame_bytes_max - HEAD_BYTES_MAX
    assert room > 0, frame_bytes_max
    bodies: list[SharedBody] = []
    waiting: list[EncodedItem] = []
    held = 0
    for batch in batches:
        size = len(batch[2]) + HEAD_BYTES_MAX
        if waiting and held + size > room:
            bodies.append(_whole(waiting))
            waiting, held = [], 0
        if size > room:
            bodies += _parts(batch, room)
        else:
            waiting.append(batch)
            held += size
    if waiting:
        bodies.append(_whole(waiting))
    return bodies


def runs(items: Iterable[T], cost: Callable[[T], int], cost_max: int) -> Iterator[list[T]]:
    """The items in order, in runs that cost no more than that each, or hold one that does."""
    run: list[T] = []
    total = 0
    for item in items:
        added = cost(item)
        if run and total + added > cost_max:
            yield run
            run, total = [], 0
        run.append(item)
        total += added
    if run:
        yield run


def websocket_head(length: int) -> bytes:
    """The head of one whole, unmasked, binary WebSocket frame of so many bytes (RFC 6455, 5.2)."""
    if length < 126:
        return bytes((0x82, length))
    if length < 1 << 16:
        return b"\x82\x7e" + length.to_bytes(2, "big")
    return b"\x82\x7f" + length.to_bytes(8, "big")


def cbor_head(major: int, argument: int) -> bytes:
    """The shortest head of a CBOR item of this major type (RFC 8949, 3)."""
    if argument < 24:
        return bytes((major << 5 | argument,))
    if argument < 1 << 8:
        return bytes((major << 5 | 24, argument))
    if argument < 1 << 16:
        return bytes((major << 5 | 25,)) + argument.to_bytes(2, "big")
    if argument < 1 << 32:
        return bytes((major << 5 | 26,)) + argument.to_bytes(4, "big")
    return bytes((major << 5 | 27,)) + argument.to_bytes(8, "big")


class Assembly:
    """Puts the parts of one large batch together; give it each part, take what is whole.

    ``bytes_max`` bounds what it may hold; nothing is allocated on the word of a head. A part at
    offset 0 begins anew: a server that lost its place in the middle sends the batch again.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = bytearray()
        self._total = 0

    @property
    def is_empty(self) -> bool:
        """Whether no batch is half received."""
        return not self._held

    def add(self, part: PartBody) -> bytes | None:
        """The whole ``batches`` body if this was its last part, None while more must come.

        Raises RemoteProtocolError for a part that does not follow the one before.
        """
        if part.total > self._bytes_max:
            raise RemoteProtocolError(f"a batch of {part.total} bytes is larger than announced")
        if part.offset == 0:
            self._held.clear()
            self._total = part.total
        end = part.offset + len(part.chunk)
        if (
            (part.offset, part.total) != (len(self._held), self._total)
            or not part.chunk
            or end > part.total
        ):
            raise RemoteProtocolError("a part of a batch does not follow the one before")
        self._held += part.chunk
        if end < part.total:
            return None
        whole = bytes(self._held)
        self._held.clear()
        return whole


def _whole(batches: Sequence[EncodedItem]) -> SharedBody:
    return SharedBody("batches", batches_body(batches), batches[-1][0])


def _parts(batch: EncodedItem, room: int) -> list[SharedBody]:
    body = batches_body([batch])
    total = cbor_head(0, len(body))
    parts: list[SharedBody] = []
    for offset in range(0, len(body), room):
        chunk = body[offset : offset + room]
        head = b"\x83" + total + cbor_head(0, offset) + cbor_head(2, len(chunk))
        finished = batch[0] if offset + len(chunk) == len(body) else None
        parts.append(SharedBody("part", head + chunk, finished))
    return parts


def _message_head(name: str, subscription_id: int) -> bytes:
    text = name.encode("ascii")
    return (
        _FRAME_OF_ONE
        + _MESSAGE_OF_THREE
        + cbor_head(3, len(text))
        + text
        + cbor_head(0, subscription_id)
    )
