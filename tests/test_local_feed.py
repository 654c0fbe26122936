"""The feed in process: what is finished, where it may be used, and that others get their turn."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from exo_stream.errors import InvalidRequestError
from exo_stream.feed import CaughtUp, SnapshotEnd, SnapshotPage
from exo_stream.model import Batch, Cursor, Entry, Keyspace
from exo_stream.producers import Producer
from tests.worlds import batches_until, in_memory, put_one_by_one


async def test_a_batch_is_finished_when_the_next_is_asked_for() -> None:
    async with in_memory()() as platform, platform.subscribe() as feed:
        await put_one_by_one(platform, [b"a", b"b"])
        log_id = platform.log_id
        assert feed.cursor == Cursor(log_id, 0)
        first = await anext(feed)
        assert feed.cursor == Cursor(log_id, 0), "whoever dies now sees it again"
        await anext(feed)
        assert isinstance(first, Batch)
        assert feed.cursor == first.cursor
        with trio.move_on_after(0):
            await anext(feed)
        assert feed.cursor == Cursor(log_id, 2), "asked for is asked for, cancelled or not"


async def test_a_loop_that_is_left_and_begun_again_goes_on_where_it_was() -> None:
    async with in_memory()() as platform, platform.subscribe() as feed:
        await put_one_by_one(platform, [b"a", b"b", b"c"])
        async for message in feed:
            assert message.sequence == 1
            break
        assert [batch.sequence for batch in await batches_until(feed, 3)] == [2, 3]


async def test_entries_come_with_deletions_and_without_the_bookkeeping() -> None:
    async with in_memory()() as platform, platform.subscribe(prefix=b"a") as feed:
        await platform.write(
            puts=[(b"a1", b"1"), (b"b", b"x"), (b"a1", b"2")],
            deletes=[b"a2"],
            producer=Producer(b"a", 0, 0),
        )
        [batch] = await batches_until(feed, 1)
        store = Keyspace.STORE
        assert batch.entries == (
            Entry(store, b"a1", b"1"),
            Entry(store, b"a1", b"2"),
            Entry(store, b"a2", None),
        )
        assert batch.committed_at > 0
        assert batch.log_id == platform.log_id


async def test_iterating_gives_pages_and_batches_and_messages_everything() -> None:
    async with in_memory()() as platform:
        await put_one_by_one(platform, [b"a"])
        async with platform.subscribe(snapshot=True) as feed:
            await put_one_by_one(platform, [b"b"])
            assert [type(await anext(feed)) for _ in range(2)] == [SnapshotPage, Batch]
        async with platform.subscribe() as feed:
            kinds: list[type] = []
            async for message in feed.messages():
                kinds.append(type(message))
                if isinstance(message, CaughtUp):
                    break
            assert kinds == [Batch, Batch, CaughtUp]
            assert feed.messages().__aiter__() is not None


async def test_the_log_behind_a_snapshot_stays_until_its_reader_has_caught_up() -> None:
    async with in_memory()() as platform:
        await put_one_by_one(platform, [b"a"])
        async with platform.subscribe(snapshot=True) as feed:
            await put_one_by_one(platform, [b"b", b"c"])
            messages = aiter(feed.messages())
            while not isinstance(await anext(messages), SnapshotEnd):
                pass
            await platform.prune_batch_log(4)
            assert await platform.oldest_retained_batch() == 2
            found = [await anext(messages) for _ in range(3)]
            assert [type(message) for message in found] == [Batch, Batch, CaughtUp]
            assert platform.sources.snapshots.floors() == []
            await platform.prune_batch_log(4)
            assert await platform.oldest_retained_batch() is None
        async with platform.subscribe(snapshot=True) as feed:
            messages = aiter(feed.messages())
            while not isinstance(await anext(messages), SnapshotEnd):
                pass
            assert platform.sources.snapshots.floors() == [4]
        assert platform.sources.snapshots.floors() == []


async def test_outside_its_block_a_feed_gives_nothing() -> None:
    """It would begin at 0 whatever its start, or go on behind a snapshot that was not read."""
    async with in_memory()() as platform:
        await put_one_by_one(platform, [b"a", b"b"])
        feed = platform.subscribe(start="now")
        assert feed.cursor is None
        with pytest.raises(AssertionError, match="inside its async with block"):
            await anext(feed)
        async with platform.subscribe(snapshot=True) as feed:
            pass
        with pytest.raises(AssertionError, match="inside its async with block"):
            await anext(feed)


async def test_a_refused_start_leaves_nothing_behind() -> None:
    async with in_memory()() as platform:
        with pytest.raises(InvalidRequestError):
            platform.subscribe(start="now", last=1)
        for _ in range(3):
            async with platform.subscribe(snapshot=True) as feed:
                await anext(aiter(feed.messages()))
        assert platform.sources.snapshots.floors() == []
        assert len(platform.sources.interest) == 0


async def test_leaving_the_block_while_asleep_leaves_nothing_behind() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:

        async def follow() -> None:
            async with platform.subscribe() as feed:
                await anext(feed)

        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        assert (await platform.info()).subscribers == 1
        nursery.cancel_scope.cancel()
    assert len(platform.sources.interest) == 0


async def test_a_long_page_lets_others_run(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        async with trio.open_nursery() as writers:
            for number in range(500):
                writers.start_soon(platform.put_batch, [(b"k", b"%d" % number)])
        steps = 0

        async def count() -> None:
            nonlocal steps
            while True:
                await trio.lowlevel.checkpoint()
                steps += 1

        async with platform.subscribe() as feed:
            await anext(feed)
            nursery.start_soon(count)
            before = steps
            await batches_until(feed, 500)
            assert steps - before > 3, "every 64 batches"
        nursery.cancel_scope.cancel()


async def test_every_step_notices_a_cancellation() -> None:
    async with in_memory()() as platform, platform.subscribe() as feed:
        await put_one_by_one(platform, [b"a"] * 5)
        await anext(feed)
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(feed)
        assert scope.cancelled_caught
        assert [batch.sequence for batch in await batches_until(feed, 5)] == [2, 3, 4, 5]
        with assert_checkpoints():
            await feed.next_message()
