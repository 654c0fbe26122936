"""Preflighted transactions by the same verbs, whether a program holds the platform or a client.

Named AC-5 are the acceptance cases of that section.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from exo_stream.canonical.changes import Changes, CommitInfo, PreflightResult
from exo_stream.canonical.contexts import PreflightContext, TransactionContext
from exo_stream.canonical.preflight import Body
from exo_stream.canonical.store import CanonicalStore
from exo_stream.canonical.transaction import Transaction
from exo_stream.canonical.values import I64, U256, Bytes, String
from exo_stream.client.canonical import RemoteCanonical
from exo_stream.client.transaction import RemoteTransaction
from exo_stream.errors import (
    ConfigError,
    InvalidRequestError,
    InvalidStateError,
    KeyTooLargeError,
    LimitExceededError,
    PausedError,
    PreflightFailedError,
    SealedError,
    SerializationError,
    TransactionConflictError,
    UndeclaredKeyAccessError,
    ValueTooLargeError,
)
from exo_stream.limits import MIB, Limits
from tests.network import connected_over, networked
from tests.preflights import events, nothing, put, setting, value_of
from tests.worlds import in_memory

Built = Transaction | RemoteTransaction


@dataclass(frozen=True, slots=True)
class World:
    """A store, and where its transactions are built: there, or at a client of it."""

    near: CanonicalStore
    built: CanonicalStore | RemoteCanonical

    def transaction(self) -> Built:
        return self.built.transaction()


async def once(transaction: Built, body: Body) -> CommitInfo:
    """Execute it and, where conflicts are tried again, do not."""
    if isinstance(transaction, RemoteTransaction):
        return await transaction.execute(body, attempts_max=1)
    return await transaction.execute(body)


LIMITS = Limits(batch_bytes_max=5 * MIB, batch_entries_max=100)


@pytest.fixture(params=["embedded", "client"])
async def world(request: pytest.FixtureRequest, autojump_clock: MockClock) -> AsyncIterator[World]:
    async with in_memory()(limits=LIMITS) as platform:
        if request.param == "embedded":
            yield World(platform.canonical, platform.canonical)
            return
        async with networked(platform) as network, connected_over(network, limits=LIMITS) as client:
            yield World(platform.canonical, client.canonical)
    assert not platform.sources.snapshots.floors()
    assert not platform.sources.snapshots._leased


async def test_ac5_a_validated_transaction_changes_a_value(world: World) -> None:
    await put(world.near, balance=100)

    async def enough(context: PreflightContext) -> None:
        if (await context.get(b"balance")).as_i64() < 50:
            raise PreflightFailedError("not enough")

    transaction = world.transaction().keys([b"balance"]).validate(enough)
    info = await transaction.execute(setting({b"balance": I64(50)}))
    assert (info.state_keys_written, info.sequence) == (1, 2)
    assert await value_of(world.near, b"balance") == 50


async def test_ac5_a_bound_that_does_not_hold_leaves_the_value(world: World) -> None:
    await put(world.near, balance=30)
    too_little = world.transaction().require_min(b"balance", 50)
    with pytest.raises(PreflightFailedError, match="is 30, less than 50"):
        await too_little.execute(setting({b"balance": I64(0)}))
    with pytest.raises(PreflightFailedError, match="is 30, more than 29"):
        await world.transaction().require_max(b"balance", 29).execute(nothing)
    assert await value_of(world.near, b"balance") == 30


async def test_ac5_exists_min_and_max_together(world: World) -> None:
    await put(world.near, a=5)
    transaction = world.transaction()
    transaction.require_exists(b"a").require_min(b"a", 5).require_max(b"a", 5)
    transaction.require(b"a", lambda value: value == I64(5))
    transaction.require(b"b", lambda value: value is None)
    await transaction.execute(setting({b"a": I64(6), b"b": I64(1)}))
    assert await value_of(world.near, b"a") == 6


REQUIREMENTS: list[tuple[str, Callable[[Built], Built], type[Exception]]] = [
    ("exists", lambda t: t.require_exists(b"no"), PreflightFailedError),
    ("min, absent", lambda t: t.require_min(b"no", 1), InvalidStateError),
    ("max, absent", lambda t: t.require_max(b"no", 1), InvalidStateError),
    ("min of a text", lambda t: t.require_min(b"text", 1), InvalidStateError),
    ("max of a text", lambda t: t.require_max(b"text", 1), InvalidStateError),
    ("no value", lambda t: t.require_min(b"raw", 1), SerializationError),
    ("false", lambda t: t.require(b"text", lambda _: False), PreflightFailedError),
]


async def test_a_requirement_that_does_not_hold_is_an_error_of_its_own_class(world: World) -> None:
    batch = world.near.batch()
    batch.put(b"raw", b"\xff")
    await batch.commit()
    text = {b"text": String("t")}
    await world.transaction().keys(text).execute(setting(dict(text)))
    for name, build, error in REQUIREMENTS:
        with pytest.raises(error) as caught:
            await build(world.transaction()).execute(nothing)
        assert type(caught.value) is error, name
        assert world.near.lock_manager().held == 0


async def test_ac5_a_transaction_of_events_only_needs_no_keys_and_takes_no_lock(
    world: World,
) -> None:
    async def body(ctx: TransactionContext) -> None:
        ctx.log("deposit", {"b": 1, "a": "ä"})
        ctx.log_many([("x", None), ("y", [1])])
        assert world.near.lock_manager().held == 0
        await trio.lowlevel.checkpoint()

    info = await world.transaction().execute(body)
    assert (info.events_written, info.first_event_id, info.last_event_id) == (3, 0, 2)
    assert await events(world.near) == [
        (0, 'deposit:{"a":"ä","b":1}'.encode()),
        (1, b"x:null"),
        (2, b"y:[1]"),
    ]


async def test_ac5_undeclared_access_is_refused_while_validating_and_in_the_body(
    world: World,
) -> None:
    async def look(context: PreflightContext) -> None:
        await context.get_opt(b"other")

    with pytest.raises(UndeclaredKeyAccessError) as caught:
        await world.transaction().keys([b"mine"]).validate(look).execute(nothing)
    assert caught.value.key == b"other"

    async def body(ctx: TransactionContext) -> None:
        ctx.set(b"mine", I64(1))
        ctx.log("e", 1)
        ctx.delete(b"other")
        await trio.lowlevel.checkpoint()

    with pytest.raises(UndeclaredKeyAccessError):
        await world.transaction().keys([b"mine"]).execute(body)
    assert await value_of(world.near, b"mine") is None
    assert await events(world.near) == []


async def test_ac5_a_transfer_between_keys_in_any_order(world: World) -> None:
    await put(world.near, z=1000, a=500)

    async def transfer(ctx: TransactionContext) -> None:
        await ctx.update(b"z", lambda value: I64(value.as_i64() - 100) if value else None)
        await ctx.update(b"a", lambda value: I64(value.as_i64() + 100) if value else None)
        assert (await ctx.get(b"z")).as_i64() == 900, "its own write"

    await world.transaction().keys([b"z", b"a"]).execute(transfer)
    assert [await value_of(world.near, key) for key in (b"z", b"a")] == [900, 600]


async def test_an_update_to_none_deletes(world: World) -> None:
    await put(world.near, a=1)

    async def drop(ctx: TransactionContext) -> None:
        assert await ctx.exists(b"a")
        await ctx.update(b"a", lambda _: None)
        assert not await ctx.exists(b"a")
        with pytest.raises(InvalidStateError, match="does not exist"):
            await ctx.get(b"a")

    info = await world.transaction().keys([b"a"]).execute(drop)
    assert (info.state_keys_written, info.state_keys_deleted) == (0, 1)


async def test_the_validators_of_one_transaction_run_at_the_same_time(world: World) -> None:
    met = [trio.Event(), trio.Event()]

    def meeting(mine: int) -> Callable[[PreflightContext], Awaitable[None]]:
        async def meet(context: PreflightContext) -> None:
            assert not await context.exists(b"%d" % mine)
            met[mine].set()
            await met[1 - mine].wait()

        return meet

    with trio.fail_after(60):
        transaction = world.transaction().keys([b"0", b"1"])
        await transaction.validate(meeting(0)).validate(meeting(1)).execute(nothing)


async def test_of_several_objections_the_first_registered_is_told_and_the_rest_cancelled(
    world: World,
) -> None:
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

    transaction = world.transaction().validate(object_first)
    transaction.validate(object_second).validate(hang)
    with pytest.raises(PreflightFailedError, match="first"):
        await transaction.execute(nothing)
    assert cancelled == ["hung"]


async def test_what_a_validator_raises_is_the_cause_of_the_failure(world: World) -> None:
    async def broken(_context: object) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("a bug")

    with pytest.raises(PreflightFailedError, match="KeyError") as caught:
        await world.transaction().validate(broken).execute(nothing)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(KeyError):
        await world.transaction().execute(broken)
    assert world.near._pause.writing == 0


async def test_validators_see_one_snapshot_whatever_is_written_meanwhile(world: World) -> None:
    """Two reads of the original's are two snapshots; what is torn there is a conflict here."""
    await put(world.near, a=1, b=1)
    seen: list[int] = []

    async def look(context: PreflightContext) -> None:
        seen.append((await context.get(b"a")).as_i64())
        batch = world.near.batch()  # past the locks
        batch.put(b"b", b"")
        await batch.commit()
        seen.append((await context.get(b"b")).as_i64())

    transaction = world.transaction().keys([b"a", b"b"]).validate(look)
    with pytest.raises(TransactionConflictError) as caught:
        await once(transaction, setting({b"a": I64(2)}))
    assert seen == [1, 1]
    assert (caught.value.key, caught.value.expected, caught.value.found) == (b"b", 1, 2)
    assert await value_of(world.near, b"a") == 1


