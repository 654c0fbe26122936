"""A streamed answer on its way: pulled, encoded, sent, and ended by what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from exo_stream.errors import ExoStreamError
from exo_stream.protocol.connect.call import Call
from exo_stream.protocol.connect.envelope import (
    COMPRESSED,
    end_stream,
    envelope_head,
)
from exo_stream.protocol.connect.failure import CallError
from exo_stream.server.port import Port
from exo_stream.server.request import BodyWriter
from exo_stream.server.store_api.answering import Piece, Pieces
from exo_stream.server.store_api.failures import call_error, deadline_exceeded, leaving
from exo_stream.server.store_api.transcoding import Transcoder

SEND_BYTES: Final = 1 << 20
"""How much is sent under one deadline, and collected before it is sent."""


class Streaming:
    """One streamed answer. ``deadline`` is on trio's clock, None if the caller sets none."""

    def __init__(
        self,
        pieces: Pieces,
        call: Call,
        domain: str,
        port: Port,
        transcoder: Transcoder,
        *,
        deadline: float | None,
        frontier: Callable[[], int],
    ) -> None:
        self._pieces = pieces
        self._call = call
        self._domain = domain
        self._port = port
        self._transcoder = transcoder
        self._deadline = deadline
        self._frontier = frontier
        self._scope = trio.CancelScope()
        self._leaving = False

    async def write(self, writer: BodyWriter) -> None:
        """Send everything, and at the end what became of it.

        Only pulling is cancelled by the deadline: a message cut in the middle would leave the
        client with nothing that it could understand.
        """
        error: CallError | None = None
        self._pieces.offer_seat(self._call, writer)
        try:
            with self._port.told_to_leave(self._leave):
                while await self._step(writer):
                    pass
        except CallError as failed:
            error = failed
        except ExoStreamError as failed:
            error = call_error(failed, self._domain, self._frontier())
        finally:
            self._pieces.close()
        await writer.send(end_stream(error, self._pieces.metadata))

    def _leave(self) -> None:
        if self._pieces.endless:
            self._leaving = True
            self._scope.cancel()

    async def _step(self, writer: BodyWriter) -> bool:
        with self._port.budget.open_share() as share:
            pulled: Sequence[Piece] | None = None
            with trio.CancelScope() as self._scope:
                if self._deadline is not None:
                    self._scope.deadline = self._deadline
                    # What needs no waiting would not notice that its time is over.
                    await trio.lowlevel.checkpoint()
                if self._leaving:
                    self._scope.cancel()
                pulled = await self._pieces.next(share)
            if self._scope.cancelled_caught:
                raise leaving(self._domain) if self._leaving else deadline_exceeded()
            if pulled:
                await self._send(writer, pulled)
            return pulled is not None

    async def _send(self, writer: BodyWriter, pieces: Sequence[Piece]) -> None:
        """The pieces in their envelopes: small ones together, large ones in parts."""
        waiting: list[bytes] = []
        size = 0
        for piece in pieces:
            data = await self._transcoder.write(self._call.codec, piece)
            data, is_compressed = await self._transcoder.compress(self._call.answer_encoding, data)
            waiting += (envelope_head(len(data), COMPRESSED if is_compressed else 0), data)
            size += len(data)
            if size >= SEND_BYTES:
                await send_in_parts(writer, b"".join(waiting))
                waiting, size = [], 0
        await send_in_parts(writer, b"".join(waiting))


async def send_in_parts(writer: BodyWriter, data: bytes) -> None:
    """Send ``data`` so that a peer which takes it slowly, but takes it, is not cut."""
    for start in range(0, len(data), SEND_BYTES):
        await writer.send(data[start : start + SEND_BYTES])
    await trio.lowlevel.checkpoint_if_cancelled()
