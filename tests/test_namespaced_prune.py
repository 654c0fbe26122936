"""Prunes within a namespace delete its own keys, or are refused: never those of a neighbour."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from exo_stream.errors import InvalidRequestError
from exo_stream.keys import KeyCodec, MatchKey
from exo_stream.namespaces import NamespaceNestingError
from exo_stream.policies.policy import (
    DropAll,
    KeepLatest,
    KeysScope,
    OrderBy,
    OrderEncoding,
    Policy,
    SequenceScope,
)
from tests.worlds import in_memory

REGEX = r"(?s-u)^(?P<name>[a-z]+)/(?P<version>.{8})$"
"""Anchored: a payload that is shifted by a byte has no match, or a wrong version."""


def newest(reserved_bits: int = 0, prefix: int = 0) -> Policy:
    match_key = MatchKey(reserved_bits, prefix, REGEX)
    order_by = OrderBy("version", OrderEncoding.U64_BE)
    return Policy(KeysScope(match_key, ("name",), order_by), KeepLatest(1))


def version(number: int) -> bytes:
    return b"a/" + number.to_bytes(8, "big")


@pytest.mark.parametrize("part", [b"mine/", KeyCodec(4, 5), KeyCodec(8, 7)], ids=repr)
async def test_a_prune_stays_within_its_namespace(
    part: bytes | KeyCodec, autojump_clock: MockClock
) -> None:
    neighbour = b"other/" if isinstance(part, bytes) else KeyCodec(part.reserved_bits, 6)
    async with in_memory()() as platform:
        mine, other = platform.namespace(part), platform.namespace(neighbour)
        for space in (mine, other):
            await space.put_batch([(version(number), b"") for number in (1, 256, 3)])
        result = await mine.prune([newest()])
        assert result.total.deleted == 2
        assert await mine.range_scan() == [(version(256), b"")]
        assert len(await other.range_scan()) == 3


async def test_a_packed_family_within_a_packed_namespace_reads_its_own_payload(
    autojump_clock: MockClock,
) -> None:
    family = KeyCodec(5, 0b10011)
    async with in_memory()() as platform:
        mine = platform.namespace(KeyCodec(4, 5))
        await mine.put_batch([(family.encode(version(number)), b"") for number in (1, 256, 3)])
        result = await mine.prune([newest(5, 0b10011)])
        assert result.total.deleted == 2
        assert await mine.range_scan() == [(family.encode(version(256)), b"")]


@pytest.mark.parametrize(
    "policy",
    [
        newest(4, 6),
        newest(13, 0),
        Policy(SequenceScope(), DropAll()),
        Policy(KeysScope(MatchKey(0, 0, "."), prefix=b"x"), DropAll()),
        "drop_all",
    ],
    ids=["lossy", "too many bits", "the log", "bytes within bits", "no policy"],
)
async def test_a_prune_that_would_lose_bits_is_refused(
    policy: object, autojump_clock: MockClock
) -> None:
    """Trap 4: in 4.1 outer 4/5 round inner 4/6 pruned by payloads with a zero byte too many."""
    async with in_memory()() as platform:
        mine = platform.namespace(KeyCodec(4, 5))
        await mine.put_batch([(KeyCodec(4, 6).encode(version(1)), b"")])
        with pytest.raises(InvalidRequestError) as caught:
            await mine.prune([policy])  # type: ignore[list-item]  # what is refused
        is_nesting = isinstance(policy, Policy) and isinstance(policy.scope, KeysScope)
        assert isinstance(caught.value, NamespaceNestingError) == is_nesting
        with pytest.raises(InvalidRequestError):
            await mine.prune(policy)  # type: ignore[arg-type]  # what is refused
        assert await platform.current_sequence() == 1


async def test_a_prune_within_bytes_within_bits_is_refused(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform:
        mine = platform.namespace(KeyCodec(4, 5)).namespace(b"inner/")
        with pytest.raises(NamespaceNestingError):
            await mine.prune([newest()])
