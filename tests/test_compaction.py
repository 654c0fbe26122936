"""The compaction actor: retention, expiry, and jobs one after the other, under a fake clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from exo_stream import Platform, Producer, Retention
from exo_stream.errors import OverloadedError, StoreError
from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace, row_key
from exo_stream.payload import encode_entries
from exo_stream.testing import FakeClock
from tests.worlds import FaultyEngine, OneJob, in_memory, put_one_by_one


async def oldest_after_ten(platform: Platform, clock: FakeClock) -> int | None:
    """Ten batches, a minute apart, and time for retention to be applied."""
    for number in range(10):
        await platform.put_batch([(b"k%d" % number, b"v" * 100)])
        clock.advance(60)
    await trio.sleep(3)
    return await platform.oldest_retained_batch()


@pytest.mark.parametrize(
    ("rule", "oldest"),
    [
        pytest.param({}, 1, id="none is the default"),
        pytest.param({"batches_max": 4}, 7, id="by number"),
        pytest.param({"batches_max": 100}, 1, id="by a number that is not reached"),
        pytest.param({"batches_max": 0}, None, id="nothing is kept"),
        pytest.param({"seconds_max": 200}, 8, id="by age"),
        pytest.param({"seconds_max": 10_000}, 1, id="by an age that is not reached"),
        pytest.param({"bytes_max": 350}, 8, id="by bytes"),
        pytest.param({"bytes_max": 50}, None, id="by fewer bytes than a batch has"),
        pytest.param({"batches_max": 5, "seconds_max": 200, "bytes_max": 999}, 8, id="by all"),
    ],
)
async def test_the_log_is_kept_as_long_as_every_rule_allows(
    rule: Any, oldest: int | None, autojump_clock: MockClock
) -> None:
    clock = FakeClock()
    async with in_memory()(clock=clock, retention=Retention(**rule)) as platform:
        assert await oldest_after_ten(platform, clock) == oldest
        assert await platform.get(b"k0") == b"v" * 100, "the table keeps what the log lets go"


async def test_retention_waits_for_a_snapshot_and_then_catches_up(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()(retention=Retention(batches_max=2)) as platform:
        await put_one_by_one(platform, [b"a", b"b", b"c"])
        async with platform.scan():
            await put_one_by_one(platform, [b"d", b"e", b"f"])
            await trio.sleep(3)
            assert await platform.oldest_retained_batch() == 4
        await trio.sleep(3)
        assert await platform.oldest_retained_batch() == 5


async def test_pruning_more_than_there_is_does_not_evict_what_is_written_later(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform:
        await put_one_by_one(platform, [b"a", b"b"])
        assert await platform.prune_batch_log((1 << 64) - 1) == 2
        await put_one_by_one(platform, [b"c", b"d"])
        await trio.sleep(10)
        assert await platform.oldest_retained_batch() == 3
        async with platform.scan():
            assert await platform.prune_batch_log((1 << 64) - 1) == 2
            await put_one_by_one(platform, [b"e"])
        await trio.sleep(10)
        assert await platform.oldest_retained_batch() == 5


async def records(platform: Platform) -> int:
    """How many entries the PRODUCER keyspace holds."""
    reads = platform.sources.reads
    found = 0
    resume: bytes | None = row_key(Keyspace.PRODUCER, b"")
    end = row_key(Keyspace.PRODUCER + 1, b"")
    while resume is not None:
        page = await reads.page(reads.engine.version, resume, end, rows_max=4, forward=True)
        found, resume = found + len(page.rows), page.resume
    return found


async def test_idle_producers_are_forgotten_and_busy_ones_are_not(
    autojump_clock: MockClock,
) -> None:
    clock = FakeClock()
    limits = Limits(producer_idle_seconds=400, page_rows_max=4)
    async with in_memory()(clock=clock, limits=limits) as platform:
        for seq in range(5):
            await platform.write(deletes=[b"k"], producer=Producer(b"idle", 0, seq))
        await platform.write(deletes=[b"k"], producer=Producer(b"busy", 0, 0))
        assert await records(platform) == 8
        async with platform.subscribe(start="now") as feed:
            for seq in range(1, 5):
                clock.advance(120)
                await platform.write(deletes=[b"k"], producer=Producer(b"busy", 0, seq))
                await trio.sleep(120)
            assert await records(platform) == 6
            for expected in (7, 8, 9, 10, 11):
                with trio.move_on_after(1):
                    batch = await anext(feed)
                    assert batch.sequence <= expected, "an expiry is nobody's batch"
        # Forgotten means that its numbers are new again.
        assert await platform.write(deletes=[b"k"], producer=Producer(b"idle", 0, 0)) > 6


async def test_expiry_that_cannot_be_written_is_tried_again(autojump_clock: MockClock) -> None:
    clock, engine = FakeClock(), FaultyEngine()
    limits = Limits(producer_idle_seconds=8)
    async with in_memory(engine)(clock=clock, limits=limits) as platform:
        await platform.write(deletes=[b"k"], producer=Producer(b"p", 0, 0))
        clock.advance(100)
        engine.faults.append("refused")
        await trio.sleep(3)
        assert await records(platform) == 2
        await trio.sleep(3)
        assert await records(platform) == 0


async def test_retention_that_cannot_be_applied_is_tried_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FaultyEngine()
    size = len(encode_entries([Entry(0, b"a", b"value of a")]))
    async with in_memory(engine)(retention=Retention(bytes_max=size)) as platform:
        await trio.sleep(1.5)
        await put_one_by_one(platform, [b"a", b"b", b"c"])
        engine.faults.append("refused")
        await trio.sleep(1)
        assert await platform.oldest_retained_batch() == 1
        reads = platform.sources.reads
        cutoff = reads.cutoff
        failures = [OverloadedError("too slow")]

        async def fail_once(retention: Retention, now: int) -> int:
            if failures:
                raise failures.pop()
            return await cutoff(retention, now)

        monkeypatch.setattr(reads, "cutoff", fail_once)
        await trio.sleep(1)
        assert await platform.oldest_retained_batch() == 1
        await trio.sleep(2)
        assert await platform.oldest_retained_batch() == 3


async def test_jobs_run_one_after_the_other_until_all_is_well(autojump_clock: MockClock) -> None:
    engine = FaultyEngine()
    done: list[int] = []
    for number in range(5):
        engine.jobs.append(
            OneJob(
                step=lambda n=number: done.append(n),  # type: ignore[misc]  # mypy infers no lambda with a default
                install=lambda n=number: done.append(-n),  # type: ignore[misc]  # mypy infers no lambda with a default
            )
        )
    async with in_memory(engine)():
        await trio.sleep(0.5)
    assert done == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]


async def test_a_failing_job_does_not_keep_the_platform_from_ending(
    autojump_clock: MockClock,
) -> None:
    engine = FaultyEngine()

    def fail() -> None:
        raise StoreError("again and again")

    engine.jobs += [OneJob(step=fail) for _ in range(100)]
    with trio.fail_after(60):
        async with in_memory(engine)() as platform:
            await put_one_by_one(platform, [b"a", b"b"])


async def test_idleness_is_told_only_when_nothing_was_written_for_a_while(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FaultyEngine()
    asked: list[tuple[float, bool]] = []

    def next_job(_now: int, *, idle: bool) -> None:
        asked.append((trio.current_time(), idle))

    monkeypatch.setattr(engine, "next_job", next_job)
    async with in_memory(engine)(limits=Limits(idle_seconds=5)) as platform:
        began = trio.current_time()
        for _ in range(4):
            await platform.put_batch([(b"k", b"v")])
            await trio.sleep(3)
        await trio.sleep(10)
        last_write = began + 9
        assert not any(idle for when, idle in asked if began + 0.5 < when < last_write + 4)
        assert any(idle for when, idle in asked if when > last_write + 5)
