"""Read and write transactions: what they see, what a commit did, and every way they end.

Named AC-1 are the acceptance cases of that section, as far as they are about the store itself;
X1 to X4 and X17 are the defects they must fail on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.canonical.changes import CommitInfo
from exo_stream.canonical.store import CanonicalStore
from exo_stream.canonical.transactions import WriteTxn
from exo_stream.errors import (
    InvalidRequestError,
    InvalidStateError,
    KeyTooLargeError,
    LimitExceededError,
    PausedError,
    PlatformClosedError,
    SealedError,
    SnapshotExpiredError,
    StoreError,
    TimedOutError,
    TransactionConflictError,
    UnsupportedError,
    ValueTooLargeError,
)
from exo_stream.limits import MIB, Limits
from exo_stream.model import Keyspace
from exo_stream.testing import FakeClock
from tests.nine_methods import NineMethods
from tests.worlds import FaultyEngine, GatedHop, in_memory, on_file


async def write(
    canonical: CanonicalStore,
    puts: dict[bytes, bytes] | None = None,
    *,
    deletes: tuple[bytes, ...] = (),
    events: tuple[bytes, ...] = (),
) -> CommitInfo:
    async with canonical.write_txn() as txn:
        for key, value in (puts or {}).items():
            txn.put_state(key, value)
        for key in deletes:
            txn.del_state(key)
        if events:
            await txn.append_events(events)
        return await txn.commit()


async def state(canonical: CanonicalStore) -> dict[bytes, bytes]:
    async with canonical.read_txn() as txn:
        return {key: value async for key, value in txn.range()}


async def all_events(canonical: CanonicalStore) -> list[tuple[int, bytes]]:
    return [event async for event in await canonical.iter_events()]


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
        assert not platform._engine._pins.frontiers  # type: ignore[attr-defined]


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
            await txn.append_events(b"events")  # type: ignore[arg-type]


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


async def test_an_exception_aborts_and_leaves_as_itself() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        with pytest.raises(KeyError):
            async with canonical.write_txn() as txn:
                txn.put_state(b"k", b"v")
                raise KeyError
        assert await state(canonical) == {}
        assert canonical._writers.slot.holder == ""


async def test_write_transactions_come_one_after_the_other_in_the_order_of_asking() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical
        order: list[int] = []

        async def write_one(number: int) -> None:
            async with canonical.write_txn() as txn:
                order.append(number)
                await trio.lowlevel.checkpoint()
                assert order[-1] == number, "alone"
                txn.put_state(b"k", b"%d" % number)
                await txn.commit()

        async with canonical.write_txn():
            for number in range(10):
                nursery.start_soon(write_one, number)
                await wait_all_tasks_blocked()
            assert order == []
        await wait_all_tasks_blocked()
        assert order == list(range(10))


async def test_waiting_for_the_slot_has_a_deadline_and_the_error_names_the_holder(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(write_slot_timeout_ms=2_000)
    async with in_memory()(limits=limits) as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical

        async def hold(task_status: trio.TaskStatus[None]) -> None:
            async with canonical.write_txn():
                task_status.started()
                await trio.sleep_forever()

        await nursery.start(hold, name="the hung one")
        began = trio.current_time()
        with pytest.raises(TimedOutError) as caught:
            async with canonical.write_txn():
                pass
        assert trio.current_time() - began == pytest.approx(2)
        assert (caught.value.timeout_ms, caught.value.holder) == (2_000, "the hung one")
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.5):
            async with canonical.write_txn():
                pass
        assert canonical._writers.slot.waiting == 0
        assert canonical._pause.writing == 1
        nursery.cancel_scope.cancel()
    assert canonical._pause.writing == 0


async def test_x2_the_next_reads_over_what_is_not_durable_yet_and_they_share_a_commit() -> None:
    """Nothing is visible or answered meanwhile: the first group is held at its COMMIT."""
    hop, engine = GatedHop(), FaultyEngine()
    async with in_memory(engine)(hop=hop) as platform:
        canonical = platform.canonical
        ids: list[int] = []

        async def increment() -> None:
            async with canonical.write_txn() as txn:
                value = int(await txn.get_state(b"n") or b"0") + 1
                txn.put_state(b"n", b"%d" % value)
                ids.append(await txn.append_event(b"%d" % value))
                await txn.commit()

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(increment)
            await hop.arrived.wait()
            await wait_all_tasks_blocked()
            assert ids == list(range(20)), "all of them handed over, none of them durable"
            assert await state(canonical) == {}
            hop.gate.set()
        assert await state(canonical) == {b"n": b"20"}
        assert [event for _, event in await all_events(canonical)] == [
            b"%d" % n for n in range(1, 21)
        ]
        assert len(engine.commits) <= 3, engine.commits


@pytest.mark.parametrize("fault", ["refused", "full, lost"])
async def test_what_was_built_on_a_group_that_failed_fails_with_it(fault: Any) -> None:
    hop, engine = GatedHop(), FaultyEngine()
    async with in_memory(engine)(hop=hop, limits=Limits(group_batches_max=1)) as platform:
        canonical = platform.canonical
        outcomes: dict[str, object] = {}

        async def run(name: str, *, reads: bool) -> None:
            try:
                async with canonical.write_txn() as txn:
                    if reads:
                        outcomes[name + " read"] = await txn.get_state(b"k")
                    txn.put_state(b"k" if reads else name.encode(), name.encode())
                    outcomes[name] = await txn.commit()
            except (StoreError, TransactionConflictError) as error:
                outcomes[name] = error

        engine.faults.append(fault)
        async with trio.open_nursery() as nursery:
            for name, reads in (("first", True), ("second", True), ("apart", False), ("x", True)):
                nursery.start_soon(partial(run, name, reads=reads))
                await wait_all_tasks_blocked()
            hop.gate.set()
        assert outcomes["second read"] == b"first"
        assert outcomes["x read"] == b"second"
        for name in ("first", "second", "x"):
            assert isinstance(outcomes[name], StoreError), outcomes[name]
        assert await state(canonical) == {b"apart": b"apart"}
        assert isinstance(outcomes["apart"], CommitInfo)
        await write(canonical, {b"k": b"again"})
        assert (await state(canonical))[b"k"] == b"again"


async def test_event_ids_built_on_a_failed_group_are_given_again() -> None:
    hop, engine = GatedHop(), FaultyEngine()
    async with in_memory(engine)(hop=hop, limits=Limits(group_batches_max=1)) as platform:
        canonical = platform.canonical
        failed: list[StoreError] = []

        async def append() -> None:
            try:
                await write(canonical, events=(b"lost",))
            except StoreError as error:
                failed.append(error)

        engine.faults.append("refused")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(append)
            await hop.arrived.wait()
            await wait_all_tasks_blocked()
            hop.gate.set()
        assert len(failed) == 3
        assert (await write(canonical, events=(b"kept",))).first_event_id == 0
        assert await all_events(canonical) == [(0, b"kept")]


async def test_x17_a_cancelled_transaction_gives_back_its_slot_its_ids_and_its_snapshot(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await write(canonical, {b"k": b"v"})
        with trio.move_on_after(1):
            async with canonical.write_txn() as txn:
                await txn.get_state(b"k")
                assert await txn.append_event(b"lost") == 0
                await trio.sleep_forever()
        assert canonical._writers.slot.holder == ""
        assert canonical._pause.writing == 0
        assert not platform.sources.snapshots._leased
        assert (await write(canonical, events=(b"e",))).first_event_id == 0


async def test_a_commit_cancelled_after_its_hand_over_takes_its_course() -> None:
    hop = GatedHop()
    async with in_memory()(hop=hop) as platform:
        canonical = platform.canonical
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as doomed:
                doomed.start_soon(write, canonical, {b"k": b"v"})
                await hop.arrived.wait()
                scope.cancel()
        hop.gate.set()
        async with canonical.write_txn() as txn:
            assert await txn.get_state(b"k") == b"v", "what comes after reads over it"
        await platform._ground.settle()
        assert await state(canonical) == {b"k": b"v"}


async def test_preflight_of_an_open_transaction_tells_what_it_read_and_whether_it_holds() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await write(canonical, {b"a": b"1"})
        async with canonical.write_txn() as txn:
            await txn.get_state(b"a")
            await txn.get_state(b"absent")
            txn.put_state(b"b", b"2")
            result = await txn.preflight()
            assert (result.valid, result.errors) == (True, ())
            assert (result.read_keys, result.write_keys) == ((b"a", b"absent"), (b"b",))
            batch = canonical.batch()
            batch.put(b"a", b"changed")
            await batch.commit()
            result = await txn.preflight()
            assert not result.valid
            assert result.errors == ("key b'a' has changed since it was read",)
            with pytest.raises(TransactionConflictError) as caught:
                await txn.commit()
            assert (caught.value.key, caught.value.expected, caught.value.found) == (b"a", 1, 2)
            assert caught.value.retryable
        assert await state(canonical) == {b"a": b"changed"}


async def test_reading_the_whole_state_keeps_others_back_until_the_hand_over() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical
        batch = canonical.batch()
        batch.put(b"late", b"v")
        batch.append_event(b"late")
        async with canonical.write_txn() as txn:
            assert [pair async for pair in await txn.iter_state()] == []
            nursery.start_soon(batch.commit)
            await wait_all_tasks_blocked()
            txn.put_state(b"count", b"0")
            assert await txn.append_event(b"counted") == 0
            await txn.commit()
        await wait_all_tasks_blocked()
        assert await all_events(canonical) == [(0, b"counted"), (1, b"late")]


async def test_ids_given_away_hold_whoever_else_appends() -> None:
    """Twenty batches are under way when the transaction asks for its ids, twenty come after."""
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical

        async def append(event: bytes) -> None:
            batch = canonical.batch()
            batch.append_event(event)
            await batch.commit()

        for number in range(20):
            nursery.start_soon(append, b"%d" % number)
        await trio.lowlevel.checkpoint()
        async with canonical.write_txn() as txn:
            first = await txn.append_event(b"mine")
            for number in range(20, 40):
                nursery.start_soon(append, b"%d" % number)
            await wait_all_tasks_blocked()
            _, last = await txn.append_events([b"mine"] * 5)
            assert last == first + 5
            info = await txn.commit()
        assert (info.first_event_id, info.last_event_id) == (first, last)
        await wait_all_tasks_blocked()
        events = await all_events(canonical)
        assert [number for number, _ in events] == list(range(46))
        assert [event for _, event in events[first : last + 1]] == [b"mine"] * 6


async def test_who_waits_for_a_hung_holder_of_ids_is_told_its_name(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical

        async def hang(task_status: trio.TaskStatus[None]) -> None:
            async with canonical.write_txn() as txn:
                await txn.append_event(b"e")
                task_status.started()
                await trio.sleep_forever()

        await nursery.start(hang, name="the hung one")
        batch = canonical.batch()
        batch.append_event(b"e")
        with pytest.raises(TimedOutError, match="the hung one"):
            await batch.commit()
        nursery.cancel_scope.cancel()


async def test_a_sealed_store_and_a_paused_one_refuse_before_anything_is_begun() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await write(canonical, events=(b"e",))
        assert await canonical.seal() == 0
        with pytest.raises(SealedError) as caught:
            async with canonical.write_txn():
                pass
        assert caught.value.sealed_event_id == 0
        await canonical.pause_ingestion()
        with pytest.raises(PausedError):
            async with canonical.write_txn():
                pass
        assert canonical._pause.writing == 0


async def test_a_platform_that_stops_answers_an_open_transaction() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        txn = canonical.write_txn()
        await txn.__aenter__()
    txn.put_state(b"k", b"v")
    with pytest.raises(PlatformClosedError):
        await txn.commit()


async def test_a_backend_with_only_the_nine_methods_has_no_canonical_store() -> None:
    async with in_memory(NineMethods())() as platform:  # type: ignore[arg-type]
        with pytest.raises(UnsupportedError):
            platform.canonical.read_txn()
        with pytest.raises(UnsupportedError):
            await platform.canonical.open()
