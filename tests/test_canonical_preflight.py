"""Preflighted transactions: declared keys, validators that run together, and one decision.

Named AC-5 are the acceptance cases of that section; two of AC-4, which time their subject in the
original, have a rendezvous here: it is reached, or nobody goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.canonical.changes import Changes, CommitInfo, PreflightResult
from exo_stream.canonical.store import CanonicalStore
from exo_stream.canonical.transaction import PreflightContext, Transaction, TransactionContext
from exo_stream.canonical.values import I64, U256, Bytes, String, TypedValue
from exo_stream.errors import (
    ConfigError,
    InvalidRequestError,
    InvalidStateError,
    KeyTooLargeError,
    LimitExceededError,
    LockTimeoutError,
    PreflightFailedError,
    SealedError,
    SerializationError,
    TransactionConflictError,
    UndeclaredKeyAccessError,
    ValueTooLargeError,
)
from exo_stream.limits import MIB, Limits
from tests.worlds import FaultyEngine, GatedHop, in_memory

Body = Callable[[TransactionContext], Awaitable[None]]


def setting(values: dict[bytes, TypedValue]) -> Body:
    async def body(ctx: TransactionContext) -> None:
        for key, value in values.items():
            ctx.set(key, value)
        await trio.lowlevel.checkpoint()

    return body


async def nothing(_ctx: TransactionContext) -> None:
    await trio.lowlevel.checkpoint()


async def put(canonical: CanonicalStore, **values: int) -> CommitInfo:
    entries: dict[bytes, TypedValue] = {k.encode(): I64(v) for k, v in values.items()}
    return await canonical.transaction().keys(entries).execute(setting(entries))


async def value_of(canonical: CanonicalStore, key: bytes) -> int | None:
    found: list[TypedValue | None] = []

    async def look(context: PreflightContext) -> None:
        found.append(await context.get_opt(key))

    assert (await canonical.transaction().keys([key]).validate(look).preflight()).valid
    return None if found[0] is None else found[0].as_integer()


async def events(canonical: CanonicalStore) -> list[tuple[int, bytes]]:
    return [event async for event in await canonical.iter_events()]


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


async def test_more_than_ten_thousand_declared_keys_are_refused() -> None:
    async with in_memory()() as platform:
        transaction = platform.canonical.transaction()
        transaction.keys([b"%d" % n for n in range(10_000)])
        with pytest.raises(ConfigError, match="at most 10000 keys"):
            transaction.keys([b"one more"])


async def test_what_is_declared_is_a_key() -> None:
    async with in_memory()() as platform:
        transaction = platform.canonical.transaction()
        with pytest.raises(InvalidRequestError, match="not one"):
            transaction.keys(b"key")  # type: ignore[arg-type]
        with pytest.raises(KeyTooLargeError):
            transaction.keys([bytes(512)])
        with pytest.raises(InvalidRequestError, match="at least one byte"):
            transaction.require_exists(b"")


async def test_what_is_too_large_is_refused_where_it_is_set() -> None:
    limits = Limits(batch_entries_max=3)
    async with in_memory()(limits=limits) as platform:

        async def body(ctx: TransactionContext) -> None:
            with pytest.raises(ValueTooLargeError):
                ctx.set(b"k", Bytes(bytes(16 * MIB)))
            with pytest.raises(ValueTooLargeError):
                ctx.log_bytes(bytes(4 * MIB + 1))
            ctx.set(b"k", U256(1))
            ctx.log_bytes(b"")
            with pytest.raises(LimitExceededError, match="batch_entries_max is 3"):
                ctx.log_bytes(b"")
            await trio.lowlevel.checkpoint()

        info = await platform.canonical.transaction().keys([b"k"]).execute(body)
        assert (info.state_keys_written, info.events_written) == (1, 1)

    async with in_memory()(limits=Limits(batch_bytes_max=100)) as platform:

        async def large(ctx: TransactionContext) -> None:
            with pytest.raises(LimitExceededError, match="batch_bytes_max is 100"):
                ctx.log_bytes(bytes(101))
            await trio.lowlevel.checkpoint()

        await platform.canonical.transaction().execute(large)


@pytest.mark.parametrize("event_type", ["", "a:b", None])
async def test_the_type_of_an_event_is_a_word_without_a_colon(event_type: str) -> None:
    async with in_memory()() as platform:

        async def body(ctx: TransactionContext) -> None:
            ctx.log(event_type, 1)
            await trio.lowlevel.checkpoint()

        with pytest.raises(InvalidRequestError, match="without a colon"):
            await platform.canonical.transaction().execute(body)

        async def no_json(ctx: TransactionContext) -> None:
            ctx.log_many([("fine", 1), ("bad", object())])
            await trio.lowlevel.checkpoint()

        with pytest.raises(SerializationError):
            await platform.canonical.transaction().execute(no_json)
        assert await events(platform.canonical) == []


async def test_a_context_that_escaped_does_nothing_more() -> None:
    async with in_memory()() as platform:
        escaped: list[TransactionContext] = []

        async def body(ctx: TransactionContext) -> None:
            escaped.append(ctx)
            await trio.lowlevel.checkpoint()

        await platform.canonical.transaction().keys([b"k"]).execute(body)
        [ctx] = escaped
        calls: list[Callable[[], None]] = [
            lambda: ctx.set(b"k", I64(1)),
            lambda: ctx.delete(b"k"),
            lambda: ctx.log("e", 1),
        ]
        for call in calls:
            with pytest.raises(InvalidStateError, match="over"):
                call()
        with pytest.raises(InvalidStateError, match="over"):
            await ctx.get(b"k")


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
