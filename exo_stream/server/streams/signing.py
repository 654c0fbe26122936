"""Signing: whoever receives a webhook can tell, by a published key, that it is this file's."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exo_stream.streams.subscriptions.tokens import derived

PURPOSE: Final = "webhook signatures"
_SECOND: Final = 1_000_000


class Signing:
    """The key pair of a file, made from its secret: the same after every opening."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(derived(secret, PURPOSE))
        self._x = _base64url(self._key.public_key().public_bytes_raw())
        # RFC 7638: the members that are required, in their order, without blanks.
        members = f'{{"crv":"Ed25519","kty":"OKP","x":"{self._x}"}}'
        self.kid = f"ds_{_base64url(sha256(members.encode()).digest())}"

    def jwks(self) -> dict[str, object]:
        """The public key as a JWK set (RFC 7517, RFC 8037)."""
        key = {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": self._x,
            "kid": self.kid,
            "alg": "EdDSA",
            "use": "sig",
        }
        return {"keys": [key]}

    def header(self, body: bytes, now: int) -> str:
        """The Webhook-Signature of a body that is sent ``now``, in microseconds."""
        seconds = now // _SECOND
        signature = self._key.sign(b"%d.%b" % (seconds, body))
        return f"t={seconds},kid={self.kid},ed25519={_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
