"""The rows and the batches of a backup as a stream of frames: what is compressed or encrypted.

A frame is its kind (one byte), its length (four, the highest first) and CBOR. What must not lie on
a disk in the clear cannot be a DuckDB file on its way; a stream never is anything but a piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

import cbor2

from exo_stream.model import Row
from exo_stream.payload import EncodedBatch

MAGIC: Final = b"exo-stream backup\x00\x01"
_HEAD: Final = Struct(">BI")
_END, _ROWS, _BATCHES, _FORGET = range(4)


class FrameError(ValueError):
    """These bytes are no stream of frames, or only the beginning of one."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Some live rows of the table, in the order of their keys."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Batches:
    """Some batches of the log, in order."""

    batches: tuple[EncodedBatch, ...]


@dataclass(frozen=True, slots=True)
class ForgetBatches:
    """The batches so far were evicted while the backup was taken."""


Frame = Rows | Batches | ForgetBatches


def encode_rows(rows: Sequence[Row]) -> bytes:
    """A frame of rows."""
    return _frame(_ROWS, [list(row) for row in rows])


def encode_batches(batches: Sequence[EncodedBatch]) -> bytes:
    """A frame of batches."""
    return _frame(
        _BATCHES, [[batch.sequence, batch.committed_at, batch.payload] for batch in batches]
    )


def encode_forget() -> bytes:
    """The frame that takes back all batches before it."""
    return _frame(_FORGET, None)


def encode_end() -> bytes:
    """The frame that a whole stream ends with."""
    return _frame(_END, None)


def _frame(kind: int, content: object) -> bytes:
    body = cbor2.dumps(content)
    return _HEAD.pack(kind, len(body)) + body


def decode(pieces: Iterable[bytes]) -> Iterator[Frame]:
    """Every frame of a stream that comes in pieces. Raises FrameError unless it is a whole one."""
    buffer = _Buffer(iter(pieces))
    if buffer.take(len(MAGIC)) != MAGIC:
        raise FrameError("this is no backup of exo-stream")
    while True:
        kind, length = _HEAD.unpack(buffer.take(_HEAD.size))
        body = _loaded(buffer.take(length))
        match kind:
            case 0:
                break
            case 1:
                yield Rows(tuple(Row(*_typed(row, bytes, int, bytes)) for row in _listed(body)))
            case 2:
                batches = (_typed(batch, int, int, bytes) for batch in _listed(body))
                yield Batches(tuple(EncodedBatch(*batch) for batch in batches))
            case 3:
                yield ForgetBatches()
            case _:
                raise FrameError(f"there is no frame of kind {kind}")
    if not buffer.ended():
        raise FrameError("something follows the end")


def _loaded(body: bytes) -> Any:
    # Any: what CBOR brings may be anything, until one of the two below has looked.
    try:
        return cbor2.loads(body)
    except (cbor2.CBORError, ValueError) as error:
        raise FrameError("a frame does not hold CBOR") from error


def _listed(body: Any) -> list[Any]:
    if type(body) is not list:
        raise FrameError("a frame does not hold what its kind says")
    return body


def _typed(values: Any, *kinds: type) -> Any:
    if type(values) is not list or [type(value) for value in values] != [*kinds]:
        raise FrameError("a frame does not hold what its kind says")
    return values


class _Buffer:
    """What has come of a stream and is not yet taken."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = bytearray()

    def take(self, size: int) -> bytes:
        while len(self._held) < size:
            piece = next(self._pieces, None)
            if piece is None:
                raise FrameError("the stream ends in the middle")
            self._held += piece
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def ended(self) -> bool:
        return not self._held and not any(self._pieces)
