"""Namespaces of keys: how the keys of one part of a program become keys of the store, and back.

A namespace begins every key with bytes, or packs a few bits before it as a ``KeyCodec`` does.
Namespaces stand within one another as long as no bit of a key is lost: two packed ones only if
one codec of as many bits makes the very same keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from exo_stream.errors import InvalidRequestError
from exo_stream.keys import RESERVED_BITS_MAX, KeyCodec, MatchKey, PayloadTooLargeError, next_key
from exo_stream.limits import STORE_KEY_BYTES_MAX

_UNPACKED: Final = KeyCodec(0, 0)

KeyRange = tuple[bytes, bytes]
"""Keys of the store from the first to the second, both inclusive."""


class NamespaceNestingError(InvalidRequestError):
    """These two cannot stand within one another: bits of keys would be lost, or are too many.

    It is raised in the process that has the namespace: no server answers it.
    """

    code = "namespace_nesting"


@dataclass(frozen=True, slots=True)
class Namespace:
    """Keys that begin with ``outer``, then the codec's bits, then ``inner`` packed behind them.

    ``within`` is how one is made; codecs of whole bytes are bytes here.
    """

    outer: bytes = b""
    codec: KeyCodec = _UNPACKED
    inner: bytes = b""

    def within(self, part: bytes | KeyCodec) -> Namespace:
        """The namespace ``part`` in this one.

        Raises NamespaceNestingError if bits would be lost, PayloadTooLargeError if there is no
        room left for any key.
        """
        if isinstance(part, KeyCodec) and part.reserved_bits % 8 == 0:
            part = bytes(part.new_key())
        if isinstance(part, KeyCodec):
            nested = self._packed_within(part)
        elif type(part) is not bytes:
            raise InvalidRequestError("a namespace is bytes or a KeyCodec")
        elif self.codec.reserved_bits:
            nested = replace(self, inner=self.inner + part)
        else:
            nested = replace(self, outer=self.outer + part)
        if nested.capacity < 0:
            raise PayloadTooLargeError(nested.bits - self.bits + 7 >> 3, self.capacity)
        return nested

    def _packed_within(self, codec: KeyCodec) -> Namespace:
        if not self.codec.reserved_bits:
            return replace(self, codec=codec)
        if self.inner:
            raise NamespaceNestingError("a packed prefix cannot stand within packed bytes")
        return replace(self, codec=combined(self.codec, codec))

    @property
    def capacity(self) -> int:
        """The longest key of the namespace, in bytes."""
        room = 8 * (STORE_KEY_BYTES_MAX - len(self.outer)) - self.codec.reserved_bits
        return (room >> 3) - len(self.inner)

    @property
    def bits(self) -> int:
        """How many bits stand before a key of the namespace."""
        return 8 * (len(self.outer) + len(self.inner)) + self.codec.reserved_bits

    def encode(self, key: bytes) -> bytes:
        """The store's key of a key of this one. Raises PayloadTooLargeError if it is too long."""
        if type(key) is not bytes:
            raise InvalidRequestError("keys are bytes")
        if len(key) > self.capacity:
            raise PayloadTooLargeError(len(key), self.capacity)
        return self.outer + self.codec.encode(self.inner + key)

    def decode(self, key: bytes) -> bytes | None:
        """The namespace's key of a key of the store; None if no key of the namespace becomes it."""
        if not key.startswith(self.outer):
            return None
        rest = key[len(self.outer) :]
        if not self.codec.matches(rest):
            return None
        size = self.codec.payload_capacity_bytes_for_key_len(len(rest))
        packed = self.codec.read_payload(rest, 0, size)
        # A key of the family with other than zeros in its last bits was not made here.
        if not packed.startswith(self.inner) or self.codec.encode(packed) != rest:
            return None
        return packed[len(self.inner) :]

    def key_range(self, start: bytes, end: bytes) -> KeyRange | None:
        """Where the keys from ``start`` to ``end`` are, an empty end unbounded; None if nowhere."""
        capacity = self.capacity
        low: bytes | None = self.encode(start[:capacity])
        if len(start) > capacity:  # nothing of the namespace is between it and its own beginning
            assert low is not None
            low = next_key(low)
        high = self.encode(end[:capacity] if end else b"\xff" * capacity)
        return None if low is None or low > high else (low, high)

    def selection(
        self, prefix: bytes, match: Sequence[MatchKey] | None
    ) -> tuple[bytes, Sequence[MatchKey] | None]:
        """What to ask the store for, to hear of these keys of the namespace.

        Raises NamespaceNestingError if bits of the match keys would be lost.
        """
        if not self.codec.reserved_bits:
            return self.outer + prefix, match
        codec = self.codec
        if match is None:
            begins = "".join([rf"\x{byte:02x}" for byte in self.inner + prefix])
            regex = rf"(?s-u)\A{begins}" if begins else "(?s-u).*"
            return self.outer, [MatchKey(codec.reserved_bits, codec.prefix, regex)]
        if self.inner or prefix:
            raise NamespaceNestingError("match keys cannot stand within packed bytes")
        return self.outer, [_nested(codec, match_key) for match_key in match]

    def family(self, prefix: bytes, match_key: MatchKey) -> tuple[bytes, MatchKey]:
        """The store's prefix and match key of a family of the namespace.

        Raises NamespaceNestingError if bits would be lost.
        """
        if not self.codec.reserved_bits:
            return self.outer + prefix, match_key
        if self.inner or prefix:
            raise NamespaceNestingError("a family cannot stand within packed bytes")
        return self.outer, _nested(self.codec, match_key)


def _nested(codec: KeyCodec, match_key: MatchKey) -> MatchKey:
    both = combined(codec, match_key.codec)
    return MatchKey(both.reserved_bits, both.prefix, match_key.payload_regex)


def combined(outer: KeyCodec, inner: KeyCodec) -> KeyCodec:
    """The one codec that makes the keys that ``outer`` makes of those of ``inner``.

    Raises NamespaceNestingError if there is none: their bits are more than 16, or the zeros that
    fill the last byte of both would be a byte of payload that nobody wrote.
    """
    bits = outer.reserved_bits + inner.reserved_bits
    if bits > RESERVED_BITS_MAX:
        raise NamespaceNestingError(f"{bits} reserved bits together: {RESERVED_BITS_MAX} at most")
    if -outer.reserved_bits % 8 + -inner.reserved_bits % 8 >= 8:
        raise NamespaceNestingError(
            f"{inner.reserved_bits} bits within {outer.reserved_bits}: a byte of zeros would be"
            " taken for payload"
        )
    return KeyCodec(bits, outer.prefix << inner.reserved_bits | inner.prefix)
