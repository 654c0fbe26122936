"""The key of a backup, and what it encrypts: ChaCha20-Poly1305 in chunks, each file by itself.

The chunks are numbered, and the last one is marked, so that none can be left out, moved or put in
from another file. The scheme is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, 2015), as age has it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from exo_stream.errors import InvalidRequestError
from exo_stream.limits import KIB

ENCRYPTION: Final = "chacha20-poly1305"
CHUNK_BYTES: Final = 64 * KIB
_TAG_BYTES: Final = 16
_KEY_BYTES: Final = 32
_PREFIX: Final = "exo-backup-key-"


class SealError(ValueError):
    """These bytes were not written with this key, or not all of them are there."""


@dataclass(frozen=True, slots=True)
class BackupKey:
    """A secret key of 256 bits; who has it can read, and forge, the backups made with it."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if type(self.secret) is not bytes or len(self.secret) != _KEY_BYTES:
            raise InvalidRequestError(f"the key of a backup has {_KEY_BYTES} bytes")

    @classmethod
    def generate(cls) -> Self:
        """A new one."""
        return cls(secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that ``text`` was made from; white space around it does not count."""
        word = text.strip()
        digits = word.removeprefix(_PREFIX)
        try:
            if digits != word and len(digits) == 2 * _KEY_BYTES:
                return cls(bytes.fromhex(digits))
        except ValueError:
            pass
        # The text itself is not told: it may be a secret after all.
        raise InvalidRequestError(f"this is no key of a backup: it begins with {_PREFIX}") from None

    @property
    def text(self) -> str:
        """How it is written to a file."""
        return _PREFIX + self.secret.hex()

    @property
    def id(self) -> str:
        """What names it in a manifest and gives nothing of it away."""
        return hashlib.sha256(b"exo-stream backup key id" + self.secret).hexdigest()[:16]

    def authentication(self, salt: bytes, manifest: bytes) -> str:
        """What proves that the owner of the key wrote a manifest."""
        return hmac.new(self._derived(salt, "manifest"), manifest, hashlib.sha256).hexdigest()

    def seal(self, salt: bytes, name: str) -> Seal:
        """What encrypts one new file."""
        return Seal(self._derived(salt, f"file {name}"))

    def unseal(self, salt: bytes, name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """What ``seal`` has encrypted. Raises SealError at what was not."""
        cipher = ChaCha20Poly1305(self._derived(salt, f"file {name}"))
        number, held = 0, bytearray()
        for piece in pieces:
            held += piece
            while len(held) > CHUNK_BYTES + _TAG_BYTES:  # more comes, so that this is not the last
                chunk = bytes(held[: CHUNK_BYTES + _TAG_BYTES])
                del held[: CHUNK_BYTES + _TAG_BYTES]
                yield _opened(cipher, number, chunk, is_last=False)
                number += 1
        yield _opened(cipher, number, bytes(held), is_last=True)

    def _derived(self, salt: bytes, purpose: str) -> bytes:
        info = f"exo-stream backup 1 {purpose}".encode()
        return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=salt, info=info).derive(self.secret)


class Seal:
    """Encrypts one file, a piece at a time."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._number = 0
        self._held = bytearray()

    def update(self, data: bytes) -> bytes:
        """What may be written now."""
        self._held += data
        written = []
        while len(self._held) > CHUNK_BYTES:
            chunk = bytes(self._held[:CHUNK_BYTES])
            del self._held[:CHUNK_BYTES]
            written.append(self._cipher.encrypt(_nonce(self._number, is_last=False), chunk, None))
            self._number += 1
        return b"".join(written)

    def finish(self) -> bytes:
        """The rest."""
        nonce = _nonce(self._number, is_last=True)
        return self._cipher.encrypt(nonce, bytes(self._held), None)


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _opened(cipher: ChaCha20Poly1305, number: int, chunk: bytes, *, is_last: bool) -> bytes:
    try:
        return cipher.decrypt(_nonce(number, is_last=is_last), chunk, None)
    except InvalidTag:
        raise SealError("a chunk is not as it was encrypted") from None
