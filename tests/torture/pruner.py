"""A child that writes versions of some groups, prunes the old ones, and says what it was told.

``python -m tests.torture.pruner PATH`` goes on until it is killed. A batch is all groups at one
version, or the deletions of one prune; meanwhile a meddler writes old versions anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import structlog
import trio

from exo_stream import prune as execution
from exo_stream.keys import MatchKey
from exo_stream.model import Entry
from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.policies.policy import KeepLatest, KeysScope, OrderBy, OrderEncoding, Policy
from exo_stream.policies.retention import LogRetention
from tests.torture import workload
from tests.torture.child import say

GROUPS: Final = 40
KEPT_VERSIONS: Final = 3
KEPT_BATCHES: Final = 64
BATCH_KEYS: Final = 50
"""Deletions of one batch: a prune is several."""

NEWEST: Final = Policy(
    KeysScope(
        MatchKey(0, 0, "(?s-u)^(?P<group>group/[0-9]{3})/(?P<version>.{8})$"),
        ("group",),
        OrderBy("version", OrderEncoding.U64_BE),
    ),
    KeepLatest(KEPT_VERSIONS),
)
RULES: Final = LogRetention(KeepLatest(KEPT_BATCHES))


def key(group: int, version: int) -> bytes:
    return b"group/%03d/" % group + version.to_bytes(8, "big")


def version_of(entry: Entry) -> int:
    return int.from_bytes(entry.key[-8:], "big")


def check_whole(entries: Sequence[Entry]) -> None:
    """A batch is one of those that were written, entire."""
    if not entries:
        return  # the rules
    if entries[0].value is None:
        assert all(entry.value is None for entry in entries)
        assert len({entry.key for entry in entries}) == len(entries) <= BATCH_KEYS
    elif entries[0].value == b"anew":
        assert len(entries) == 3, entries
    else:
        [version] = {version_of(entry) for entry in entries}
        assert entries == tuple(
            Entry(0, key(group, version), b"%d" % version) for group in range(GROUPS)
        )


def newest_of(keys: Sequence[bytes]) -> int:
    return max((int.from_bytes(one[-8:], "big") for one in keys), default=0)


async def main(path: str) -> None:
    """Write and prune until killed."""
    say("started", os.getpid())
    execution.BATCH_KEYS_MAX = BATCH_KEYS  # type: ignore[misc]  # so that a prune is several
    async with open_platform(path, limits=workload.LIMITS) as platform:
        await platform.set_retention(RULES)
        say("opened", await platform.current_sequence())
        async with platform.scan() as rows:
            newest = newest_of([found async for found, _ in rows])
        async with trio.open_nursery() as nursery:
            versions = iter(range(newest + 1, sys.maxsize))
            nursery.start_soon(_write, platform, versions)
            nursery.start_soon(_prune, platform)


async def _write(platform: Platform, versions: Iterator[int]) -> None:
    for version in versions:
        puts = [(key(group, version), b"%d" % version) for group in range(GROUPS)]
        say("ack", await platform.put_batch(puts))
        if version % 3 == 0 and version > 5:
            puts = [(key(version % GROUPS, version - back), b"anew") for back in (3, 4, 5)]
            say("anew", await platform.put_batch(puts), version % GROUPS, version - 3)


async def _prune(platform: Platform) -> None:
    while True:
        say("pruning")
        result = await platform.prune([NEWEST])
        say("pruned", result.total.deleted, result.total.spared, *result.sequences)
        await trio.sleep(0.001)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, sys.argv[1])
