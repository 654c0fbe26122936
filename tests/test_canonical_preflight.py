"""Preflighted transactions: declared keys, validators that run together, and one decision.

Named AC-5 are the acceptance cases of that section; two of AC-4, which time their subject in the
original, have a rendezvous here: it is reached, or nobody goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from exo_stream.canonical.changes import Changes, CommitInfo, PreflightResult
from exo_stream.canonical.contexts import PreflightContext, TransactionContext
from exo_stream.canonical.transaction import Transaction
from exo_stream.canonical.values import I64, String
from exo_stream.errors import (
    InvalidStateError,
    PreflightFailedError,
    SerializationError,
    TransactionConflictError,
    UndeclaredKeyAccessError,
)
from tests.preflights import events, nothing, put, setting, value_of
from tests.worlds import FaultyEngine, GatedHop, in_memory


async def test_ac5_a_validated_transaction_changes_a_value() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await put(canonical, balance=100)

        async def enough(context: PreflightContext) -> None:
            if (await context.get(b"balance")).as_i64() < 50:
                raise PreflightFailedError("not enough")

        transaction = canonical.transaction().keys([b"balance"]).validate(enough)
        info = await transaction.execute(setting({b"balance": I64(50)}))
        assert (info.state_keys_written, info.sequence) == (1, 2)
        assert await value_of(canonical, b"balance") == 50


async def test_ac5_a_bound_that_does_not_hold_leaves_the_value() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await put(canonical, balance=30)
        with pytest.raises(PreflightFailedError, match="is 30, less than 50"):
            await (
                canonical.transaction()
                .require_min(b"balance", 50)
                .execute(setting({b"balance": I64(0)}))
            )
        with pytest.raises(PreflightFailedError, match="is 30, more than 29"):
            await canonical.transaction().require_max(b"balance", 29).execute(nothing)
        assert await value_of(canonical, b"balance") == 30


async def test_ac5_exists_min_and_max_together() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await put(canonical, a=5)
        transaction = canonical.transaction()
        transaction.require_exists(b"a").require_min(b"a", 5).require_max(b"a", 5)
        transaction.require(b"a", lambda value: value == I64(5))
        transaction.require(b"b", lambda value: value is None)
        await transaction.execute(setting({b"a": I64(6), b"b": I64(1)}))
        assert await value_of(canonical, b"a") == 6


@pytest.mark.parametrize(
    ("build", "error"),
    [
        pytest.param(lambda t: t.require_exists(b"no"), PreflightFailedError, id="exists"),
        pytest.param(lambda t: t.require_min(b"no", 1), InvalidStateError, id="min, absent"),
        pytest.param(lambda t: t.require_max(b"no", 1), InvalidStateError, id="max, absent"),
        pytest.param(lambda t: t.require_min(b"text", 1), InvalidStateError, id="min of a text"),
        pytest.param(lambda t: t.require_max(b"text", 1), InvalidStateError, id="max of a text"),
        pytest.param(lambda t: t.require_min(b"raw", 1), SerializationError, id="no value"),
        pytest.param(
            lambda t: t.require(b"text", lambda _: False), PreflightFailedError, id="false"
        ),
    ],
)
async def test_a_requirement_that_does_not_hold_is_an_error_of_its_own_class(
    build: Callable[[Transaction], Transaction], error: type[Exception]
) -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        batch = canonical.batch()
        batch.put(b"raw", b"\xff")
        await batch.commit()
        text = {b"text": String("t")}
        await canonical.transaction().keys(text).execute(setting(dict(text)))
        with pytest.raises(error) as caught:
            await build(canonical.transaction()).execute(nothing)
        assert type(caught.value) is error
        assert canonical.lock_manager().held == 0


async def test_ac5_a_transaction_of_events_only_needs_no_keys_and_takes_no_lock() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical

        async def body(ctx: TransactionContext) -> None:
            ctx.log("deposit", {"b": 1, "a": "ä"})
            ctx.log_many([("x", None), ("y", [1])])
            assert canonical.lock_manager().held == 0
            await trio.lowlevel.checkpoint()

        info = await canonical.transaction().execute(body)
        assert (info.events_written, info.first_event_id, info.last_event_id) == (3, 0, 2)
        assert await events(canonical) == [
            (0, 'deposit:{"a":"ä","b":1}'.encode()),
            (1, b"x:null"),
            (2, b"y:[1]"),
        ]


async def test_ac5_undeclared_access_is_refused_while_validating_and_in_the_body() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical

        async def look(context: PreflightContext) -> None:
            await context.get_opt(b"other")

        with pytest.raises(UndeclaredKeyAccessError) as caught:
            await canonical.transaction().keys([b"mine"]).validate(look).execute(nothing)
        assert caught.value.key == b"other"

        async def body(ctx: TransactionContext) -> None:
            ctx.set(b"mine", I64(1))
            ctx.log("e", 1)
            ctx.delete(b"other")
            await trio.lowlevel.checkpoint()

        with pytest.raises(UndeclaredKeyAccessError):
            await canonical.transaction().keys([b"mine"]).execute(body)
        assert await value_of(canonical, b"mine") is None
        assert await events(canonical) == []


async def test_ac5_a_transfer_between_keys_in_any_order() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await put(canonical, z=1000, a=500)

        async def transfer(ctx: TransactionContext) -> None:
            await ctx.update(b"z", lambda value: I64(value.as_i64() - 100) if value else None)
            await ctx.update(b"a", lambda value: I64(value.as_i64() + 100) if value else None)
            assert (await ctx.get(b"z")).as_i64() == 900, "its own write"

        await canonical.transaction().keys([b"z", b"a"]).execute(transfer)
        assert [await value_of(canonical, key) for key in (b"z", b"a")] == [900, 600]


async def test_an_update_to_none_deletes() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await put(canonical, a=1)

        async def drop(ctx: TransactionContext) -> None:
            assert await ctx.exists(b"a")
            await ctx.update(b"a", lambda _: None)
            assert not await ctx.exists(b"a")
            with pytest.raises(InvalidStateError, match="does not exist"):
                await ctx.get(b"a")

        info = await canonical.transaction().keys([b"a"]).execute(drop)
        assert (info.state_keys_written, info.state_keys_deleted) == (0, 1)


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


async def test_the_validators_of_one_transaction_run_at_the_same_time() -> None:
    async with in_memory()() as platform:
        met = [trio.Event(), trio.Event()]

        def meeting(mine: int) -> Callable[[PreflightContext], Awaitable[None]]:
            async def meet(_context: PreflightContext) -> None:
                met[mine].set()
                await met[1 - mine].wait()

            return meet

        with trio.fail_after(60):
            transaction = platform.canonical.transaction()
            await transaction.validate(meeting(0)).validate(meeting(1)).execute(nothing)


async def test_of_several_objections_the_first_registered_is_told_and_the_rest_cancelled() -> None:
    async with in_memory()() as platform:
        cancelled: list[str] = []

        async def hang(_context: PreflightContext) -> None:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append("hung")

        async def object_second(_context: PreflightContext) -> None:
            await trio.lowlevel.checkpoint()
            raise PreflightFailedError("second")

        async def object_first(_context: PreflightContext) -> None:
            await trio.lowlevel.checkpoint()
            raise PreflightFailedError("first")

        transaction = platform.canonical.transaction().validate(object_first)
        transaction.validate(object_second).validate(hang)
        with pytest.raises(PreflightFailedError, match="first"):
            await transaction.execute(nothing)
        assert cancelled == ["hung"]


async def test_what_a_validator_raises_is_the_cause_of_the_failure() -> None:
    async with in_memory()() as platform:

        async def broken(_context: PreflightContext) -> None:
            await trio.lowlevel.checkpoint()
            raise KeyError("a bug")

        with pytest.raises(PreflightFailedError, match="KeyError") as caught:
            await platform.canonical.transaction().validate(broken).execute(nothing)
        assert isinstance(caught.value.__cause__, KeyError)

        async def body(_ctx: TransactionContext) -> None:
            await trio.lowlevel.checkpoint()
            raise KeyError("a bug")

        with pytest.raises(KeyError):
            await platform.canonical.transaction().execute(body)
        assert platform.canonical._pause.writing == 0


async def test_validators_see_one_snapshot_whatever_is_written_meanwhile() -> None:
    """Two reads of the original's are two snapshots; what is torn there is a conflict here."""
    async with in_memory()() as platform:
        canonical = platform.canonical
        await put(canonical, a=1, b=1)
        seen: list[int] = []

        async def look(context: PreflightContext) -> None:
            seen.append((await context.get(b"a")).as_i64())
            batch = canonical.batch()  # past the locks
            batch.put(b"b", b"")
            await batch.commit()
            seen.append((await context.get(b"b")).as_i64())

        transaction = canonical.transaction().keys([b"a", b"b"]).validate(look)
        with pytest.raises(TransactionConflictError) as caught:
            await transaction.execute(setting({b"a": I64(2)}))
        assert seen == [1, 1]
        assert (caught.value.key, caught.value.expected, caught.value.found) == (b"b", 1, 2)
        assert await value_of(canonical, b"a") == 1


