"""Many feeds with many selectors beside many writers, on a real file: each gets its own, once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import trio

from exo_stream import Client, Platform, connect, open_platform
from exo_stream.keys import MatchKey
from exo_stream.limits import Limits
from exo_stream.matchers import matcher_of
from exo_stream.model import Batch, Entry
from exo_stream.selectors import (
    ExactValue,
    StoreSelector,
    ValueFilter,
    ValuePrefix,
    ValueRegex,
)
from exo_stream.storage.verify import verify
from tests.wire import serving

pytestmark = pytest.mark.slow

Heard = list[tuple[int, tuple[Entry, ...]]]
WRITERS, BATCHES, FEEDS = 4, 40, 24


def some_selector(chance: Random) -> StoreSelector:
    regexes = ["(?s-u).*", "a", "^.", "[0-9]$", r"(?-u)^\x05"]
    bits = chance.sample([0, 3, 4, 8, 12, 16], chance.randint(1, 3))
    values: Sequence[tuple[ValueFilter, ...]] = [
        (),
        (ValueRegex("x+"),),
        (ExactValue(b"x"), ValuePrefix(b"y")),
    ]
    return StoreSelector(
        tuple([MatchKey(b, chance.randrange(1 << b), chance.choice(regexes)) for b in bits]),
        chance.choice(values),
    )


class Follower:
    """Follows with one selector for ever, and remembers what it heard."""

    def __init__(self, selector: StoreSelector) -> None:
        self.selector = selector
        self.heard: Heard = []
        self._heard_more = trio.Event()

    async def run(self, handle: Platform | Client, *, task_status: trio.TaskStatus[None]) -> None:
        async with handle.subscribe(
            match=self.selector.match_keys, values=self.selector.value_filters or None
        ) as feed:
            task_status.started()
            async for batch in feed:
                assert isinstance(batch, Batch)
                self.heard.append((batch.sequence, batch.entries))
                self._heard_more.set()

    async def wait_heard(self, count: int) -> None:
        while len(self.heard) < count:
            self._heard_more = trio.Event()
            await self._heard_more.wait()


async def write(handle: Platform | Client, chance: Random) -> None:
    for _ in range(BATCHES):
        keys = [bytes(chance.choices(b"\x00\x05\x50\x5a\xff a0b9", k=4)) for _ in range(20)]
        values = [b"x", b"xx", b"y1", b"z"]
        await handle.write(
            puts=[(key[: chance.randint(0, 4)], chance.choice(values)) for key in keys],
            deletes=keys[:2],
        )


@pytest.mark.parametrize("match_steps_max", [8_000_000, 20_000])
async def test_each_feed_gets_what_matches_and_nothing_twice(
    tmp_path: Path, match_steps_max: int
) -> None:
    chance = Random(match_steps_max)
    selectors = [some_selector(chance) for _ in range(FEEDS // 2)] * 2  # each is shared
    followers = [Follower(selector) for selector in selectors]
    path = tmp_path / "x.duckdb"
    with trio.fail_after(120):
        async with (
            open_platform(path, limits=Limits(match_steps_max=match_steps_max)) as platform,
            serving(platform) as (_, _, number),
            connect(f"ws://127.0.0.1:{number}/v1/ws") as client,
        ):
            async with trio.open_nursery() as feeds:
                for at, follower in enumerate(followers):
                    await feeds.start(follower.run, client if at % 2 else platform)
                async with trio.open_nursery() as writers:
                    for seed in range(WRITERS):
                        handle = client if seed % 2 else platform
                        writers.start_soon(write, handle, Random(seed))
                log = [await platform.get_batch(n) for n in range(1, WRITERS * BATCHES + 1)]
                expected = [expected_of(selector, log) for selector in selectors]
                for follower, wanted in zip(followers, expected, strict=True):
                    await follower.wait_heard(len(wanted))
                feeds.cancel_scope.cancel()
    assert [follower.heard for follower in followers] == expected
    assert sum(map(len, expected)) > FEEDS, "nobody was told of anything"
    assert verify(path).sound


def expected_of(selector: StoreSelector, log: Sequence[Batch | None]) -> Heard:
    matcher = matcher_of(selector)
    found: Heard = []
    for batch in log:
        assert batch is not None
        entries = tuple([entry for entry in batch.entries if matcher.takes(entry)])
        if entries:
            found.append((batch.sequence, entries))
    return found
