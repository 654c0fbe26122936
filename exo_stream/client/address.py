"""Where a server is: what a URL like ``ws://127.0.0.1:4437/v1/ws`` means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from exo_stream.errors import InvalidRequestError

PORT: Final = 4437
RESOURCE: Final = "/v1/ws"


@dataclass(frozen=True, slots=True)
class Address:
    """A WebSocket to open: the host and port to dial, and the resource to ask for there."""

    host: str
    port: int
    resource: str
    is_secure: bool

    @property
    def authority(self) -> str:
        """The host and port as a URL and the Host header write them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'wss' if self.is_secure else 'ws'}://{self.authority}{self.resource}"


def parse_url(url: str) -> Address:
    """The address a URL names; the port is 4437 and the path ``/v1/ws`` unless it says otherwise.

    Raises InvalidRequestError for what is no ``ws://`` or ``wss://`` URL.
    """
    complaint = InvalidRequestError(
        f"a server is named like ws://127.0.0.1:{PORT}{RESOURCE}, not {url[:200]!r}"
    )
    if not url.isascii() or not url.isprintable() or " " in url:
        raise complaint
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise complaint from None
    if parts.scheme not in {"ws", "wss"} or not host or parts.username or parts.fragment:
        raise complaint
    resource = parts.path if parts.path not in {"", "/"} else RESOURCE
    if parts.query:
        resource = f"{resource}?{parts.query}"
    return Address(host, PORT if port is None else port, resource, parts.scheme == "wss")
