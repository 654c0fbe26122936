"""A family of versioned keys, and policies for it, for tests of pruning."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from exo_stream import Platform
from exo_stream.keys import KeyCodec, MatchKey
from exo_stream.limits import Limits
from exo_stream.model import Entry
from exo_stream.policies.policy import (
    DropAll,
    KeysScope,
    OrderBy,
    OrderEncoding,
    Policy,
    Retain,
    SequenceScope,
)
from exo_stream.storage.verify import verify
from tests.worlds import OpenPlatform, in_memory, on_file

FAMILY = KeyCodec(4, 5)
OTHER = KeyCodec(4, 6)
VERSIONED = r"(?s-u)^(?P<logical>(?:\x00\xFF|[^\x00])*)\x00\x00(?P<version>.{8})$"
BY_VERSION = OrderBy("version", OrderEncoding.U64_BE)
SMALL = Limits(memtable_entries_max=64, slice_rows_max=32)
"""Most rows are in blocks."""


def small_platforms() -> Any:
    """The fixture ``opened``: a way to open a platform in memory; and on a file, sound after."""

    @pytest.fixture(params=["memory", pytest.param("file", marks=pytest.mark.slow)])
    async def opened(
        request: pytest.FixtureRequest, tmp_path: Path, autojump_clock: MockClock
    ) -> AsyncIterator[OpenPlatform]:
        path = tmp_path / "feed.duckdb"
        if request.param == "memory":
            yield in_memory()
            return
        open_file = on_file(path)

        def open_(**options: Any) -> Any:
            return open_file(**{"limits": SMALL, **options})

        yield open_
        assert verify(path).sound

    return opened


def key(logical: bytes, version: int, codec: KeyCodec = FAMILY) -> bytes:
    return codec.encode(logical + b"\0\0" + version.to_bytes(8, "big"))


def keys_policy(retain: Retain, *group_by: str, regex: str = VERSIONED) -> Policy:
    order_by = None if isinstance(retain, DropAll) else BY_VERSION
    return Policy(KeysScope(MatchKey(4, 5, regex), group_by, order_by), retain)


def log_policy(retain: Retain) -> Policy:
    return Policy(SequenceScope(), retain)


async def put_versions(platform: Platform, logical: bytes, versions: Iterable[int]) -> int:
    return await platform.put_batch([(key(logical, n), b"v%d" % n) for n in versions])


async def keys_of(platform: Platform) -> list[bytes]:
    async with platform.scan() as rows:
        return [key async for key, _ in rows]


async def all_in(sequences: Iterable[int], platform: Platform) -> list[Entry]:
    batches = [await platform.get_batch(sequence) for sequence in sequences]
    return [entry for batch in batches if batch is not None for entry in batch.entries]
