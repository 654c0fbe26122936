"""From an address to an open WebSocket, or to one sentence that says why there is none."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, cast

import trio
from trio_websocket import ConnectionRejected, WebSocketConnection, wrap_client_stream

from exo_stream.client.address import Address
from exo_stream.errors import UnavailableError
from exo_stream.limits import MIB, Limits
from exo_stream.nursery import nursery_unseen
from exo_stream.protocol.messages import SUBPROTOCOL

Dial = Callable[[Address], Awaitable[trio.abc.Stream]]
"""Opens the transport to a server, or raises UnavailableError."""

RECEIVE_BYTES: Final = MIB // 4
"""Asked of the kernel at a time: a frame of replay is a mebibyte."""
DIAL_SECONDS_MAX: Final = 10


def dialing(context: ssl.SSLContext | None) -> Dial:
    """How to open a transport over TCP, with TLS by ``context`` where the address asks for it."""

    async def dial(address: Address) -> trio.abc.Stream:
        try:
            with trio.fail_after(DIAL_SECONDS_MAX):
                stream = await trio.open_tcp_stream(address.host, address.port)
                if not address.is_secure:
                    return stream
                return await _secured(stream, address, context)
        except (OSError, ssl.SSLError, trio.BrokenResourceError, ValueError) as error:
            raise UnavailableError(f"cannot reach {address}: {_reason(error)}") from None
        except trio.TooSlowError:
            raise UnavailableError(
                f"cannot reach {address}: no answer in {DIAL_SECONDS_MAX} s"
            ) from None

    return dial


async def _secured(
    stream: trio.SocketStream, address: Address, context: ssl.SSLContext | None
) -> trio.abc.Stream:
    secured = trio.SSLStream(
        stream,
        context or ssl.create_default_context(),
        server_hostname=address.host,
        https_compatible=True,
    )
    try:
        await secured.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):  # one error for each address of the host
        cause = cause.exceptions[0]
    return str(getattr(cause or error, "strerror", None) or cause or error)


class _Watched:
    """A transport that says when it has ended: trio-websocket would wait for its handshake."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.ended = trio.Event()
        self._stream = stream
        self.send_all = stream.send_all

    async def aclose(self) -> None:
        self.ended.set()
        await self._stream.aclose()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data


@asynccontextmanager
async def open_websocket(
    dial: Dial, address: Address, limits: Limits
) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket in our subprotocol, whose reader runs while the body does.

    Leaving the body hangs up without a word: close it inside. Raises UnavailableError if there
    is no server, or another one.
    """
    stream = await dial(address)
    try:
        with nursery_unseen() as own:
            async with trio.open_nursery() as nursery:
                websocket = await nursery.start(_hold, stream, address, limits)
                with own:
                    yield websocket
                nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def _hold(
    stream: trio.abc.Stream,
    address: Address,
    limits: Limits,
    *,
    task_status: trio.TaskStatus[WebSocketConnection],
) -> None:
    """Run trio-websocket's reader. What it trips over ends the connection and nothing else."""
    await trio.lowlevel.checkpoint()
    watched = _Watched(stream)
    told = False
    try:
        async with trio.open_nursery() as nursery:
            websocket = await _shake_hands(nursery, watched, address, limits)
            task_status.started(websocket)
            told = True
    except* ConnectionRejected as rejected:
        [error] = _leaves(rejected)
        raise UnavailableError(
            f"{address} is no exo-stream server: it answered HTTP {error.status_code}"
        ) from None
    except* UnavailableError:
        raise
    except* Exception as broken:
        # A barrier: whatever the library met in the bytes.
        if not told:
            raise UnavailableError(f"{address} does not speak WebSocket") from broken


def _leaves(group: BaseExceptionGroup[ConnectionRejected]) -> list[ConnectionRejected]:
    found: list[ConnectionRejected] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def _shake_hands(
    nursery: trio.Nursery, watched: _Watched, address: Address, limits: Limits
) -> WebSocketConnection:
    websocket: WebSocketConnection | None = None

    async def give_up_with_the_transport() -> None:
        await watched.ended.wait()
        race.cancel_scope.cancel()

    async with trio.open_nursery() as race:
        race.start_soon(give_up_with_the_transport)
        race.cancel_scope.deadline = trio.current_time() + limits.handshake_seconds_max
        websocket = await wrap_client_stream(
            nursery,
            # The annotation asks for a SocketStream; any stream will do.
            cast("trio.SocketStream", watched),
            address.authority,
            address.resource,
            subprotocols=[SUBPROTOCOL],
            max_message_size=limits.message_bytes_max,
            receive_buffer_size=RECEIVE_BYTES,
        )
        race.cancel_scope.cancel()
    if websocket is None:
        raise UnavailableError(
            f"{address} is no exo-stream server: it hung up, spoke something else or took too long"
        )
    if websocket.subprotocol != SUBPROTOCOL:
        raise UnavailableError(f"{address} does not speak {SUBPROTOCOL}")
    return websocket
