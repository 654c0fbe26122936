"""Serving a platform: one port for everything, until cancelled."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from functools import partial
from typing import Final

import trio

from exo_stream.errors import InvalidRequestError, UnavailableError
from exo_stream.logger import log
from exo_stream.platform import Platform
from exo_stream.protocol.closing import Close
from exo_stream.protocol.http import RefusedError
from exo_stream.protocol.messages import SUBPROTOCOL
from exo_stream.protocol.origin import Visitors
from exo_stream.protocol.upgrade import check_upgrade, render_upgrade
from exo_stream.server.conversation import Conversation
from exo_stream.server.following import encoder
from exo_stream.server.health import Health
from exo_stream.server.listener import Listener
from exo_stream.server.port import Port
from exo_stream.server.request import Request
from exo_stream.server.routes import Answer, Takeover
from exo_stream.server.store_api.api import StoreApi
from exo_stream.server.streams.routes import StreamRoutes
from exo_stream.server.streams.settings import StreamSettings
from exo_stream.server.streams.wakes import Wakes
from exo_stream.server.streams.webhooks import Webhooks
from exo_stream.server.transport import Transport
from exo_stream.server.websocket import WebSocket, run_websocket

HOST: Final = "127.0.0.1"
PORT: Final = 4437
STREAMS: Final = StreamSettings()


async def serve(
    platform: Platform,
    *,
    host: str = HOST,
    port: int = PORT,
    allow_origins: Iterable[str] = (),
    allow_hosts: Iterable[str] = (),
    streams: StreamSettings = STREAMS,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``platform`` on one port until cancelled, then drain: tell everybody, and end.

    Loopback by default. Pages of foreign origins are refused unless ``allow_origins`` lists them
    (``*`` is all); requests must name this machine, an address, ``host`` or one of
    ``allow_hosts``. ``streams`` says how streams are served. ``nursery.start`` answers with the
    address and port once connections are accepted; port 0 is any free one. Raises
    UnavailableError if the port cannot be had.
    """
    sockets = await _listen(host, port)
    visitors = Visitors.welcome((host, *allow_hosts), allow_origins)
    shared = open_port(platform, visitors, streams)
    address = sockets[0].socket.getsockname()
    log.info("port opened", host=address[0], port=address[1])
    task_status.started((address[0], address[1]))
    wakes = Wakes(platform, Webhooks(loopback=streams.webhook_loopback))
    try:
        async with trio.open_nursery() as beside:
            beside.start_soon(wakes.run)
            await Listener(shared).run(sockets)
    finally:
        log.info("port closed", host=address[0], port=address[1])


def open_port(platform: Platform, visitors: Visitors, streams: StreamSettings = STREAMS) -> Port:
    """A port with the platform's own routes; faces add theirs."""
    port = Port(platform.limits, visitors)
    Health(platform, port).add_routes()
    StoreApi(platform, port).add_routes()
    StreamRoutes(platform, port, streams).add_routes()
    port.routes.add("GET", "/v1/ws", _Conversations(platform, port).answer)
    return port


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    if not 0 <= port <= 65_535:
        raise InvalidRequestError(f"there is no port {port}")
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except UnicodeError:
        raise InvalidRequestError(f"there can be no host named {host!r}") from None
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "it is in use" if taken else error.strerror or str(error)
        raise UnavailableError(f"cannot listen on {host}:{port}: {reason}") from error


class _Conversations:
    """Answers ``/v1/ws``: the handshake, and a conversation behind it."""

    def __init__(self, platform: Platform, port: Port) -> None:
        self._platform = platform
        self._port = port
        self._encode = encoder(port.limits.frame_bytes_max)

    async def answer(self, request: Request) -> Answer:
        """The takeover by a WebSocket, if the request is one and may be."""
        await trio.lowlevel.checkpoint_if_cancelled()
        head = request.head
        if not self._port.visitors.knows_origin(head.header("origin"), head.header("host")):
            raise RefusedError(403, "invalid_request", "pages of this origin may not connect")
        check_upgrade(head, SUBPROTOCOL)
        return Takeover(partial(self._run, render_upgrade(head, SUBPROTOCOL)))

    async def _run(self, handshake: bytes, transport: Transport) -> None:
        await run_websocket(
            transport,
            handshake,
            self._converse,
            subprotocol=SUBPROTOCOL,
            limits=self._port.limits,
            budget=self._port.budget,
        )

    async def _converse(self, socket: WebSocket) -> Close:
        port = self._port
        conversation = Conversation(self._platform, socket, port.limits, port.budget, self._encode)
        with port.told_to_leave(conversation.leave):
            return await conversation.run()
