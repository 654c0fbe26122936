"""Subscriptions: every start, every message, and never a gap or a duplicate."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from exo_stream.errors import (
    BatchEvictedError,
    PlatformClosedError,
    SnapshotExpiredError,
)
from exo_stream.feed import (
    CaughtUp,
    FeedMessage,
    FellBehind,
    Heartbeat,
    Progress,
    SnapshotBegin,
    SnapshotEnd,
    SnapshotPage,
)
from exo_stream.limits import Limits
from exo_stream.model import Batch, Cursor
from exo_stream.selectors import Selector
from exo_stream.starts import Now, Oldest
from exo_stream.storage.engine import Group
from exo_stream.storage.memory_engine import MemoryEngine
from exo_stream.subscription import Delivered, Subscription
from exo_stream.testing import FaultyHop
from tests.worlds import batches_until, in_memory, messages_until, put_one_by_one


def shape(messages: list[FeedMessage]) -> list[str]:
    return [type(message).__name__ for message in messages]


# --- snapshots ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "pages_expected"), [(Limits(page_rows_max=2), 2), (Limits(page_bytes_max=1), 4)]
)
async def test_a_snapshot_is_the_table_then_every_batch_after_it(
    limits: Limits, pages_expected: int
) -> None:
    async with in_memory()(limits=limits) as platform:
        await put_one_by_one(platform, [b"a/%d" % number for number in range(5)])
        await platform.write(puts=[(b"b", b"other"), (b"a/0", b"again")], deletes=[b"a/1"])
        async with platform.subscribe(prefix=b"a/", snapshot=True) as feed:
            messages = await messages_until(feed, SnapshotEnd)
            assert shape(messages) == [
                "SnapshotBegin",
                *["SnapshotPage"] * pages_expected,
                "SnapshotEnd",
            ]
            assert messages[0] == SnapshotBegin(6)
            assert messages[-1] == SnapshotEnd(Cursor(platform.log_id, 6))
            pages = [message for message in messages if isinstance(message, SnapshotPage)]
            rows = [(entry.key, entry.value) for page in pages for entry in page.entries]
            assert rows == [
                (b"a/0", b"again"),
                (b"a/2", b"value of a/2"),
                (b"a/3", b"value of a/3"),
                (b"a/4", b"value of a/4"),
            ]
            await put_one_by_one(platform, [b"a/9"])
            assert [batch.sequence for batch in await batches_until(feed, 7)] == [7]


async def test_an_empty_table_has_an_empty_snapshot() -> None:
    async with in_memory()() as platform, platform.subscribe(snapshot=True) as feed:
        assert await messages_until(feed, CaughtUp) == [
            SnapshotBegin(0),
            SnapshotEnd(Cursor(platform.log_id, 0)),
            CaughtUp(Cursor(platform.log_id, 0)),
        ]


async def test_writes_beside_a_snapshot_are_neither_missing_nor_twice() -> None:
    """Fold what was delivered: it must be the table, with each batch applied once, in order."""
    limits = Limits(page_rows_max=3)
    async with in_memory()(limits=limits) as platform, trio.open_nursery() as nursery:
        keys = [b"%03d" % number for number in range(40)]
        await put_one_by_one(platform, keys)

        async def write() -> None:
            for number in range(100):
                key = keys[number * 7 % 40]
                await platform.write(puts=[(key, b"new %d" % number)], deletes=[keys[number % 40]])

        for delay in range(6):
            nursery.start_soon(write)
            for _ in range(delay):
                await trio.lowlevel.checkpoint()
            async with platform.subscribe(snapshot=True) as feed:
                table: dict[bytes, bytes | None] = {}
                newest = 0
                async for message in feed:
                    table.update((entry.key, entry.value) for entry in message.entries)
                    if isinstance(message, Batch):
                        assert message.sequence == newest + 1
                    newest = message.sequence
                    if newest >= 140 + 100 * delay:
                        break
            version = await platform.range_scan()
            if await platform.current_sequence() == newest:
                assert sorted((k, v) for k, v in table.items() if v is not None) == version


async def test_a_reader_killed_in_the_middle_of_a_snapshot_has_no_cursor_to_lose_rows_by() -> None:
    async with in_memory()(limits=Limits(page_rows_max=1)) as platform:
        await put_one_by_one(platform, [b"a", b"b", b"c"])
        async with platform.subscribe(snapshot=True) as feed:
            assert feed.cursor is None
            assert [entry.key for entry in (await anext(feed)).entries] == [b"a"]
            assert [entry.key for entry in (await anext(feed)).entries] == [b"b"]
            assert feed.cursor is None
        # So it begins again, and that is announced.
        async with platform.subscribe(snapshot=True) as feed:
            messages = await messages_until(feed, SnapshotEnd)
            assert shape(messages) == ["SnapshotBegin", *["SnapshotPage"] * 3, "SnapshotEnd"]
            assert feed.cursor is None, "the end is handed out, not finished"
            assert await feed.next_message() == CaughtUp(Cursor(platform.log_id, 3))
            assert feed.cursor == Cursor(platform.log_id, 3)


async def test_a_saved_cursor_wins_over_a_snapshot() -> None:
    async with in_memory()() as platform:
        await put_one_by_one(platform, [b"a", b"b"])
        async with platform.subscribe(snapshot=True, after=Cursor(platform.log_id, 1)) as feed:
            assert shape(await messages_until(feed, CaughtUp)) == ["Batch", "CaughtUp"]


async def test_a_snapshot_holds_the_log_until_it_is_let_go(autojump_clock: MockClock) -> None:
    async with in_memory()(limits=Limits(page_rows_max=1)) as platform:
        await put_one_by_one(platform, [b"a", b"b", b"c"])
        async with platform.subscribe(snapshot=True) as feed:
            await anext(feed)
            await put_one_by_one(platform, [b"d", b"e"])
            assert await platform.prune_batch_log(6) == 3, "what follows the snapshot is held"
            assert await platform.oldest_retained_batch() == 4
            assert [batch.sequence for batch in await batches_until(feed, 5)] == [4, 5]
        await trio.sleep(3)
        assert await platform.oldest_retained_batch() is None, "evicted when it was let go"
        await put_one_by_one(platform, [b"f", b"g"])
        await trio.sleep(3)
        assert await platform.oldest_retained_batch() == 6, "and nothing more than was asked"


async def test_snapshots_that_overlap_do_not_hold_the_log_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform:
        await put_one_by_one(platform, [b"a", b"b", b"c"])
        scan = platform.scan()
        async with scan:
            await put_one_by_one(platform, [b"d", b"e"])
            await platform.prune_batch_log(6)
            for number in range(5):
                following = platform.scan()
                await following.__aenter__()
                await scan.__aexit__(None, None, None)
                scan = following
                await put_one_by_one(platform, [b"%d" % number])
                await trio.sleep(2)
            assert await platform.oldest_retained_batch() == 6


async def test_a_snapshot_read_too_slowly_expires_and_nothing_is_skipped(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(page_rows_max=1, snapshot_seconds_max=10)
    async with in_memory()(limits=limits) as platform:
        await put_one_by_one(platform, [b"a", b"b"])
        async with platform.subscribe(snapshot=True) as feed:
            await anext(feed)
            await trio.sleep(12)
            for _ in range(2):
                with pytest.raises(SnapshotExpiredError):
                    await anext(feed)
            assert feed.cursor is None


async def test_only_so_many_snapshots_are_held(autojump_clock: MockClock) -> None:
    limits = Limits(snapshots_max=1)
    async with in_memory()(limits=limits) as platform:
        async with platform.subscribe(snapshot=True):
            with pytest.raises(SnapshotExpiredError, match="try again"):
                async with platform.subscribe(snapshot=True):
                    pass
        async with platform.subscribe(snapshot=True):
            pass


# --- following ----------------------------------------------------------------------------------


async def test_caught_up_is_told_once_and_then_only_batches() -> None:
    async with in_memory()() as platform:
        await put_one_by_one(platform, [b"a"])
        async with platform.subscribe() as feed:
            assert shape(await messages_until(feed, CaughtUp)) == ["Batch", "CaughtUp"]
            for number in (2, 3, 4):
                await put_one_by_one(platform, [b"a"])
                message = await feed.next_message()
                assert isinstance(message, Batch)
                assert message.sequence == number


@pytest.mark.parametrize(
    "limits",
    [Limits(tail_batches_max=2, page_rows_max=3), Limits(tail_bytes_max=1, page_rows_max=3)],
    ids=["batches", "bytes"],
)
async def test_who_falls_out_of_the_tail_is_told_how_far_and_misses_nothing(
    limits: Limits,
) -> None:
    async with in_memory()(limits=limits) as platform, platform.subscribe() as feed:
        assert await feed.next_message() == CaughtUp(Cursor(platform.log_id, 0))
        await put_one_by_one(platform, [b"%d" % number for number in range(7)])
        messages = await messages_until(feed, CaughtUp)
        assert messages[0] == FellBehind(Cursor(platform.log_id, 0), 7)
        assert shape(messages[1:]) == ["Batch"] * 7 + ["CaughtUp"]
        assert [m.sequence for m in messages if isinstance(m, Batch)] == list(range(1, 8))


async def test_nothing_matched_is_told_by_progress_and_silence_by_heartbeats(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(progress_seconds=5, heartbeat_seconds=15)
    async with in_memory()(limits=limits) as platform:
        async with platform.subscribe(prefix=b"mine/") as feed:
            assert isinstance(await feed.next_message(), CaughtUp)
            began = trio.current_time()
            assert await feed.next_message() == Heartbeat(0)
            assert trio.current_time() - began == pytest.approx(15)
            await put_one_by_one(platform, [b"other", b"other"])
            began = trio.current_time()
            assert await feed.next_message() == Progress(Cursor(platform.log_id, 2))
            assert trio.current_time() - began <= 5
            await feed.next_message()
            assert feed.cursor == Cursor(platform.log_id, 2), "nobody reads the same again"


async def test_a_long_replay_of_nothing_tells_how_far_it_is(autojump_clock: MockClock) -> None:
    limits = Limits(page_rows_max=1, tail_batches_max=1, progress_seconds=5)
    hop = FaultyHop()
    async with in_memory()(limits=limits, hop=hop) as platform:
        await put_one_by_one(platform, [b"other"] * 20)
        hop.latency = 2
        async with platform.subscribe(prefix=b"mine/") as feed:
            messages = await messages_until(feed, CaughtUp)
        told = [message.cursor.sequence for message in messages if isinstance(message, Progress)]
        assert told == sorted(set(told))
        assert 3 <= len(told) <= 10


async def test_progress_never_passes_what_was_not_delivered(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:

        async def write() -> None:
            for number in range(200):
                key = b"mine/" if number % 50 == 7 else b"other/"
                await platform.put_batch([(key, b"%d" % number)])
                await trio.sleep(0.3)

        nursery.start_soon(write)
        seen: list[int] = []
        async with platform.subscribe(prefix=b"mine/") as feed:
            position = 0
            while position < 200:
                message = await feed.next_message()
                if isinstance(message, Batch):
                    assert message.sequence > position
                    seen.append(message.sequence)
                if isinstance(message, Batch | Progress):
                    assert message.cursor.sequence >= position
                    position = message.cursor.sequence
        assert seen == [8, 58, 108, 158]


async def test_a_filtered_position_jumps_over_what_did_not_match(
    autojump_clock: MockClock,
) -> None:
    """So a prune of what it did not want does not evict it."""
    async with in_memory()() as platform, platform.subscribe(prefix=b"mine/") as feed:
        assert isinstance(await feed.next_message(), CaughtUp)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put_one_by_one, platform, [b"other"] * 10)
            nursery.start_soon(feed.next_message)
        await platform.prune_batch_log(8)
        await put_one_by_one(platform, [b"mine/1"])
        assert [batch.sequence for batch in await batches_until(feed, 11)] == [11]


async def test_evicted_before_it_was_awake_it_is_told_what_is_oldest() -> None:
    engine = MemoryEngine()
    async with in_memory(engine)() as platform, platform.subscribe() as feed:
        assert isinstance(await feed.next_message(), CaughtUp)
        frontier = platform.sources.frontier
        advance = frontier.advance

        def advance_and_evict(to: int) -> None:
            advance(to)
            engine.install(Group((), floor=to + 1))

        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                with pytest.raises(BatchEvictedError) as evicted:
                    await feed.next_message()
                assert evicted.value.oldest_retained == 2

            nursery.start_soon(follow)
            await wait_all_tasks_blocked()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(frontier, "advance", advance_and_evict)
                await put_one_by_one(platform, [b"k"])


async def test_a_cancelled_pull_has_moved_nothing(autojump_clock: MockClock) -> None:
    rng = random.Random(7)
    limits = Limits(page_rows_max=2, tail_batches_max=3)
    seen: list[int] = []
    async with in_memory()(limits=limits) as platform, platform.subscribe() as feed:
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                for number in range(100):
                    await platform.put_batch([(b"k", b"%d" % number)])
                    if number % 9 == 0:
                        await trio.sleep(1)

            async def cancel_soon(scope: trio.CancelScope) -> None:
                for _ in range(rng.randrange(12)):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(write)
            while len(seen) < 100:
                async with trio.open_nursery() as child:
                    child.start_soon(cancel_soon, child.cancel_scope)
                    seen.append((await anext(feed)).sequence)
                    child.cancel_scope.cancel()
                if child.cancel_scope.cancelled_caught:
                    await trio.sleep(0.1)
    assert seen == list(range(1, 101))


@pytest.mark.parametrize(
    ("limits", "pulls"),
    [
        pytest.param(Limits(), [7], id="no bound is reached"),
        pytest.param(Limits(page_rows_max=3), [3, 3, 1], id="batches"),
        pytest.param(Limits(page_bytes_max=1), [1] * 7, id="bytes"),
    ],
)
@pytest.mark.parametrize("tail_batches_max", [1, 100])
async def test_a_pull_takes_no_more_than_a_page(
    limits: Limits, pulls: list[int], tail_batches_max: int
) -> None:
    """Of the log as of the tail: what one subscriber takes, the others wait for."""
    limits = replace(limits, tail_batches_max=tail_batches_max)
    async with in_memory()(limits=limits) as platform:
        await put_one_by_one(platform, [b"k"] * 7)
        subscription = Subscription(platform.sources, Selector())
        await subscription.start(Oldest())
        taken: list[int] = []
        while isinstance(pulled := await subscription.pull(), Delivered):
            taken.append(len(pulled.batches))
        subscription.close()
    # The last batch of a log is in the tail, and is taken from there.
    assert taken == pulls or (tail_batches_max == 1 and taken == [*pulls[:-1], pulls[-1] - 1, 1])


async def test_what_is_ready_is_pulled_without_sleeping(autojump_clock: MockClock) -> None:
    """Subscriptions that share a connection take turns; one that slept in its turn would stop
    the others, though they have something to tell.
    """
    async with in_memory()() as platform:
        await put_one_by_one(platform, [b"mine/", b"other"])
        subscription = Subscription(platform.sources, Selector(b"mine/"))
        await subscription.start(Oldest())
        began = trio.current_time()
        assert isinstance(await subscription.pull_ready(), Delivered)
        assert isinstance(await subscription.pull_ready(), CaughtUp)
        await put_one_by_one(platform, [b"other"])
        with assert_checkpoints():
            assert await subscription.pull_ready() is None
        assert subscription.following
        assert trio.current_time() == began


async def test_a_platform_that_has_stopped_tells_its_sleepers() -> None:
    told: list[str] = []
    async with trio.open_nursery() as outside:
        async with in_memory()() as platform:

            async def follow() -> None:
                async with platform.subscribe() as feed:
                    with pytest.raises(PlatformClosedError):
                        async for batch in feed:
                            told.append(f"batch {batch.sequence}")
                told.append("closed")

            outside.start_soon(follow)
            await wait_all_tasks_blocked()
            await put_one_by_one(platform, [b"k"])
    assert told == ["batch 1", "closed"]


async def test_a_heartbeat_that_was_reported_is_not_due_again(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform:
        subscription = Subscription(platform.sources, Selector(), heartbeat_seconds=7)
        await subscription.start(Now())
        assert isinstance(await subscription.pull(), CaughtUp)
        assert subscription.patience_seconds == 5
        await trio.sleep(5)
        assert subscription.report() is None
        assert subscription.patience_seconds == 2
        await trio.sleep(2)
        assert subscription.report() == Heartbeat(0)
        assert subscription.report() is None
        assert subscription.patience_seconds == 5
