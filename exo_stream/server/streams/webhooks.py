"""Webhooks: one POST to an address that may be reached, within a time, and a bounded answer.

There is no pool, no proxy and no redirect. The host is looked up here, every address it has is
judged, and the connection is made to that very address: a name that means another one a moment
later changes nothing.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import h11
import trio

from exo_stream.protocol.streams.webhook_urls import (
    WebhookUrl,
    WebhookUrlError,
    may_reach,
    webhook_url,
)

WEBHOOK_SECONDS_MAX: Final = 15
"""From the look-up to the last byte of the answer."""
CONNECT_SECONDS_MAX: Final = 5
"""For one address, before the next is tried."""
ADDRESSES_MAX: Final = 4
ANSWER_BYTES_MAX: Final = 64 * 1024
"""Of an answer's body; of a larger one only the status counts."""
HEAD_BYTES_MAX: Final = 16 * 1024
_RECEIVE_BYTES: Final = 16 * 1024


class WebhookError(Exception):
    """The webhook was not taken; the text says why. It may have arrived all the same."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a webhook that was taken; its body is empty if it was too large."""

    status: int
    body: bytes

    @property
    def is_done(self) -> bool:
        """Whether it says that what the webhook told of has been dealt with."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and value.get("done") is True


class Webhooks:
    """Sends webhooks; ``loopback`` lets them go to this machine, over plain HTTP too."""

    def __init__(
        self,
        *,
        loopback: bool,
        seconds_max: float = WEBHOOK_SECONDS_MAX,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._loopback = loopback
        self._seconds_max = seconds_max
        self._tls = tls

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The answer, which is one of success. Raises WebhookError."""
        try:
            with trio.fail_after(self._seconds_max):
                where = webhook_url(url, loopback=self._loopback)
                stream = await self._connect(where)
                try:
                    reply = await _exchange(stream, _request(where, body, headers), body)
                finally:
                    await trio.aclose_forcefully(stream)
        except WebhookUrlError as error:
            raise WebhookError(str(error)) from None
        except trio.TooSlowError:
            raise WebhookError(f"no answer within {self._seconds_max} seconds") from None
        except (trio.BrokenResourceError, OSError, h11.ProtocolError, UnicodeError) as error:
            # Of a handshake that failed only the cause says why.
            reason = str(error) or str(error.__cause__ or "")
            raise WebhookError(reason or type(error).__name__) from None
        if not 200 <= reply.status < 300:
            raise WebhookError(f"answered {reply.status}")
        return reply

    async def _connect(self, where: WebhookUrl) -> trio.abc.Stream:
        failures: list[str] = []
        for family, address in await self._addresses(where):
            with trio.move_on_after(CONNECT_SECONDS_MAX):
                try:
                    return await self._secured(await _open(family, address), where)
                except OSError as error:
                    failures.append(str(error))
        raise WebhookError(failures[-1] if failures else "no address answered")

    async def _addresses(self, where: WebhookUrl) -> Sequence[tuple[int, tuple[object, ...]]]:
        """Where the host is. All its addresses must be allowed: a name that means one inside and
        one outside is not to be trusted with either.
        """
        found = await trio.socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
        addresses = [(int(family), tuple(address)) for family, _, _, _, address in found]
        for _, address in addresses:
            if not may_reach(str(address[0]), loopback=self._loopback):
                raise WebhookError("the host is on this machine or in its network")
        return addresses[:ADDRESSES_MAX]

    async def _secured(self, stream: trio.SocketStream, where: WebhookUrl) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not where.is_tls:
            return stream
        if self._tls is None:
            self._tls = ssl.create_default_context()
        secured = trio.SSLStream(stream, self._tls, server_hostname=where.host)
        try:
            await secured.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secured


async def _open(family: int, address: tuple[object, ...]) -> trio.SocketStream:
    connection = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return trio.SocketStream(connection)


def _request(where: WebhookUrl, body: bytes, headers: Mapping[str, str]) -> h11.Request:
    return h11.Request(
        method="POST",
        target=where.target,
        headers=[
            ("Host", where.authority),
            ("User-Agent", "exo-stream"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *headers.items(),
        ],
    )


async def _exchange(stream: trio.abc.Stream, request: h11.Request, body: bytes) -> Reply:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
    events = (request, h11.Data(data=body), h11.EndOfMessage())
    await stream.send_all(b"".join([connection.send(event) or b"" for event in events]))
    status, size, pieces = 0, 0, list[bytes]()
    while True:
        event = connection.next_event()
        match event:
            case h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(_RECEIVE_BYTES)))
            case h11.Response():
                status = event.status_code
                if not 200 <= status < 300:
                    return Reply(status, b"")
            case h11.Data():
                size += len(event.data)
                pieces.append(bytes(event.data))
                if size > ANSWER_BYTES_MAX:
                    return Reply(status, b"")
            case h11.InformationalResponse():
                pass
            case _:
                return Reply(status, b"".join(pieces))
