"""The WebSocket handshake (RFC 6455, 4.2.1): what is asked of a head, and what is passed on."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from exo_stream.protocol.http import Head, RefusedError

_VERSION: Final = "13"


def check_upgrade(head: Head, subprotocol: str | None) -> None:
    """Raise RefusedError unless ``head`` opens a WebSocket and offers ``subprotocol``."""
    if head.method != "GET" or head.version != "1.1" or head.has_body:
        raise RefusedError(400, "invalid_request", "a WebSocket begins with a plain GET")
    upgrades = [token.lower() for token in head.tokens("upgrade")]
    if not head.upgrades or upgrades != ["websocket"]:
        raise RefusedError(
            426,
            "invalid_request",
            "this path speaks WebSocket",
            (("upgrade", "websocket"), ("connection", "upgrade")),
        )
    if head.header("sec-websocket-version") != _VERSION:
        raise RefusedError(
            426,
            "invalid_request",
            "only version 13 of WebSocket is spoken here",
            (("sec-websocket-version", _VERSION),),
        )
    _check_key(head.header("sec-websocket-key") or "")
    if subprotocol is not None and subprotocol not in head.tokens("sec-websocket-protocol"):
        raise RefusedError(400, "invalid_request", f"offer the subprotocol {subprotocol}")


def _check_key(key: str) -> None:
    try:
        nonce = base64.b64decode(key, validate=True)
    except binascii.Error:
        nonce = b""
    if len(nonce) != 16:
        raise RefusedError(400, "invalid_request", "the Sec-WebSocket-Key is not 16 bytes")


def render_upgrade(head: Head, subprotocol: str | None) -> bytes:
    """A checked head for a WebSocket library, with nothing in it that could confuse one.

    No extensions: what is not offered is not compressed, and no frame is a bomb.
    """
    lines = [
        f"GET {head.target} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Version: {_VERSION}",
        f"Sec-WebSocket-Key: {head.header('sec-websocket-key')}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "\r\n"]).encode()