@pytest.mark.parametrize("how", ["batch", "open transaction", "changes from elsewhere"])
async def test_no_writer_slips_in_between_a_preflight_and_its_decision(
    world: World, how: str
) -> None:
    await put(world.near, a=1)

    async def body(ctx: TransactionContext) -> None:
        await ctx.get(b"a")
        if how == "batch":
            batch = world.near.batch()
            batch.delete(b"a")
            await batch.commit()
        elif how == "open transaction":
            async with world.near.write_txn() as txn:
                txn.put_state(b"a", b"x")
                await txn.commit()
        else:
            await world.near.submit(Changes([(b"a", b"x")], [], {b"a": 1}))
        ctx.log("e", 1)

    with pytest.raises(TransactionConflictError) as caught:
        await once(world.transaction().keys([b"a"]), body)
    assert caught.value.retryable
    assert await events(world.near) == []


async def test_a_transaction_that_only_reads_is_judged_and_writes_nothing(world: World) -> None:
    await put(world.near, a=1)
    info = await world.transaction().require_min(b"a", 1).execute(nothing)
    assert info == CommitInfo(0, None, None, 0, 0, 0, 1)
    assert (await world.near.meta()).sequence == 1


async def test_reading_the_whole_state_is_in_conflict_with_any_other_commit(world: World) -> None:
    await put(world.near, a=1, b=2)
    disturb = True

    async def total(ctx: TransactionContext) -> None:
        ctx.set(b"sum", I64(40))
        pairs = [key async for key in (await ctx.iter_state()).keys_only()]
        assert pairs == [b"a", b"b", b"sum"]
        if disturb:
            await world.near.submit(Changes([(b"unrelated", b"x")]))

    transaction = world.transaction().keys([b"sum"])
    with pytest.raises(TransactionConflictError) as caught:
        await once(transaction, total)
    assert (caught.value.key, caught.value.expected, caught.value.found) == (b"", 1, 2)
    await world.near.submit(Changes([(b"unrelated", None)]))
    disturb = False
    await transaction.execute(total)


