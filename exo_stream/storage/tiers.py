"""Tiers: how old a block is decides how large it may be and how much its Bloom filter is worth."""

from __future__ import annotations

from typing import Final

from exo_stream.limits import KIB, MIB

SUB_BLOCK_SIZE: Final = 64 * KIB
"""Bytes of keys and values in a sub-block, at every tier: one small read per missed key."""

_HOUR: Final = 3_600 * 1_000_000
_DAY: Final = 24 * _HOUR

_BLOCK_SIZES: Final = (64 * MIB, 128 * MIB, 256 * MIB, 512 * MIB, 1024 * MIB, 2048 * MIB)
_BLOOM_BITS: Final = (14, 10, 10, 10)
_AGES: Final = (4 * _HOUR, 12 * _HOUR, 36 * _HOUR, 4 * _DAY, 30 * _DAY)
"""Where each tier ends; a block of exactly this age belongs to the next."""


def target_block_size(tier: int) -> int:
    """Bytes of keys and values after which a run goes on in another block."""
    return _BLOCK_SIZES[min(tier, len(_BLOCK_SIZES) - 1)]


def bloom_bits_per_key(tier: int) -> int:
    """Bits of the Bloom filter per key; 0 means that blocks of this tier have none."""
    return _BLOOM_BITS[tier] if tier < len(_BLOOM_BITS) else 0


def compute_tier(created_at: int, now: int) -> int:
    """The tier of a block whose newest data are of ``created_at``; both in microseconds."""
    age = now - created_at
    return sum(age >= end for end in _AGES)
