"""Preflighted transactions of the platform's own program: locks, shared commits, and what hangs.

Two cases of AC-4, which time their subject in the original, have a rendezvous here: it is reached,
or nobody goes on. X17 is a defect of the original: what a hung or cancelled one leaves behind.
What a client's do as well is in ``test_preflight_everywhere``.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.canonical.changes import Changes, PreflightResult
from exo_stream.canonical.contexts import PreflightContext, TransactionContext
from exo_stream.canonical.values import I64
from exo_stream.errors import LockTimeoutError, SealedError
from tests.preflights import events, nothing, put, setting
from tests.worlds import FaultyEngine, GatedHop, in_memory


async def test_ac4_the_preflights_of_transactions_on_different_keys_overlap() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        inside = 0
        everybody = trio.Event()

        async def meet(_context: PreflightContext) -> None:
            nonlocal inside
            inside += 1
            if inside == 16:
                everybody.set()
            await everybody.wait()

        async def run(key: bytes) -> None:
            await canonical.transaction().keys([key]).validate(meet).execute(setting({key: I64(1)}))

        keys: list[bytes] = []
        stripes: set[int] = set()
        for number in range(200):
            stripe = canonical.lock_manager().stripe_of(b"%d" % number)
            if stripe not in stripes and len(keys) < 16:
                stripes.add(stripe)
                keys.append(b"%d" % number)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for key in keys:
                    nursery.start_soon(run, key)


async def test_a_preflighted_transaction_takes_no_slot() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        async with canonical.write_txn() as txn:
            txn.put_state(b"k", b"v")
            with trio.fail_after(60):
                info = await put(canonical, a=1)
            assert info.sequence == 1
            await txn.commit()


async def test_many_on_different_keys_share_a_commit() -> None:
    hop, engine = GatedHop(), FaultyEngine()
    async with in_memory(engine)(hop=hop) as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical

        async def run(number: int) -> None:
            async def body(ctx: TransactionContext) -> None:
                ctx.set(b"%d" % number, I64(number))
                ctx.log("n", number)
                await trio.lowlevel.checkpoint()

            await canonical.transaction().keys([b"%d" % number]).execute(body)

        for number in range(30):
            nursery.start_soon(run, number)
        await hop.arrived.wait()
        await wait_all_tasks_blocked()
        hop.gate.set()
        await wait_all_tasks_blocked()
        assert sum(engine.commits) == 30
        assert len(engine.commits) < 10, "only those that share a stripe come later"
        assert [number for number, _ in await events(canonical)] == list(range(30))


def test_a_preflight_result_is_made_by_its_helpers() -> None:
    assert PreflightResult.success() == PreflightResult(valid=True)
    assert PreflightResult.failure("no") == PreflightResult(valid=False, errors=("no",))
    assert PreflightResult.success().with_keys([b"a"], [b"b"]) == PreflightResult(
        valid=True, read_keys=(b"a",), write_keys=(b"b",)
    )


async def test_x17_a_hung_validator_and_a_cancelled_body_give_everything_back(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical

        async def hang(context: PreflightContext) -> None:
            await context.get_opt(b"k")
            await trio.sleep_forever()

        async def hanging_body(ctx: TransactionContext) -> None:
            ctx.log("e", 1)
            await trio.sleep_forever()

        for transaction, body in (
            (canonical.transaction().keys([b"k"]).validate(hang), nothing),
            (canonical.transaction().keys([b"k"]), hanging_body),
        ):
            with trio.move_on_after(1):
                await transaction.execute(body)
            assert canonical.lock_manager().held == 0
            assert canonical._pause.writing == 0
            assert not platform.sources.snapshots._leased
        with trio.fail_after(60):
            await platform.pause_ingestion()


async def test_who_waits_for_a_hung_transaction_is_told_its_name(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical

        async def hang(_ctx: TransactionContext) -> None:
            await trio.sleep_forever()

        nursery.start_soon(canonical.transaction().keys([b"k"]).execute, hang, name="the hung one")
        await wait_all_tasks_blocked()
        with pytest.raises(LockTimeoutError) as caught:
            await put(canonical, k=1)
        assert (caught.value.key, caught.value.holder) == (b"k", "the hung one")
        nursery.cancel_scope.cancel()


async def test_a_sealed_store_refuses_before_the_locks_are_taken() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await canonical.submit(Changes(events=[b"e"]))
        await canonical.seal()

        async def never(_context: PreflightContext) -> None:
            await trio.lowlevel.checkpoint()
            raise AssertionError("validated in vain")

        with pytest.raises(SealedError):
            await canonical.transaction().validate(never).execute(nothing)
        with pytest.raises(SealedError):
            await canonical.submit(Changes(events=[b"e"]))