async def test_preflight_alone_tells_and_changes_nothing(world: World) -> None:
    await put(world.near, a=1)
    result = await world.transaction().require_min(b"a", 1).preflight()
    assert result == PreflightResult(valid=True, read_keys=(b"a",))
    result = await world.transaction().require_min(b"a", 2).preflight()
    assert (result.valid, result.errors) == (False, ("key b'a' is 1, less than 2",))
    assert world.near.lock_manager().held == 0


async def test_more_than_ten_thousand_declared_keys_are_refused(world: World) -> None:
    await put(world.near, **{"7": 7})
    transaction = world.transaction().keys([b"%d" % n for n in range(10_000)])
    with pytest.raises(ConfigError, match="at most 10000 keys"):
        world.transaction().keys([b"%d" % n for n in range(10_001)])

    async def body(ctx: TransactionContext) -> None:
        assert (await ctx.get(b"7")).as_i64() == 7
        for number in range(9_950, 10_000):
            assert not await ctx.exists(b"%d" % number)
            ctx.set(b"%d" % number, I64(number))

    assert (await transaction.execute(body)).state_keys_written == 50


async def test_what_is_declared_is_a_key(world: World) -> None:
    await trio.lowlevel.checkpoint()
    transaction = world.transaction()
    with pytest.raises(InvalidRequestError, match="not one"):
        transaction.keys(b"key")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(KeyTooLargeError):
        transaction.keys([bytes(512)])
    with pytest.raises(InvalidRequestError, match="at least one byte"):
        transaction.require_exists(b"")


