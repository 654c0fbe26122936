"""The transport: a Trio stream that owns the write lock, the send deadline, and ``try_send``.

Every byte of a connection goes through here. A frame is written whole or the connection dies:
whoever is cancelled or times out in the middle of one leaves a torn frame, after which nothing
that follows could be understood. And the fan-out actor may write without waiting: what the
kernel does not take of its frame is kept here, and goes out before anything else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import trio

RECEIVE_BYTES: Final = 65_536
"""How much is read at once."""


def _nothing() -> None:
    pass


class Transport:
    """One connection's bytes, with the methods of ``trio.abc.HalfCloseableStream``.

    ``on_partial`` is called when a remainder waits to be flushed.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        send_seconds_max: float,
        on_partial: Callable[[], None] = _nothing,
    ) -> None:
        self.on_partial = on_partial
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._send_seconds_max = send_seconds_max
        self._lock = trio.StrictFIFOLock()
        self._remainder = b""
        self._replay = b""
        self._bytes_waiting = 0
        self._refusing = False
        self._closed = False
        self.blocked_since: float | None = None
        """Since when the peer takes nothing of what is being sent."""

    @property
    def bytes_held(self) -> int:
        """Bytes handed to this transport that the kernel has not taken yet."""
        return len(self._remainder) + self._bytes_waiting

    @property
    def closed(self) -> bool:
        """Whether nothing more can be sent."""
        return self._closed

    @property
    def has_socket(self) -> bool:
        """Whether ``try_send`` can work at all: not under TLS, nor on a stream in memory."""
        return self._socket is not None

    def replay(self, data: bytes) -> None:
        """Have ``receive_some`` give ``data`` once more, before anything else."""
        self._replay = data + self._replay

    def refuse_try_send(self) -> None:
        """From now on ``try_send`` refuses, as after a Close frame; ``send_all`` does not."""
        self._refusing = True

    def try_send(self, *parts: bytes) -> bool:
        """Send the parts as one frame without waiting: True if the kernel took at least a part.

        Of a part taken the rest is kept, ``on_partial`` called, and ``try_send`` refuses until
        ``flush`` or ``send_all`` has sent it. False means that nothing was sent.
        """
        if self._refusing or self._socket is None or self._remainder or self._lock.locked():
            return False
        try:
            sent = os.writev(self._socket.fileno(), parts)
        except OSError:
            # Full, or broken; if it is broken the reader of this connection learns it too.
            return False
        if sent < sum(map(len, parts)):
            self._remainder = b"".join(parts)[sent:]
            self.on_partial()
        return True

    async def flush(self) -> None:
        """Send the remainder, if there is one. Raises what ``send_all`` raises."""
        await self.send_all(b"")

    async def flush_quietly(self) -> None:
        """Send the remainder; that the peer is gone is found by whoever uses the transport."""
        try:
            await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` whole, behind the remainder and whoever came before.

        Raises BrokenResourceError if the peer is gone or takes it for too long,
        ClosedResourceError if we closed; in each case, and when cancelled, the transport is
        closed by force.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self._send_now(data)
        if sent == len(data) and not self._remainder:
            # No lock is held over this checkpoint: the fan-out actor is never refused for a
            # send that is already done.
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        rest = memoryview(data)[sent:]
        self._bytes_waiting += len(rest)
        try:
            async with self._lock:
                await self._send_locked(rest)
        finally:
            self._bytes_waiting -= len(rest)

    def _send_now(self, data: bytes | bytearray | memoryview) -> int:
        """How many bytes the kernel took; 0 if it is somebody else's turn."""
        if self._socket is None or self._remainder or self._lock.locked():
            return 0
        try:
            return os.write(self._socket.fileno(), data)
        except OSError:
            return 0

    async def _send_locked(self, data: memoryview) -> None:
        self.blocked_since = trio.current_time()
        with trio.move_on_after(self._send_seconds_max) as scope:
            try:
                self._check_open()
                if self._remainder:
                    await self._stream.send_all(self._remainder)
                    self._remainder = b""
                await self._stream.send_all(data)
            except BaseException:
                await self.aclose_forcefully()  # noqa: ASYNC102 - it never waits
                raise
        self.blocked_since = None
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the peer did not take a frame in time")

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this connection was closed")

    async def wait_send_all_might_not_block(self) -> None:
        """Return when nothing waits here; the kernel's own buffer may be full."""
        async with self._lock:
            self._check_open()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Bytes that arrived, ``b""`` at the peer's end of file.

        Raises BrokenResourceError if the peer is gone, ClosedResourceError if we closed.
        """
        if self._replay:
            await trio.lowlevel.checkpoint()
            size = max_bytes or RECEIVE_BYTES
            data, self._replay = self._replay[:size], self._replay[size:]
            return data
        self._check_open()
        return bytes(await self._stream.receive_some(max_bytes or RECEIVE_BYTES))

    async def send_eof(self) -> None:
        """Tell the peer that nothing more comes, if the stream can."""
        async with self._lock:
            self._refusing = True
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()

    def kill(self) -> None:
        """Close at once, whoever is sending; a stream without a socket is only marked."""
        self._closed = True
        if self._socket is not None:
            self._socket.close()

    async def aclose(self) -> None:
        """Close; what waits is not sent any more."""
        self._closed = True
        await self._stream.aclose()

    async def aclose_forcefully(self) -> None:
        """Close without waiting for anything."""
        self.kill()
        await trio.aclose_forcefully(self._stream)

    async def linger(self, seconds: float) -> None:
        """Close so that the peer reads what we sent last, within ``seconds``.

        A socket closed while unread bytes wait in it sends a reset, which may overtake the
        response or the Close frame before it (RFC 9112, section 9.6).
        """
        with trio.move_on_after(seconds):
            try:
                await self.send_eof()
                while await self.receive_some():
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass
        await self.aclose_forcefully()
