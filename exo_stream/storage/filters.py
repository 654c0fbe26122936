"""Bloom filters: which blocks cannot hold a key."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log

from rbloom import Bloom
from xxhash import xxh3_128_intdigest


def _digest(key: bytes) -> int:
    # rbloom takes signed 128-bit hashes. Python's own hash() differs between processes.
    return xxh3_128_intdigest(key) - (1 << 127)


class Filter:
    """Row keys of one block: never denies one it was given, seldom admits another."""

    __slots__ = ("_bloom",)

    def __init__(self, bloom: Bloom) -> None:
        self._bloom = bloom

    @classmethod
    def sized(cls, keys: int, bits_per_key: int) -> Filter:
        """An empty filter with so many bits for each of about ``keys`` keys."""
        false_positives = exp(-bits_per_key * log(2) ** 2)
        return cls(Bloom(max(keys, 1), false_positives, _digest))

    @classmethod
    def loads(cls, data: bytes) -> Filter:
        """The filter that ``dumps`` wrote."""
        return cls(Bloom.load_bytes(data, _digest))

    def dumps(self) -> bytes:
        """The bytes to keep in the file."""
        return self._bloom.save_bytes()

    def add(self, keys: Iterable[bytes]) -> None:
        """Take in these row keys."""
        self._bloom.update(keys)

    def __contains__(self, key: bytes) -> bool:
        return key in self._bloom
