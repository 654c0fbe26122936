"""Tokens that prove a wake was handed over to whoever brings them, and keys from one secret."""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Final, Literal

SECRET_BYTES: Final = 32
TOKEN_SECONDS_MAX: Final = 3600
"""How long a token is good; a worker that takes longer claims again."""

_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]{75}")
_MAC_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is good for: one generation of one subscription."""

    incarnation: int
    generation: int


Bad = Literal["TOKEN_INVALID", "TOKEN_EXPIRED"]


def derived(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose, from which neither the secret nor others can be told."""
    return hmac.digest(secret, purpose.encode(), "sha256")


def mint(secret: bytes, scope: Scope, now: int) -> str:
    """A token for ``scope``; ``now`` is in microseconds, as everywhere."""
    expires = now // 1_000_000 + TOKEN_SECONDS_MAX
    said = b"".join(
        part.to_bytes(8, "big") for part in (scope.incarnation, scope.generation, expires)
    )
    return urlsafe_b64encode(said + _mac(secret, said)).decode().rstrip("=")


def judge(secret: bytes, token: str, now: int) -> Scope | Bad:
    """What the token is good for, or why it is not."""
    if not _SHAPE.fullmatch(token):
        return "TOKEN_INVALID"
    whole = urlsafe_b64decode(token + "=")
    said, mac = whole[:-_MAC_BYTES], whole[-_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, said)):
        return "TOKEN_INVALID"
    incarnation, generation, expires = (
        int.from_bytes(said[at : at + 8], "big") for at in (0, 8, 16)
    )
    if expires * 1_000_000 <= now:
        return "TOKEN_EXPIRED"
    return Scope(incarnation, generation)


def _mac(secret: bytes, said: bytes) -> bytes:
    return hmac.digest(derived(secret, "callback tokens"), said, "sha256")
