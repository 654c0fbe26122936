"""What the log keeps: the rules stored in the file, on every append, at open, and broken ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from exo_stream import Platform, Retention, open_platform
from exo_stream.decision import Verdict, View, Write
from exo_stream.errors import (
    BatchEvictedError,
    InvalidRequestError,
    OverloadedError,
    StoreError,
    UnsupportedError,
)
from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace
from exo_stream.payload import encode_entries
from exo_stream.policies.policy import (
    DropAll,
    GreaterThan,
    GreaterThanOrEqual,
    InvalidPolicyError,
    KeepLatest,
)
from exo_stream.policies.retention import NO_RULES, LogRetention, RetentionState
from exo_stream.policies.rules import RETENTION_KEY
from exo_stream.storage.rewrite import compact
from exo_stream.storage.verify import verify
from exo_stream.testing import FakeClock, in_place
from tests.families import SMALL, keys_of, keys_policy, put_versions
from tests.nine_methods import NineMethods
from tests.worlds import FaultyEngine, OpenPlatform, in_memory, on_file

BATCH_BYTES = len(encode_entries([Entry(0, b"k", b"v" * 100)]))


@pytest.fixture(params=["memory", pytest.param("file", marks=pytest.mark.slow)])
async def opened(
    request: pytest.FixtureRequest, tmp_path: Path, autojump_clock: MockClock
) -> AsyncIterator[OpenPlatform]:
    if request.param == "memory":
        yield in_memory()
        return
    path = tmp_path / "feed.duckdb"
    open_file = on_file(path)

    def open_(**options: Any) -> Any:
        return open_file(**{"limits": SMALL, **options})

    yield open_
    assert verify(path).sound


async def put(platform: Platform, times: int = 1) -> int:
    return [await platform.put_batch([(b"k", b"v" * 100)]) for _ in range(times)][-1]


async def test_retention_tracks_the_frontier_over_two_later_puts(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await put(platform, 5)
        state = await platform.set_retention(LogRetention(KeepLatest(3)))
        rules = LogRetention(KeepLatest(3))
        # The batch that holds the rule is one of the three.
        assert state == RetentionState(rules, rules, "stored", None, 4)
        for oldest in (5, 6):
            await put(platform)
            assert await platform.oldest_retained_batch() == oldest
        with pytest.raises(BatchEvictedError):
            await platform.get_batch(5)


async def test_greater_than_and_or_equal_set_floors(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await put(platform, 6)
        state = await platform.set_retention(LogRetention(GreaterThanOrEqual(3)))
        assert state.oldest_retained == 3
        state = await platform.set_retention(LogRetention(GreaterThan(3)))
        assert state.oldest_retained == 4


async def test_a_threshold_that_is_not_reached_yet_evicts_until_it_is(
    opened: OpenPlatform,
) -> None:
    async with opened() as platform:
        await platform.set_retention(LogRetention(GreaterThanOrEqual(4)))
        assert await put(platform, 2) == 3
        assert await platform.oldest_retained_batch() is None
        assert await put(platform) == 4
        assert await platform.oldest_retained_batch() == 4


async def test_drop_all_keeps_the_log_empty_while_the_sequence_advances_and_over_a_restart(
    opened: OpenPlatform,
) -> None:
    async with opened() as platform:
        await platform.set_retention(LogRetention(DropAll()))
        last = await put(platform, 3)
        assert await platform.oldest_retained_batch() is None
        assert await platform.get(b"k") == b"v" * 100
    async with opened() as platform:
        assert await platform.oldest_retained_batch() is None
        assert await put(platform) == last + 1
        assert await platform.oldest_retained_batch() is None


async def test_clearing_stops_trimming_and_brings_nothing_back(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await put(platform, 5)
        await platform.set_retention(LogRetention(KeepLatest(2)))
        state = await platform.set_retention(None)
        assert (state.stored, state.in_force, state.oldest_retained) == (NO_RULES, NO_RULES, 5)
        await put(platform, 4)
        assert await platform.oldest_retained_batch() == 5
    async with opened() as platform:
        assert await platform.oldest_retained_batch() == 5
        await put(platform)
        assert (await platform.retention()).oldest_retained == 5


async def test_a_key_prune_and_retention_compose_and_survive_a_restart(
    opened: OpenPlatform,
) -> None:
    async with opened() as platform:
        for version in range(8):
            await put_versions(platform, b"a", [version])
        await platform.set_retention(LogRetention(KeepLatest(3)))
        await platform.prune([keys_policy(KeepLatest(2), "logical")])
        left = await keys_of(platform)
        assert len(left) == 2
        assert await platform.oldest_retained_batch() == 8
    async with opened() as platform:
        assert await keys_of(platform) == left
        assert (await platform.retention()).stored == LogRetention(KeepLatest(3))
        await put(platform)
        assert await platform.oldest_retained_batch() == 9


# The batch that holds the rules, the eleventh, is one of the log's too, and the largest of some.
@pytest.mark.parametrize(
    ("rules", "oldest"),
    [
        pytest.param(LogRetention(), 1, id="no rule"),
        pytest.param(LogRetention(KeepLatest(4)), 8, id="four batches"),
        pytest.param(LogRetention(seconds_max=3), 7, id="three seconds"),
        pytest.param(LogRetention(bytes_max=3 * BATCH_BYTES), 9, id="the bytes of three"),
        pytest.param(
            LogRetention(KeepLatest(4), 3, 3 * BATCH_BYTES), 10, id="all, bytes the least"
        ),
        pytest.param(LogRetention(KeepLatest(1), 3, 3 * BATCH_BYTES), 11, id="all, one batch"),
        pytest.param(LogRetention(GreaterThan(99)), None, id="a threshold not reached yet"),
    ],
)
async def test_the_log_keeps_what_every_rule_keeps(
    opened: OpenPlatform, rules: LogRetention, oldest: int | None
) -> None:
    clock = FakeClock()
    async with opened(clock=clock) as platform:
        for _ in range(10):
            clock.advance(1)
            await put(platform)
        assert (await platform.set_retention(rules)).oldest_retained == oldest


@pytest.mark.slow
async def test_age_and_bytes_are_looked_at_once_a_second(opened: OpenPlatform) -> None:
    clock = FakeClock()
    async with opened(clock=clock) as platform:
        await put(platform, 3)
        await platform.set_retention(LogRetention(seconds_max=60))
        clock.advance(61)
        await put(platform)
        assert await platform.oldest_retained_batch() == 1
        await trio.sleep(2)
        assert await platform.oldest_retained_batch() == 5
        await platform.set_retention(LogRetention(bytes_max=2 * BATCH_BYTES))
        await put(platform, 9)
        await trio.sleep(2)
        assert await platform.oldest_retained_batch() == 14


async def test_age_is_looked_at_when_the_file_is_opened(opened: OpenPlatform) -> None:
    clock = FakeClock()
    async with opened(clock=clock) as platform:
        await platform.set_retention(LogRetention(seconds_max=60))
        await put(platform, 3)
    clock.advance(61)
    async with opened(clock=clock) as platform:
        assert await platform.oldest_retained_batch() is None


async def test_what_the_platform_is_opened_with_goes_before_what_is_stored(
    opened: OpenPlatform,
) -> None:
    async with opened() as platform:
        await platform.set_retention(LogRetention(KeepLatest(2)))
    async with opened(retention=Retention(batches_max=6)) as platform:
        await put(platform, 9)
        state = await platform.retention()
        assert state.source == "option"
        assert (state.stored, state.in_force) == (
            LogRetention(KeepLatest(2)),
            LogRetention(KeepLatest(6)),
        )
        assert state.oldest_retained == 5
        # Stored for later, and not applied now.
        assert (await platform.set_retention(LogRetention(KeepLatest(3)))).oldest_retained == 6
    async with opened() as platform:
        assert await platform.oldest_retained_batch() == 9


@pytest.mark.parametrize(
    "rule", [{"batches_max": 0}, {"seconds_max": 0}, {"bytes_max": 0}], ids=str
)
async def test_an_option_that_keeps_nothing_keeps_nothing(
    autojump_clock: MockClock, rule: dict[str, int]
) -> None:
    async with in_memory()(retention=Retention(**rule)) as platform:
        await put(platform, 3)
        assert await platform.oldest_retained_batch() is None
        assert (await platform.retention()).in_force == LogRetention(DropAll())


async def test_the_same_rules_again_write_nothing(opened: OpenPlatform) -> None:
    async with opened() as platform:
        for _ in range(3):
            await platform.set_retention(LogRetention(KeepLatest(2), 60, 1000))
        assert await platform.current_sequence() == 1
        for _ in range(3):
            await platform.set_retention(LogRetention())
        assert await platform.current_sequence() == 2


async def test_the_batch_of_a_rule_is_there_and_nobody_sees_into_it(opened: OpenPlatform) -> None:
    async with opened() as platform, platform.subscribe() as feed:
        await platform.set_retention(LogRetention(seconds_max=60))
        batch = await platform.get_batch(1)
        assert batch is not None
        assert batch.entries == ()
        await put(platform)
        assert (await anext(feed)).sequence == 2
        assert await platform.range_scan() == [(b"k", b"v" * 100)]


async def test_the_floor_moves_in_the_transaction_of_its_batches_and_without_a_query(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FaultyEngine()
    async with in_memory(engine)() as platform:
        await platform.set_retention(LogRetention(KeepLatest(2)))
        floors: list[int | None] = []
        commit = engine.commit

        def watched(group: Any) -> Any:
            floors.append(group.floor)
            return commit(group)

        def asked(*_: object) -> int:
            raise AssertionError

        monkeypatch.setattr(engine, "commit", watched)
        monkeypatch.setattr(platform.sources.reads, "cutoff", asked)
        monkeypatch.setattr(platform.sources.reads, "rows", asked)
        await put(platform, 4)
        assert floors == [None, 2, 3, 4]
        await trio.sleep(3)


async def test_a_write_that_failed_moves_no_floor(autojump_clock: MockClock) -> None:
    engine = FaultyEngine()
    async with in_memory(engine)() as platform:
        await put(platform, 3)
        engine.faults.append("refused")
        with pytest.raises(StoreError):
            await platform.set_retention(LogRetention(KeepLatest(1)))
        assert await platform.oldest_retained_batch() == 1
        assert (await platform.retention()).in_force == NO_RULES
        engine.faults.append("full, kept")
        assert (await platform.set_retention(LogRetention(KeepLatest(1)))).oldest_retained == 4


@pytest.mark.slow
async def test_retention_waits_for_a_snapshot_and_then_catches_up(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await platform.set_retention(LogRetention(KeepLatest(2)))
        await put(platform, 3)
        async with platform.scan() as rows:
            await put(platform, 5)
            assert await platform.oldest_retained_batch() == 5
            assert [key async for key, _ in rows] == [b"k"]
        await trio.sleep(2)
        assert await platform.oldest_retained_batch() == 8


async def test_rules_that_cannot_be_applied_at_once_are_stored_and_applied_later(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_memory()() as platform:
        await put(platform, 5)
        with monkeypatch.context() as patched:

            async def too_slow(*_: object) -> int:
                await trio.lowlevel.checkpoint()
                raise OverloadedError("too slow")

            patched.setattr(platform.sources.reads, "cutoff", too_slow)
            state = await platform.set_retention(LogRetention(bytes_max=2 * BATCH_BYTES))
            assert state.oldest_retained == 1
        await trio.sleep(2)
        assert await platform.oldest_retained_batch() == 5


@pytest.mark.parametrize(
    ("retention", "error"),
    [
        (LogRetention(KeepLatest(0)), InvalidPolicyError),
        (LogRetention(seconds_max=0), InvalidPolicyError),
        (LogRetention(bytes_max=-1), InvalidPolicyError),
        ("keep_latest", InvalidRequestError),
        (Retention(5), InvalidRequestError),
    ],
    ids=str,
)
async def test_rules_that_make_no_sense_are_refused(
    autojump_clock: MockClock, retention: Any, error: type[Exception]
) -> None:
    async with in_memory()() as platform:
        with pytest.raises(error):
            await platform.set_retention(retention)
        assert await platform.current_sequence() == 0


async def store_raw(platform: Platform, value: bytes) -> None:
    def decide(view: View, _now: int) -> Verdict[int]:
        return Write((Entry(int(Keyspace.STORE_RULE), RETENTION_KEY, value),), view.sequence)

    await platform.decide(decide)


@pytest.mark.slow
@pytest.mark.parametrize("folded", [False, True], ids=["in the log", "in a block"])
async def test_an_invalid_stored_rule_keeps_no_file_from_opening(
    tmp_path: Path, autojump_clock: MockClock, folded: bool
) -> None:
    """As of a newer version, say: it is told, and evicts nothing."""
    path = tmp_path / "feed.duckdb"
    limits = Limits(memtable_entries_max=8 if folded else 1000)
    async with on_file(path)(limits=limits) as platform:
        await store_raw(platform, b'{"version":2,"retention":{}}')
        await put(platform, 20)
        await trio.sleep(3)
    report = verify(path)
    assert report.sound
    [note] = [note for note in report.notes if "cannot be read" in note]
    assert "the retention stored by batch 1 cannot be read (version: version 2 is unknown)" in note
    async with on_file(path)(limits=limits) as platform:
        state = await platform.retention()
        assert state.problem == "version: version 2 is unknown"
        assert (await platform.info()).retention_problem == state.problem
        assert (state.in_force, state.oldest_retained) == (NO_RULES, 1)
        await put(platform)
        await platform.set_retention(LogRetention(KeepLatest(2)))
        state = await platform.retention()
        assert (state.problem, state.oldest_retained) == (None, 22)
    assert not [note for note in verify(path).notes if "cannot be read" in note]


@pytest.mark.slow
async def test_a_compacted_copy_keeps_the_rules(tmp_path: Path, autojump_clock: MockClock) -> None:
    path, copy = tmp_path / "feed.duckdb", tmp_path / "copy.duckdb"
    async with on_file(path)() as platform:
        await put(platform, 5)
        await platform.set_retention(LogRetention(KeepLatest(3), 3600))
    assert compact(path, copy).report.sound
    async with on_file(copy)() as platform:
        state = await platform.retention()
        assert (state.stored, state.oldest_retained) == (LogRetention(KeepLatest(3), 3600), 4)
        await put(platform)
        assert await platform.oldest_retained_batch() == 5


async def test_a_backend_with_nine_methods_stores_no_rules(autojump_clock: MockClock) -> None:
    option = Retention(batches_max=2)
    store = NineMethods()
    async with open_platform(
        engine=store, retention=option, hop=in_place, clock=FakeClock()
    ) as platform:
        with pytest.raises(UnsupportedError):
            await platform.set_retention(LogRetention(KeepLatest(1)))
        state = await platform.retention()
        assert (state.source, state.in_force) == ("option", LogRetention(KeepLatest(2)))
        assert state.stored == NO_RULES
