"""Bytes to messages and back: what takes long happens in a thread, the rest in slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

import trio

from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.compression import (
    COMPRESSED_BYTES_MIN,
    IDENTITY,
    compressed,
    decompressed,
)
from exo_stream.server.store_api.answering import Method, Piece

T = TypeVar("T")
Q = TypeVar("Q")

_THREADS: Final = 2
"""So many large messages of each codec are worked on at a time; they share one interpreter anyway,
and those in JSON, which take fifty times as long, must not hold up the others."""

_INLINE_BYTES_MAX: Final = 262_144
"""A larger answer is built in a thread: its rows may be tiny, and many."""


class Transcoder:
    """Decodes the requests of a port, and encodes its answers."""

    def __init__(self, parts_max: int) -> None:
        self._parts_max = parts_max
        self._threads = {codec: trio.CapacityLimiter(_THREADS) for codec in Codec}

    async def decompress(
        self, encoding: str, data: bytes, bytes_max: int, hold: Callable[[int], None]
    ) -> bytes:
        """The message as it was before compression; each slice is counted by ``hold``.

        Raises CallError, or what ``hold`` raises.
        """
        if encoding == IDENTITY:
            await trio.lowlevel.checkpoint()
            return data
        return await _joined(decompressed(encoding, data, bytes_max), hold)

    async def read(self, codec: Codec, data: bytes, method: Method[Any, Q]) -> Q:
        """What a message asks, checked. Raises CallError or InvalidRequestError."""

        def decode() -> Any:
            return codec.decode(data, method.kind, self._parts_max)

        if codec.is_heavy(len(data)) or len(data) > method.inline_bytes_max:
            return await self._in_thread(codec, lambda: method.check(decode()))
        await trio.lowlevel.checkpoint_if_cancelled()
        message = decode()
        if method.is_much is not None and method.is_much(message):
            return await self._in_thread(codec, partial(method.check, message))
        return method.check(message)

    async def write(self, codec: Codec, piece: Piece) -> bytes:
        """The message of an answer."""

        def build_and_encode() -> bytes:
            return codec.encode(piece.build())

        if codec.is_heavy(piece.cost) or piece.cost > _INLINE_BYTES_MAX:
            return await self._in_thread(codec, build_and_encode)
        await trio.lowlevel.checkpoint_if_cancelled()
        return build_and_encode()

    async def compress(self, encoding: str, data: bytes) -> tuple[bytes, bool]:
        """``data`` for sending, and whether it is compressed: what is small is left as it is."""
        if encoding == IDENTITY or len(data) < COMPRESSED_BYTES_MIN:
            await trio.lowlevel.checkpoint_if_cancelled()
            return data, False
        return await _joined(compressed(encoding, data)), True

    async def _in_thread(self, codec: Codec, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._threads[codec])


def _nothing(_: int) -> None:
    pass


async def _joined(slices: Iterator[bytes], hold: Callable[[int], None] = _nothing) -> bytes:
    """All slices as one; others run between them."""
    await trio.lowlevel.checkpoint_if_cancelled()
    pieces: list[bytes] = []
    step = partial(next, slices, None)
    while (piece := step()) is not None:
        hold(len(piece))
        pieces.append(piece)
        await trio.lowlevel.checkpoint()
    return b"".join(pieces)
