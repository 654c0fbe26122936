"""The write slot, what comes past it, and every way a write transaction ends.

X2 and X17 are defects of the original: log order that is not id order, and what is left behind.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.canonical.changes import CommitInfo
from exo_stream.errors import (
    InvalidStateError,
    PausedError,
    PlatformClosedError,
    SealedError,
    StoreError,
    TimedOutError,
    TransactionConflictError,
    UnsupportedError,
)
from exo_stream.limits import Limits
from tests.nine_methods import NineMethods
from tests.transactions import all_events, state, write
from tests.worlds import FaultyEngine, GatedHop, in_memory


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


async def test_a_write_transaction_is_entered_once() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        txn = canonical.write_txn()
        async with txn:
            txn.put_state(b"k", b"v")
            await txn.commit()
        with pytest.raises(InvalidStateError, match="over"):
            await txn.__aenter__()
        assert canonical._writers.slot.holder == ""


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
    async with in_memory(NineMethods())() as platform:  # type: ignore[arg-type]  # a backend that misses methods of ours, which is the point
        with pytest.raises(UnsupportedError):
            platform.canonical.read_txn()
        with pytest.raises(UnsupportedError):
            await platform.canonical.open()
