"""The listener: accepts connections, gives each a task behind a barrier, and ends them all."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import trio

from exo_stream.logger import log
from exo_stream.protocol.http import problem, render
from exo_stream.server.http import HttpConnection
from exo_stream.server.port import Port
from exo_stream.server.transport import Transport

_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_SECONDS: Final = 0.1
"""How long accepting rests when the process has no file descriptor left."""

_FULL: Final = render(
    problem(503, "overloaded", "too many connections", (("retry-after", "1"),)),
    (("connection", "close"),),
)


class Listener:
    """Accepts for a port, and knows everybody who is connected."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._of_address: Counter[str] = Counter()
        self._stopping = trio.Event()
        self._force = trio.CancelScope(shield=True)

    @property
    def connections(self) -> int:
        """How many are connected at the moment."""
        return self._of_address.total()

    async def run(self, sockets: Sequence[trio.SocketListener]) -> None:
        """Serve until cancelled, then drain: everybody is told, and after a bounded time cut."""
        async with trio.open_nursery() as nursery:
            connections = await nursery.start(self._hold)
            try:
                async with trio.open_nursery() as accepting:
                    for socket in sockets:
                        accepting.start_soon(self._accept, socket, connections)
            finally:
                for socket in sockets:
                    socket.socket.close()
                self._port.drain()
                self._force.deadline = trio.current_time() + self._port.limits.drain_seconds_max
                self._stopping.set()

    async def _hold(  # noqa: ASYNC114 - a nursery can only be handed over by a started task
        self, task_status: trio.TaskStatus[trio.Nursery]
    ) -> None:
        """The connections, out of reach of the cancellation that begins the drain."""
        with self._force:
            async with trio.open_nursery() as connections:
                self._port.tasks = connections
                task_status.started(connections)
                await self._stopping.wait()

    async def _accept(self, socket: trio.SocketListener, connections: trio.Nursery) -> None:
        while True:
            try:
                stream = await socket.accept()
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.warning("accept postponed", error=str(error))
                await trio.sleep(_PAUSE_SECONDS)
                continue
            connections.start_soon(self.serve_stream, stream, _peer(stream))

    async def serve_stream(self, stream: trio.abc.Stream, remote: str) -> None:
        """Serve one connection to its end. Nothing that happens on it gets out of here."""
        limits = self._port.limits
        transport = Transport(stream, send_seconds_max=limits.send_seconds_max)
        with self._counted(remote) as is_welcome:
            self._port.transports.add(transport)
            try:
                if is_welcome:
                    await self._serve(HttpConnection(transport, self._port, remote))
                else:
                    transport.try_send(_FULL)
            except* (trio.BrokenResourceError, trio.ClosedResourceError) as lost:
                log.debug("connection lost", remote=remote, reason=str(lost.exceptions[0]))
            except* Exception:
                # The barrier: a bug met by one connection ends that connection only.
                log.exception("connection failed", remote=remote)
            finally:
                self._port.transports.discard(transport)
                await transport.aclose_forcefully()  # noqa: ASYNC102 - it never waits

    async def _serve(self, connection: HttpConnection) -> None:
        try:
            async with trio.open_nursery() as nursery:
                await connection.serve(nursery)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except* Exception:
            with (
                trio.CancelScope(shield=True),
                trio.move_on_after(self._port.limits.close_seconds_max),
            ):
                await connection.apologise()
            raise

    @contextmanager
    def _counted(self, remote: str) -> Iterator[bool]:
        """Count a connection while it lasts; False if it is one too many."""
        limits = self._port.limits
        has_room = (
            self.connections < limits.connections_max
            and self._of_address[remote] < limits.connections_per_address_max
        )
        self._of_address[remote] += 1
        try:
            yield has_room
        finally:
            self._of_address[remote] -= 1
            if not self._of_address[remote]:
                del self._of_address[remote]


def _peer(stream: trio.SocketStream) -> str:
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return "gone"
