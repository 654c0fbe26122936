"""Where a subscription begins: every start, resolved once, and every one that cannot be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from exo_stream import Platform
from exo_stream.errors import (
    BatchEvictedError,
    CursorAheadError,
    ExoStreamError,
    InvalidRequestError,
    LogMismatchError,
    OutcomeUnknownError,
)
from exo_stream.model import SEQUENCE_MAX, Cursor
from exo_stream.testing import MORNING, FakeClock
from tests.worlds import FaultyEngine, batches_until, in_memory, put_one_by_one


def moment(seconds: float) -> datetime:
    """So many seconds after the fake clock's first moment."""
    return datetime.fromtimestamp(MORNING / 1_000_000 + seconds, UTC)


async def ten_batches(platform: Platform, clock: FakeClock) -> None:
    """Batches 1 to 10, a second apart; the first three are evicted."""
    for number in range(10):
        await platform.put_batch([(b"k%d" % number, b"")])
        clock.advance(1)
    await platform.prune_batch_log(4)


@pytest.mark.parametrize(
    ("start", "first"),
    [
        pytest.param({}, 4, id="none given means the oldest"),
        pytest.param({"start": "oldest"}, 4, id="the oldest"),
        pytest.param({"start": "now"}, 11, id="now"),
        pytest.param({"from_sequence": 4}, 4, id="from the oldest retained"),
        pytest.param({"from_sequence": 7}, 7, id="from the middle"),
        pytest.param({"from_sequence": 11}, 11, id="from the next to come"),
        pytest.param({"last": 0}, 11, id="the last none"),
        pytest.param({"last": 2}, 9, id="the last two"),
        pytest.param({"last": 100}, 4, id="the last hundred, of which seven are there"),
        pytest.param({"since_time": moment(-5)}, 4, id="since before the first"),
        pytest.param({"since_time": moment(1)}, 4, id="since one that was evicted"),
        pytest.param({"since_time": moment(6)}, 7, id="since the time of one"),
        pytest.param({"since_time": moment(6.5)}, 8, id="since between two"),
        pytest.param({"since_time": moment(999)}, 11, id="since the future"),
    ],
)
async def test_a_start_is_resolved_once_and_told_before_any_data(start: Any, first: int) -> None:
    clock = FakeClock()
    async with in_memory()(clock=clock) as platform:
        await ten_batches(platform, clock)
        async with platform.subscribe(**start) as feed:
            assert feed.cursor == Cursor(platform.log_id, first - 1)
            await put_one_by_one(platform, [b"new"])
            batches = await batches_until(feed, 11)
            assert [batch.sequence for batch in batches] == list(range(first, 12))


@pytest.mark.parametrize(("after", "first"), [(3, 4), (6, 7), (10, 11)])
async def test_a_cursor_is_resumed_from_as_a_value_or_as_text(after: int, first: int) -> None:
    clock = FakeClock()
    async with in_memory()(clock=clock) as platform:
        await ten_batches(platform, clock)
        await put_one_by_one(platform, [b"new"])
        cursor = Cursor(platform.log_id, after)
        for written in (cursor, str(cursor)):
            async with platform.subscribe(after=written) as feed:
                batches = await batches_until(feed, 11)
                assert [batch.sequence for batch in batches] == list(range(first, 12))


@pytest.mark.parametrize(
    ("sequence", "error", "told"),
    [
        pytest.param(2, BatchEvictedError, {"oldest_retained": 4}, id="evicted"),
        pytest.param(0, BatchEvictedError, {"oldest_retained": 4}, id="the very beginning"),
        pytest.param(11, CursorAheadError, {"frontier": 10}, id="one ahead"),
        pytest.param(SEQUENCE_MAX, CursorAheadError, {"frontier": 10}, id="far ahead"),
    ],
)
async def test_a_cursor_that_cannot_be_resumed_from_says_why(
    sequence: int, error: type[ExoStreamError], told: dict[str, int]
) -> None:
    clock = FakeClock()
    async with in_memory()(clock=clock) as platform:
        await ten_batches(platform, clock)
        with pytest.raises(error) as refused:
            async with platform.subscribe(after=Cursor(platform.log_id, sequence)):
                pass
        assert {name: getattr(refused.value, name) for name in told} == told


async def test_a_cursor_of_another_log_is_never_mistaken_for_one_of_this() -> None:
    async with in_memory()() as platform:
        with pytest.raises(LogMismatchError) as refused:
            async with platform.subscribe(after=Cursor("f" * 32, 0)):
                pass
        assert refused.value.log_id == platform.log_id


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ({"from_sequence": 0}, "the first sequence number is 1"),
        ({"from_sequence": SEQUENCE_MAX + 2}, "first sequence number"),
        ({"from_sequence": "7"}, "is no int"),
        ({"from_sequence": True}, "is no int"),
        ({"last": 1.5}, "is no int"),
        ({"start": "newest"}, "'oldest' or 'now'"),
        ({"after": "yesterday"}, "not a cursor"),
        ({"after": 7}, "is no Cursor"),
        ({"since_time": 1_700_000_000}, "is no datetime"),
        ({"since_time": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001  on purpose
        ({"start": "now", "last": 3}, "one start at a time, not start and last"),
        ({"snapshot": True, "from_sequence": 3}, "one start at a time"),
        ({"prefix": "k"}, "keys are bytes"),
        ({"prefix": b"k" * 255}, "key_bytes_max"),
    ],
)
async def test_a_start_that_cannot_be_is_refused_in_one_sentence(start: Any, sentence: str) -> None:
    async with in_memory()() as platform:
        with pytest.raises(InvalidRequestError, match=sentence):
            async with platform.subscribe(**start):
                pass


async def test_a_prune_in_the_instant_of_subscribing_evicts_no_relative_start() -> None:
    clock = FakeClock()
    for start in ({}, {"last": 100}, {"since_time": moment(0)}):
        async with in_memory()(clock=clock) as platform:
            await put_one_by_one(platform, [b"%d" % number for number in range(9)])
            for steps in range(8):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(platform.prune_batch_log, steps + 2)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    async with platform.subscribe(**start):
                        pass


async def test_a_time_is_not_resolved_to_what_no_commit_has_made_durable() -> None:
    """Its number is given again, and whoever started behind it would miss what gets it."""
    engine = FaultyEngine()
    async with in_memory(engine)(clock=FakeClock()) as platform:
        engine.full = True
        engine.faults.append("full, kept")
        with pytest.raises(OutcomeUnknownError):
            await platform.put_batch([(b"a", b"")])
        async with platform.subscribe(since_time=moment(100)) as feed:
            assert feed.cursor == Cursor(platform.log_id, 0)