@pytest.mark.parametrize("how", ["batch", "open transaction", "changes from elsewhere"])
async def test_no_writer_slips_in_between_a_preflight_and_its_decision(how: str) -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await put(canonical, a=1)

        async def body(ctx: TransactionContext) -> None:
            await ctx.get(b"a")
            if how == "batch":
                batch = canonical.batch()
                batch.delete(b"a")
                await batch.commit()
            elif how == "open transaction":
                async with canonical.write_txn() as txn:
                    txn.put_state(b"a", b"x")
                    await txn.commit()
            else:
                await canonical.submit(Changes([(b"a", b"x")], [], {b"a": 1}))
            ctx.log("e", 1)

        with pytest.raises(TransactionConflictError) as caught:
            await canonical.transaction().keys([b"a"]).execute(body)
        assert caught.value.retryable
        assert await events(canonical) == []


async def test_a_transaction_that_only_reads_is_judged_and_writes_nothing() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await put(canonical, a=1)
        info = await canonical.transaction().require_min(b"a", 1).execute(nothing)
        assert info == CommitInfo(0, None, None, 0, 0, 0, 1)
        assert await platform.current_sequence() == 1


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


async def test_reading_the_whole_state_is_in_conflict_with_any_other_commit() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await put(canonical, a=1, b=2)
        disturb = True

        async def total(ctx: TransactionContext) -> None:
            ctx.set(b"sum", I64(40))
            pairs = [key async for key in (await ctx.iter_state()).keys_only()]
            assert pairs == [b"a", b"b", b"sum"]
            if disturb:
                await canonical.submit(Changes([(b"unrelated", b"x")]))

        transaction = canonical.transaction().keys([b"sum"])
        with pytest.raises(TransactionConflictError) as caught:
            await transaction.execute(total)
        assert (caught.value.key, caught.value.expected, caught.value.found) == (b"", 1, 2)
        await canonical.submit(Changes([(b"unrelated", None)]))
        disturb = False
        await transaction.execute(total)


async def test_preflight_alone_tells_and_changes_nothing() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await put(canonical, a=1)
        result = await canonical.transaction().require_min(b"a", 1).preflight()
        assert result == PreflightResult(valid=True, read_keys=(b"a",))
        result = await canonical.transaction().require_min(b"a", 2).preflight()
        assert (result.valid, result.errors) == (False, ("key b'a' is 1, less than 2",))
        assert canonical.lock_manager().held == 0


def test_a_preflight_result_is_made_by_its_helpers() -> None:
    assert PreflightResult.success() == PreflightResult(valid=True)
    assert PreflightResult.failure("no") == PreflightResult(valid=False, errors=("no",))
    assert PreflightResult.success().with_keys([b"a"], [b"b"]) == PreflightResult(
        valid=True, read_keys=(b"a",), write_keys=(b"b",)
    )