async def test_what_is_too_large_is_refused_where_it_is_set(world: World) -> None:
    async def body(ctx: TransactionContext) -> None:
        with pytest.raises(ValueTooLargeError):
            ctx.set(b"k", Bytes(bytes(16 * MIB)))
        with pytest.raises(ValueTooLargeError):
            ctx.log_bytes(bytes(4 * MIB + 1))
        ctx.set(b"k", U256(1))
        await trio.lowlevel.checkpoint()
        for _ in range(98):
            ctx.log_bytes(b"")
        with pytest.raises(LimitExceededError, match="batch_entries_max is 100"):
            ctx.log_bytes(b"")

    info = await world.transaction().keys([b"k"]).execute(body)
    assert (info.state_keys_written, info.events_written) == (1, 98)

    async def large(ctx: TransactionContext) -> None:
        ctx.log_bytes(bytes(4 * MIB))
        with pytest.raises(LimitExceededError, match="batch_bytes_max"):
            ctx.log_bytes(bytes(2 * MIB))
        await trio.lowlevel.checkpoint()
        raise PreflightFailedError("enough")

    with pytest.raises(PreflightFailedError):
        await world.transaction().execute(large)


async def test_the_type_of_an_event_is_a_word_without_a_colon(world: World) -> None:
    async def body(ctx: TransactionContext) -> None:
        await trio.lowlevel.checkpoint()
        for event_type in ("", "a:b", None):
            with pytest.raises(InvalidRequestError, match="without a colon"):
                ctx.log(event_type, 1)  # type: ignore[arg-type]  # what is refused
        with pytest.raises(SerializationError):
            ctx.log_many([("fine", 1), ("bad", object())])

    await world.transaction().execute(body)
    assert await events(world.near) == []


async def test_a_context_that_escaped_does_nothing_more(world: World) -> None:
    escaped: list[TransactionContext] = []

    async def body(ctx: TransactionContext) -> None:
        escaped.append(ctx)
        await trio.lowlevel.checkpoint()

    await world.transaction().keys([b"k"]).execute(body)
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
    with pytest.raises(InvalidStateError, match="over"):
        await ctx.iter_state()


async def test_a_sealed_store_and_a_paused_one_refuse(world: World) -> None:
    await world.near.submit(Changes(events=[b"e"]))
    await world.near.seal()
    with pytest.raises(SealedError) as caught:
        await world.transaction().execute(nothing)
    assert caught.value.sealed_event_id == 0
    await world.near.unseal()
    await world.near.pause_ingestion()
    with pytest.raises(PausedError):
        await world.transaction().execute(nothing)
    world.near.resume_ingestion()
    await world.transaction().execute(nothing)
