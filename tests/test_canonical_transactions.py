"""Read and write transactions: what they see, what a commit did, and what they refuse.

Named AC-1 and AC-3 are the acceptance cases of those sections, as far as they are about the store
itself; X4 is the defect of the original that the test fails on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from exo_stream.canonical.changes import CommitInfo
from exo_stream.canonical.transactions import WriteTxn
from exo_stream.errors import (
    InvalidRequestError,
    InvalidStateError,
    KeyTooLargeError,
    LimitExceededError,
    SnapshotExpiredError,
    ValueTooLargeError,
)
from exo_stream.limits import MIB, Limits
from exo_stream.model import Keyspace
from exo_stream.testing import FakeClock
from tests.transactions import all_events, state, write
from tests.worlds import in_memory, on_file


async def test_ac1_open_gives_meta_and_close_is_fine() -> None:
    clock = FakeClock()
    async with in_memory()(clock=clock) as platform:
        canonical = await platform.canonical.open()
        meta = await canonical.meta()
        assert (meta.next_event_id, meta.sealed_event_id, meta.schema_version) == (0, None, 0)
        assert meta.created_at == meta.updated_at == "2023-11-14T22:13:20.000000Z"
        clock.advance(1.5)
        await write(canonical, {b"k": b"v"})
        later = await canonical.meta()
        assert later.created_at == meta.created_at
        assert later.updated_at == "2023-11-14T22:13:21.500000Z"
        assert later.sequence == 2
        await canonical.close()
        await canonical.close()
        with pytest.raises(InvalidStateError, match="closed"):
            canonical.write_txn()
        with pytest.raises(InvalidStateError, match="closed"):
            await canonical.meta()
        await canonical.open()
        await write(canonical, {b"k": b"w"})


async def test_a_store_nobody_opened_or_wrote_to_has_no_times() -> None:
    async with in_memory()() as platform:
        meta = await platform.canonical.meta()
        assert (meta.next_event_id, meta.created_at, meta.updated_at) == (0, None, None)
        assert await platform.current_sequence() == 0


async def test_ac1_two_puts_are_two_keys_written_and_readable() -> None:
    async with in_memory()() as platform:
        info = await write(platform.canonical, {b"a": b"1", b"b": b"2"})
        assert info == CommitInfo(0, None, None, 2, 0, 0, 1)
        async with platform.canonical.read_txn() as txn:
            assert await txn.get_state(b"a") == b"1"
            assert await txn.get_state(b"c") is None
            assert (await txn.exists(b"b"), await txn.exists(b"c")) == (True, False)


async def test_ac1_ids_begin_at_0_and_follow_one_another() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        async with canonical.write_txn() as txn:
            assert await txn.append_event(b"first") == 0
            assert await txn.append_events([b"second", b"third"]) == (1, 2)
            info = await txn.commit()
        assert (info.events_written, info.first_event_id, info.last_event_id) == (3, 0, 2)
        assert (await canonical.meta()).next_event_id == 3
        assert await all_events(canonical) == [(0, b"first"), (1, b"second"), (2, b"third")]
        assert [event async for event in await canonical.iter_events(1, 3)] == [
            (1, b"second"),
            (2, b"third"),
        ]


async def test_ac1_a_put_and_two_events_are_one_batch_of_the_log() -> None:
    async with in_memory()() as platform:
        info = await write(platform.canonical, {b"k": b"v"}, events=(b"x", b""))
        assert (info.state_keys_written, info.events_written) == (1, 2)
        [batch] = platform.sources.tail.since(0, batches_max=9, bytes_max=MIB) or []
        assert batch.sequence == info.sequence == 1
        assert [entry[:2] for entry in batch.entries[:3]] == [
            (Keyspace.STATE, b"k"),
            (Keyspace.EVENT, bytes(8)),
            (Keyspace.EVENT, bytes(7) + b"\x01"),
        ]


async def test_ac1_a_key_put_and_deleted_in_one_transaction_counts_once_each() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        async with canonical.write_txn() as txn:
            txn.put_state(b"k", b"v")
            txn.del_state(b"k")
            assert await txn.get_state(b"k") is None
            info = await txn.commit()
        assert (info.state_keys_written, info.state_keys_deleted) == (1, 1)
        assert await state(canonical) == {}


async def test_counts_are_of_calls_and_of_keys_that_were_there() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await write(canonical, {b"here": b"v"})
        async with canonical.write_txn() as txn:
            for value in (b"1", b"2", b"3"):
                txn.put_state(b"k", value)
            txn.del_state(b"here")
            txn.del_state(b"here")
            txn.del_state(b"never there")
            info = await txn.commit()
        assert (info.state_keys_written, info.state_keys_deleted, info.dlq_events) == (3, 1, 0)
        assert await state(canonical) == {b"k": b"3"}


async def test_ac1_an_aborted_transaction_leaves_no_key_and_gives_its_ids_back() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        async with canonical.write_txn() as txn:
            txn.put_state(b"k", b"v")
            assert await txn.append_event(b"lost") == 0
            txn.abort()
        async with canonical.write_txn() as txn:
            assert await txn.append_event(b"kept") == 0
            await txn.commit()
        assert await all_events(canonical) == [(0, b"kept")]
        assert await state(canonical) == {}


async def test_ac1_ten_transactions_give_ten_ids_in_order() -> None:
    async with in_memory()() as platform:
        ids = [(await write(platform.canonical, events=(b"e",))).first_event_id for _ in range(10)]
        assert ids == list(range(10))


async def test_ac1_a_transaction_of_nothing_commits_and_writes_nothing() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await write(canonical, {b"k": b"v"})
        assert await write(canonical) == CommitInfo(0, None, None, 0, 0, 0, 1)
        assert await write(canonical, deletes=(b"absent",)) == CommitInfo(0, None, None, 0, 0, 0, 1)
        assert await platform.current_sequence() == 1


async def test_ac1_a_write_batch_is_committed_once() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await write(canonical, {b"key3": b"old"})
        batch = canonical.batch()
        assert batch.is_empty
        for key in (b"key1", b"key2", b"key3"):
            batch.put(key, b"v")
        batch.delete(b"key3")
        batch.append_event(b"e")
        assert (len(batch), batch.is_empty) == (5, False)
        info = await batch.commit()
        counted = info.state_keys_written, info.state_keys_deleted, info.events_written
        assert counted == (3, 1, 1)
        assert await state(canonical) == {b"key1": b"v", b"key2": b"v"}
        with pytest.raises(InvalidStateError, match="batch is over"):
            await batch.commit()
        with pytest.raises(InvalidStateError, match="batch is over"):
            batch.put(b"k", b"v")
        assert (await canonical.batch().commit()).events_written == 0


async def test_ac1_submit_write_commits_what_its_function_did() -> None:
    async def fill(txn: WriteTxn) -> None:
        txn.put_state(b"k", b"v")
        await txn.append_event(b"e")

    async def fail(txn: WriteTxn) -> None:
        txn.put_state(b"k", b"lost")
        await trio.lowlevel.checkpoint()
        raise KeyError

    async with in_memory()() as platform:
        canonical = platform.canonical
        info = await canonical.submit_write(fill)
        assert (info.state_keys_written, info.first_event_id) == (1, 0)
        with pytest.raises(KeyError):
            await canonical.submit_write(fail)
        assert await state(canonical) == {b"k": b"v"}


async def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    open_platform = on_file(tmp_path / "file")
    async with open_platform() as platform:
        await write(platform.canonical, {b"a": b"1"}, events=(b"x", b"y"))
        assert await platform.canonical.seal() == 1
    async with open_platform() as platform:
        canonical = platform.canonical
        assert (await canonical.meta()).sealed_event_id == 1
        await canonical.unseal()
        info = await write(canonical, {b"a": b"2"}, events=(b"z",))
        assert info.first_event_id == 2
        assert await all_events(canonical) == [(0, b"x"), (1, b"y"), (2, b"z")]


async def test_reads_of_a_write_transaction_see_its_own_writes_first() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await write(canonical, {b"a": b"old", b"b": b"old", b"c": b"old"})
        async with canonical.write_txn() as txn:
            assert await txn.get_state(b"a") == b"old"
            txn.put_state(b"a", b"new")
            txn.del_state(b"b")
            txn.put_state(b"d", b"")
            assert await txn.get_state(b"a") == b"new"
            assert (await txn.exists(b"b"), await txn.exists(b"d")) == (False, True)
            pairs = [pair async for pair in await txn.iter_state()]
            assert pairs == [(b"a", b"new"), (b"c", b"old"), (b"d", b"")]


async def test_ac3_a_snapshot_shows_one_moment_of_state_ranges_and_events() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await write(canonical, {b"k": b"1"}, events=(b"one",))
        async with canonical.read_txn() as old:
            for value in (b"2", b"3", b"4", b"5"):
                await write(canonical, {b"k": value, b"new/" + value: b""}, events=(value,))
            assert await old.get_state(b"k") == b"1"
            assert [pair async for pair in old.range()] == [(b"k", b"1")]
            assert [pair async for pair in old.scan_prefix(b"new/")] == []
            assert [event async for event in await old.iter_events()] == [(0, b"one")]
            assert (await old.next_event_id(), old.sequence) == (1, 1)
            async with canonical.read_txn() as new:
                assert await new.get_state(b"k") == b"5"
                assert await new.next_event_id() == 5


async def test_any_number_of_snapshots_is_open_at_once_and_gives_everything_back() -> None:
    """The original has one for each thread, and a table of 126."""
    async with in_memory()() as platform:
        canonical = platform.canonical
        snapshots = []
        for number in range(300):
            await write(canonical, {b"k": b"%d" % number})
            txn = canonical.read_txn()
            snapshots.append(await txn.__aenter__())
        for number, txn in enumerate(snapshots):
            assert await txn.get_state(b"k") == b"%d" % number
            await txn.__aexit__(None, None, None)
        assert not platform.sources.snapshots._leased
        assert not platform._engine._pins.frontiers  # type: ignore[attr-defined]  # the engine in memory has them


async def test_a_snapshot_held_too_long_expires(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, platform.canonical.read_txn() as txn:
        await trio.sleep(platform.limits.snapshot_seconds_max + 2)
        with pytest.raises(SnapshotExpiredError):
            await txn.get_state(b"k")


async def test_x4_what_is_too_large_is_refused_at_the_call_and_nothing_is_committed() -> None:
    """The original finds out after the state is committed, and throws the event away."""
    async with in_memory()() as platform:
        canonical = platform.canonical
        async with canonical.write_txn() as txn:
            with pytest.raises(KeyTooLargeError) as key_error:
                txn.put_state(bytes(512), b"v")
            assert (key_error.value.size, key_error.value.max) == (512, 511)
            assert key_error.value.context == "put_state"
            with pytest.raises(ValueTooLargeError) as value_error:
                txn.put_state(b"k", bytes(16 * MIB + 1))
            assert (value_error.value.size, value_error.value.max) == (16 * MIB + 1, 16 * MIB)
            with pytest.raises(ValueTooLargeError) as event_error:
                await txn.append_event(bytes(4 * MIB + 1))
            assert (event_error.value.max, event_error.value.context) == (4 * MIB, "append_event")
            with pytest.raises(ValueTooLargeError):
                await txn.append_events([b"fine", bytes(4 * MIB + 1)])
            for bad in (b"", bytes(512)):
                with pytest.raises(InvalidRequestError):
                    await txn.get_state(bad)
                with pytest.raises(InvalidRequestError):
                    txn.del_state(bad)
            assert await txn.commit() == CommitInfo(0, None, None, 0, 0, 0, 0)
        assert await all_events(canonical) == []


@pytest.mark.slow
async def test_keys_values_and_events_may_be_as_large_as_their_bounds(tmp_path: Path) -> None:
    async with on_file(tmp_path / "file")() as platform:
        canonical = platform.canonical
        await write(canonical, {bytes(511): bytes(16 * MIB)}, events=(bytes(4 * MIB),))
        async with canonical.read_txn() as txn:
            assert await txn.get_state(bytes(511)) == bytes(16 * MIB)
        assert [len(event) for _, event in await all_events(canonical)] == [4 * MIB]


async def test_a_transaction_that_grows_too_large_is_told_so_at_the_call() -> None:
    limits = Limits(batch_bytes_max=100, batch_entries_max=4)
    async with in_memory()(limits=limits) as platform:
        async with platform.canonical.write_txn() as txn:
            txn.put_state(b"k", bytes(50))
            with pytest.raises(LimitExceededError) as caught:
                txn.put_state(b"k", bytes(50))
            assert (caught.value.limit, caught.value.actual) == ("batch_bytes_max", 102)
            txn.del_state(b"k")
            await txn.append_event(b"e")
            with pytest.raises(LimitExceededError, match="batch_entries_max is 4"):
                await txn.append_event(b"e")
            info = await txn.commit()
        assert (info.events_written, info.state_keys_written) == (1, 1)
        batch = platform.canonical.batch()
        with pytest.raises(LimitExceededError):
            batch.append_event(bytes(101))
        for _ in range(3):
            batch.put(b"k", b"v")
        with pytest.raises(LimitExceededError):
            batch.delete(b"k")


@pytest.mark.parametrize("bad", ["text", None, bytearray(b"k"), 5], ids=repr)
async def test_keys_values_and_events_are_bytes(bad: Any) -> None:
    async with in_memory()() as platform, platform.canonical.write_txn() as txn:
        calls: list[Callable[[], None]] = [
            lambda: txn.put_state(bad, b"v"),
            lambda: txn.put_state(b"k", bad),
            lambda: txn.del_state(bad),
        ]
        for call in calls:
            with pytest.raises(InvalidRequestError, match="are bytes"):
                call()
        with pytest.raises(InvalidRequestError):
            await txn.append_event(bad)
        with pytest.raises(InvalidRequestError):
            await txn.append_events(bad)
        with pytest.raises(InvalidRequestError):
            await txn.get_state(bad)


async def test_appending_no_events_is_an_error() -> None:
    async with in_memory()() as platform, platform.canonical.write_txn() as txn:
        with pytest.raises(InvalidStateError, match="no event"):
            await txn.append_events([])
        with pytest.raises(InvalidRequestError):
            await txn.append_events(b"events")  # type: ignore[arg-type]  # what is refused


async def test_a_transaction_that_is_over_does_nothing_more() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        async with canonical.write_txn() as txn:
            rows = await txn.iter_state()
            await txn.commit()
            with pytest.raises(InvalidStateError, match="write transaction is over"):
                await anext(rows)
        calls: list[Callable[[], None]] = [
            lambda: txn.put_state(b"k", b"v"),
            lambda: txn.del_state(b"k"),
            txn.abort,
        ]
        for call in calls:
            with pytest.raises(InvalidStateError, match="over"):
                call()
        asks: list[Callable[[], Awaitable[object]]] = [
            txn.commit,
            lambda: txn.get_state(b"k"),
            lambda: txn.append_event(b"e"),
            txn.iter_state,
            txn.preflight,
        ]
        for ask in asks:
            with pytest.raises(InvalidStateError, match="over"):
                await ask()
        async with canonical.read_txn() as snapshot:
            rows = snapshot.range()
        with pytest.raises(InvalidStateError, match="read transaction is over"):
            await snapshot.get_state(b"k")
        with pytest.raises(InvalidStateError, match="over"):
            await anext(rows)
