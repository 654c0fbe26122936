"""Selectors of strangers, over real sockets: refused in a sentence, and nobody else waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trio

from exo_stream import Platform, connect, open_platform
from exo_stream.keys import MatchKey
from exo_stream.limits import KIB, Limits
from exo_stream.matchers import matcher_of
from exo_stream.matching import TURN_STEPS
from exo_stream.model import Entry, Keyspace
from exo_stream.protocol import messages as m
from exo_stream.selectors import ExactValue, StoreSelector, ValueRegex
from exo_stream.starts import FromSnapshot, Now, Oldest
from exo_stream.storage.verify import verify
from tests.wire import Wire, connected, serving

SLOW_REGEX = "(?-u)[ab]*a[ab]{400}c"
"""It has more states than RE2 has memory for, so that each byte costs it 400 instructions."""


def either(size: int) -> bytes:
    """Letters of which no state of an automaton comes twice."""
    return bytes(Random(size).choices(b"ab", k=size))


@asynccontextmanager
async def conversing(limits: Limits | None = None) -> AsyncIterator[tuple[Platform, Wire]]:
    with trio.fail_after(60):  # a guard against hanging, never a measure
        async with open_platform(":memory:", limits=limits) as platform:
            async with serving(platform) as (_, _, number), connected(number) as wire:
                await wire.greet()
                yield platform, wire
            assert len(platform.sources.interest) == 0
            assert len(platform.sources.matching) == 0


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        pytest.param(StoreSelector((MatchKey(17, 0, "a"),)), "match_keys[0]: ", id="17 bits"),
        pytest.param(StoreSelector((MatchKey(2**64 - 1, 5, "a"),)), "0 to 16", id="many bits"),
        pytest.param(StoreSelector((MatchKey(3, 8, "a"),)), "fits into them", id="a large prefix"),
        pytest.param(StoreSelector((MatchKey(0, 0, ""),)), "payload_regex: ", id="no regex"),
        pytest.param(StoreSelector((MatchKey(0, 0, "(?=a)"),)), "look-around", id="look-around"),
        pytest.param(
            StoreSelector(value_filters=(ExactValue(b""), ValueRegex(r"\w{999}"))),
            "value_filters[1].regex: the regex is too large",
            id="a large one",
        ),
        pytest.param(
            StoreSelector((MatchKey(0, 0, "(" * 4_096),)), "more than 64", id="a deep one"
        ),
    ],
)
async def test_what_breaks_a_rule_is_answered_and_the_connection_goes_on(
    selector: StoreSelector, told: str
) -> None:
    async with conversing() as (platform, wire):
        await wire.say(m.Subscribe(1, Oldest(), selector))
        failure = await wire.expect(m.Failure)
        assert (failure.id, failure.code, failure.retryable) == (1, "invalid_request", False)
        assert told in failure.message
        await wire.say(m.Subscribe(2, Now(), StoreSelector((MatchKey(0, 0, "^k"),))))
        await wire.expect(m.Subscribed)
        await wire.expect(m.CaughtUp)
        await platform.put_batch([(b"j", b""), (b"k", b"")])
        batches = await wire.expect(m.Batches)
        assert [entry.key for batch in batches.batches for entry in batch.entries] == [b"k"]


async def test_a_regex_too_many_is_overloaded_until_another_is_let_go() -> None:
    async with conversing(Limits(regexes_max=1)) as (_, wire):
        await wire.say(m.Subscribe(1, Now(), StoreSelector((MatchKey(0, 0, "a"),))))
        await wire.expect(m.Subscribed)
        await wire.expect(m.CaughtUp)
        other = StoreSelector((MatchKey(0, 0, "b"),))
        await wire.say(m.Subscribe(2, Now(), other))
        failure = await wire.expect(m.Failure)
        assert (failure.id, failure.code, failure.retryable) == (2, "overloaded", True)
        await wire.say(m.Unsubscribe(1))
        await wire.expect(m.Unsubscribed)
        await wire.say(m.Subscribe(3, Now(), other))
        await wire.expect(m.Subscribed)


async def test_a_snapshot_in_which_nothing_matches_shows_signs_of_life_and_ends() -> None:
    limits = Limits(page_rows_max=1, progress_seconds=0)
    async with conversing(limits) as (platform, wire):
        await platform.put_batch([(b"%d" % number, b"") for number in range(5)])
        await wire.say(m.Subscribe(1, FromSnapshot(), StoreSelector((MatchKey(0, 0, "x"),))))
        await wire.expect(m.Subscribed)
        await wire.expect(m.SnapshotBegin)
        assert (await wire.expect(m.Heartbeat)).frontier == 1
        while not isinstance(message := await wire.next_message(), m.SnapshotEnd):
            assert isinstance(message, m.Heartbeat)


@pytest.mark.slow
async def test_a_heavy_regex_over_a_large_value_holds_up_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    heavy_found = trio.Event()
    large = either(256 * KIB)
    matcher = matcher_of(StoreSelector(value_filters=(ValueRegex(SLOW_REGEX),)))
    assert matcher.steps([Entry(Keyspace.STORE, b"large", large)]) > TURN_STEPS
    with trio.fail_after(120):
        async with open_platform(path) as platform, serving(platform) as (_, _, number):
            url = f"ws://127.0.0.1:{number}/v1/ws"
            async with connect(url) as hostile, connect(url) as client, trio.open_nursery() as n:

                async def follow_heavily(task_status: trio.TaskStatus[None]) -> None:
                    async with hostile.subscribe(
                        start="now", values=[ValueRegex(SLOW_REGEX), ExactValue(b"end")]
                    ) as feed:
                        task_status.started()
                        assert (await anext(feed)).entries[0].key == b"end"
                        heavy_found.set()

                await n.start(follow_heavily)
                async with client.subscribe(match=[MatchKey(0, 0, "^k")], start="now") as feed:
                    await client.put_batch([(b"large", large)])
                    for count in range(10):
                        sequence = await client.put_batch([(b"k", b"%d" % count)])
                        assert (await anext(feed)).sequence == sequence
                        assert await client.get(b"k") == b"%d" % count
                await client.put_batch([(b"end", b"end")])
                await heavy_found.wait()
    assert verify(path).sound
