"""Whom a port answers: the hosts it goes by, and the browser pages that may call it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

ANY: Final = "*"
"""In ``allow_origins``: every page may call."""

_LOOPBACK_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost")


@dataclass(frozen=True, slots=True)
class Visitors:
    """Which Host and Origin headers are welcome.

    ``hosts`` are names without a port, in lower case; any literal IP address is welcome too:
    DNS rebinding needs a name. ``origins`` are serialized origins, in lower case, or ``*``.
    """

    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def welcome(cls, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> Visitors:
        """Those of this machine, and these."""
        names = {host.lower() for host in hosts if host} | set(_LOOPBACK_NAMES)
        return cls(frozenset(names), frozenset(o.lower().rstrip("/") for o in origins))

    def knows_host(self, host: str | None) -> bool:
        """Whether a Host header names us. Its absence is for the caller to judge."""
        if host is None:
            return False
        name = _host_name(host)
        return name in self.hosts or ANY in self.hosts or _is_address(name)

    def knows_origin(self, origin: str | None, host: str | None) -> bool:
        """Whether a request with this Origin may be answered: none, ours, or a listed one."""
        if origin is None or ANY in self.origins or self.lists(origin):
            return True
        scheme, _, authority = origin.lower().partition("://")
        return scheme in {"http", "https"} and host is not None and authority == host.lower()

    def lists(self, origin: str) -> bool:
        """Whether this origin is named among those allowed."""
        return origin.lower() in self.origins


def _host_name(host: str) -> str:
    """A Host header without its port, brackets and trailing dot."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
