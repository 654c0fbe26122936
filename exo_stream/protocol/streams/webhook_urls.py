"""Where webhooks may go: never to this machine or into the network that it stands in.

A URL is judged when it is brought, and every address that its host turns out to have before
anything is sent there: what a name means may change in between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

URL_BYTES_MAX: Final = 2_048

_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?|\[[0-9A-Fa-f:.]+\]")
_TARGET: Final = re.compile(r"[!-~]*")
_NUMERIC: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_LOCAL: Final = ("localhost", "local", "internal", "localdomain", "home.arpa")
"""Names, and what ends in them, that mean something here and nothing elsewhere."""

_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE: Final = IPv6Network("::/96")


class WebhookUrlError(ValueError):
    """The URL is none, or none that a webhook may go to; the text says why."""


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """Where a webhook goes; ``host`` is a name or an address without brackets."""

    is_tls: bool
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            host
            if self.port == _PORTS["https" if self.is_tls else "http"]
            else f"{host}:{self.port}"
        )


def webhook_url(text: str, *, loopback: bool) -> WebhookUrl:
    """The URL in ``text``, if a webhook may go there; ``loopback`` lets it stay on this machine.

    Raises WebhookUrlError.
    """
    if len(text) > URL_BYTES_MAX or not _TARGET.fullmatch(text):
        raise WebhookUrlError(f"a webhook's URL is ASCII, and at most {URL_BYTES_MAX} characters")
    parts, port = _split(text)
    if parts.scheme not in _PORTS:
        raise WebhookUrlError("a webhook's URL begins with https://")
    if "@" in parts.netloc:
        raise WebhookUrlError("a webhook's URL has no user and no password")
    if not _HOST.fullmatch(parts.netloc.rpartition(":")[0] if port is not None else parts.netloc):
        raise WebhookUrlError("a webhook's URL has a host")
    host = (parts.hostname or "").removesuffix(".")
    _check_host(host, is_tls=parts.scheme == "https", loopback=loopback)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebhookUrl(parts.scheme == "https", host, port or _PORTS[parts.scheme], target)


def may_reach(address: str, *, loopback: bool) -> bool:
    """Whether a webhook may go to this address, which a host turned out to have."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(_is_public(inner) or (loopback and inner.is_loopback) for inner in _meant(found))


def _split(text: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise WebhookUrlError("a webhook's URL is a URL") from None
    if port == 0:
        raise WebhookUrlError("there is no port 0")
    return parts, port


def _check_host(host: str, *, is_tls: bool, loopback: bool) -> None:
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is None:
        if _NUMERIC.fullmatch(host.rpartition(".")[2]):
            raise WebhookUrlError("an address is written as four numbers")
        is_loopback = host == "localhost" or host.endswith(".localhost")
        is_local = any(host == name or host.endswith(f".{name}") for name in _LOCAL)
        is_allowed = not is_local or (is_loopback and loopback)
    else:
        is_loopback = address.is_loopback
        is_allowed = may_reach(host, loopback=loopback)
    if not is_allowed:
        raise WebhookUrlError("a webhook does not go to this machine or into its network")
    if not is_tls and not (is_loopback and loopback):
        raise WebhookUrlError("a webhook's URL begins with https://")


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def _meant(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """The address, or those of IPv4 that it is a way to."""
    if isinstance(address, IPv4Address):
        return [address]
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped is not None or any(address in network for network in _NAT64):
        return [last]
    if address in _COMPATIBLE and int(address) > 1:
        return [last]
    if address.sixtofour is not None:
        return [
            address.sixtofour
        ]  # the rest of it routes to there; releases of Python differ on it
    return [address, *(address.teredo or ())]
