"""Preflighted transactions: what is too much, what is wrong, and what hangs.

X17 is a defect of the original: what a hung or cancelled transaction leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.canonical.changes import Changes
from exo_stream.canonical.contexts import PreflightContext, TransactionContext
from exo_stream.canonical.values import I64, U256, Bytes
from exo_stream.errors import (
    ConfigError,
    InvalidRequestError,
    InvalidStateError,
    KeyTooLargeError,
    LimitExceededError,
    LockTimeoutError,
    SealedError,
    SerializationError,
    ValueTooLargeError,
)
from exo_stream.limits import MIB, Limits
from tests.preflights import events, nothing, put
from tests.worlds import in_memory


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
