"""Live seats of subscriptions: the fan-out encodes a frame once for all who want it alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Final, NamedTuple

from exo_stream.interest import Encoder
from exo_stream.payload import EncodedBatch
from exo_stream.protocol.connect.call import Call
from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.compression import COMPRESSED_BYTES_MIN, IDENTITY, compressed
from exo_stream.protocol.connect.envelope import COMPRESSED, enveloped
from exo_stream.server.request import BodyWriter
from exo_stream.server.store_api.answering import Piece

SEAT_BYTES_MAX: Final = 65_536
"""What is larger, or takes long to encode, is sent by each stream itself."""

Frame = Callable[[EncodedBatch], Piece | None]
"""The message of a batch, None if there is nothing in it to be sent."""


class SeatBody(NamedTuple):
    """Frames for every seat; without ``fits`` they are none, and the seat is to be lost."""

    data: bytes
    finished: int
    fits: bool


@cache
def seat_encoder(frame: Frame, codec: Codec, encoding: str) -> Encoder[SeatBody]:
    """The encoder of all seats that are answered alike; the fan-out calls each only once."""
    return partial(_encode, frame, codec, encoding)


def seat_of(call: Call, frame: Frame, writer: BodyWriter) -> Seating | None:
    """How the fan-out may write to a stream; None if its transport can only be waited for."""
    if not writer.can_have_seat:
        return None
    encode = seat_encoder(frame, call.codec, call.answer_encoding)
    return Seating(encode, partial(_try_send, writer))


class Seating(NamedTuple):
    """What a seat needs: who encodes, and where it is written to."""

    encode: Encoder[SeatBody]
    try_send: Callable[[SeatBody], bool]


def _encode(
    frame: Frame, codec: Codec, encoding: str, batches: Sequence[EncodedBatch]
) -> list[SeatBody]:
    pieces = [piece for batch in batches if (piece := frame(batch)) is not None]
    cost = sum([piece.cost for piece in pieces])
    finished = batches[-1].sequence
    if cost > SEAT_BYTES_MAX or codec.is_heavy(cost):
        return [SeatBody(b"", finished, fits=False)]
    frames = [_enveloped(codec.encode(piece.build()), encoding) for piece in pieces]
    return [SeatBody(b"".join(frames), finished, fits=True)]


def _enveloped(data: bytes, encoding: str) -> bytes:
    if encoding == IDENTITY or len(data) < COMPRESSED_BYTES_MIN:
        return enveloped(data)
    return enveloped(b"".join(compressed(encoding, data)), COMPRESSED)


def _try_send(writer: BodyWriter, body: SeatBody) -> bool:
    # Nothing at all is no chunk: it would be the end of the body.
    return body.fits and (not body.data or writer.try_send(b"", body.data))
