"""The bytes a client of each kind sends: to subscribe, and to publish a burst, encoded once."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Final

from benchmarks.redis_client import command
from benchmarks.servers import Address
from exo_stream.protocol import codec
from exo_stream.protocol import messages as m
from exo_stream.starts import Now, Start

SUBJECT: Final = b"bench"

STREAM: Final = "/v1/stream/bench"

_UPGRADE: Final = (
    b"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: " + m.SUBPROTOCOL.encode() + b"\r\n\r\n"
)


def client_frame(payload: bytes) -> bytes:
    """One binary WebSocket frame from a client, masked with zeros, which changes no byte."""
    length = len(payload)
    if length < 126:
        head = bytes((0x82, 0x80 | length))
    elif length < 1 << 16:
        head = b"\x82\xfe" + length.to_bytes(2, "big")
    else:
        head = b"\x82\xff" + length.to_bytes(8, "big")
    return head + bytes(4) + payload


def subscription(kind: str, *, start: Start | None = None) -> tuple[list[bytes], bytes]:
    """What to send one after another, and what the peer says when the subscription is live."""
    if kind == "redis":
        return [command(b"SUBSCRIBE", SUBJECT)], b"subscribe"
    if kind == "nats":
        return [b'CONNECT {"verbose":false}\r\nSUB %b 1\r\nPING\r\n' % SUBJECT], b"PONG"
    if kind == "events":
        follow = f"GET {STREAM}?offset=now&live=sse HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        return [follow.encode()], b"upToDate"
    assert kind == "exo", kind
    subscribe = m.Subscribe(1, start=start or Now())
    asked = [client_frame(codec.encode([m.Hello((m.VERSION,), "bench")]))]
    asked.append(client_frame(codec.encode([subscribe])))
    return [_UPGRADE, *asked], b"caught_up"


def burst(kind: str, values: Iterable[bytes], *, first_id: int = 1) -> bytes:
    """What publishes each value as a message, or a batch, of its own."""
    if kind == "redis":
        return b"".join([command(b"PUBLISH", SUBJECT, value) for value in values])
    if kind == "nats":
        return b"".join([b"PUB %b %d\r\n%b\r\n" % (SUBJECT, len(v), v) for v in values])
    assert kind == "exo", kind
    writes = [m.Write(id_, puts=((SUBJECT, v),)) for id_, v in enumerate(values, start=first_id)]
    return client_frame(codec.encode(writes))


def open_publisher(kind: str, address: Address) -> socket.socket:
    """A connection that ``burst`` may be sent on."""
    publisher = socket.create_connection(address)
    publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if kind == "exo":
        publisher.sendall(_UPGRADE)
        hear_until(publisher, b"\r\n\r\n")
        publisher.sendall(client_frame(codec.encode([m.Hello((m.VERSION,), "bench")])))
        hear_until(publisher, b"welcome")
    if kind == "nats":
        publisher.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        hear_until(publisher, b"PONG")
    return publisher


def hear_until(peer: socket.socket, what: bytes) -> None:
    """Read until the peer has said ``what``. Raises ConnectionError if it leaves before."""
    heard = b""
    while what not in heard:
        some = peer.recv(1 << 16)
        if not some:
            raise ConnectionError(f"the peer left, having said {heard[-200:]!r}")
        heard += some
