"""A client's preflighted transactions: overtaken, run again, cut off, and larger than a message."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from exo_stream.canonical.contexts import PreflightContext, TransactionContext
from exo_stream.canonical.store import CanonicalStore
from exo_stream.canonical.values import I64, Bytes
from exo_stream.client.transaction import VALUES_MAX
from exo_stream.errors import (
    InvalidRequestError,
    LimitExceededError,
    PreflightFailedError,
    TransactionConflictError,
    UnavailableError,
)
from exo_stream.limits import Limits
from exo_stream.testing import connected
from tests.network import connected_over, networked
from tests.preflights import events, nothing, put, setting, value_of
from tests.worlds import in_memory

MANY = [b"%d" % number for number in range(VALUES_MAX + 1)]


async def bump(canonical: CanonicalStore, key: bytes, value: int) -> None:
    """Write past every lock, as anybody may."""
    await canonical.transaction().keys([key]).execute(setting({key: I64(value)}))


async def test_who_was_overtaken_is_run_again_and_validated_again(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform, connected(platform) as client:
        await put(platform.canonical, a=100)
        seen: list[int] = []

        async def look(context: PreflightContext) -> None:
            seen.append((await context.get(b"a")).as_i64())

        async def body(ctx: TransactionContext) -> None:
            if len(seen) < 3:
                await bump(platform.canonical, b"a", 100 + len(seen))
            ctx.set(b"a", I64(seen[-1] * 2))
            ctx.log("doubled", seen[-1])

        transaction = client.canonical.transaction().keys([b"a"]).validate(look)
        with pytest.raises(TransactionConflictError):
            await transaction.execute(body, attempts_max=1)
        info = await transaction.execute(body)
        assert (seen, info.first_event_id) == ([100, 101, 102], 0)
        assert await value_of(platform.canonical, b"a") == 204
        assert await events(platform.canonical) == [(0, b"doubled:102")]
        for bad in (0, True, "3"):
            with pytest.raises(InvalidRequestError, match="at least one attempt"):
                await transaction.execute(body, attempts_max=bad)  # type: ignore[arg-type]  # what is refused


async def test_of_many_keys_each_value_is_that_of_the_first_look(
    autojump_clock: MockClock,
) -> None:
    """They come one by one; one that is newer than the look is a conflict at once."""
    async with in_memory()() as platform, connected(platform) as client:
        await put(platform.canonical, **{key.decode(): 1 for key in MANY})
        attempts = 0

        async def body(ctx: TransactionContext) -> None:
            nonlocal attempts
            attempts += 1
            assert (await ctx.get(b"0")).as_i64() == 1
            if attempts == 1:
                await bump(platform.canonical, b"1", 2)
                with pytest.raises(TransactionConflictError) as caught:
                    await ctx.get(b"1")
                assert (caught.value.key, caught.value.expected) == (b"1", 1)
                raise caught.value
            assert (await ctx.get(b"0")).as_i64() == 1
            assert (await ctx.get(b"1")).as_i64() == 2
            ctx.delete(b"1")

        await client.canonical.transaction().keys(MANY).execute(body)
        assert attempts == 2
        assert await value_of(platform.canonical, b"1") is None


async def test_a_preflight_is_not_failed_by_whoever_is_faster(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, connected(platform) as client:
        await put(platform.canonical, **{key.decode(): 1 for key in MANY})
        looks = 0

        async def look(context: PreflightContext) -> None:
            nonlocal looks
            looks += 1
            assert await context.exists(b"0")
            if looks < 3:
                await bump(platform.canonical, b"1", looks)
            assert (await context.get(b"1")).as_i64() == 2

        result = await client.canonical.transaction().keys(MANY).validate(look).preflight()
        assert result.valid
        assert looks == 3


async def test_values_too_large_for_one_message_come_one_by_one(autojump_clock: MockClock) -> None:
    limits = Limits(message_bytes_max=200_000, frame_bytes_max=100_000, value_bytes_max=150_000)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        async with connected_over(network) as client:
            large = {b"a": Bytes(bytes(90_000)), b"b": Bytes(bytes(120_000))}
            await platform.canonical.transaction().keys(large).execute(setting(dict(large)))

            async def body(ctx: TransactionContext) -> None:
                for key, value in large.items():
                    assert await ctx.get(key) == value
                ctx.set(b"a", I64(1))

            await client.canonical.transaction().keys(large).execute(body)
            wide = [b"%0500d" % number for number in range(500)]
            declared = client.canonical.transaction().keys(wide)
            with pytest.raises(LimitExceededError):
                await declared.require_exists(b"a").execute(nothing)


async def test_the_whole_state_and_the_keys_looked_at_are_of_one_moment(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform, connected(platform) as client:
        await put(platform.canonical, a=1)

        async def look_then_scan(ctx: TransactionContext) -> None:
            await ctx.get(b"a")
            await bump(platform.canonical, b"other", 1)
            await ctx.iter_state()

        async def scan_then_look(ctx: TransactionContext) -> None:
            async with await ctx.iter_state() as pairs:
                assert (await pairs.next() or (b"",))[0] == b"a"
            await bump(platform.canonical, b"other", 2)
            await ctx.get(b"a")

        for body in (look_then_scan, scan_then_look):
            with pytest.raises(TransactionConflictError) as caught:
                await client.canonical.transaction().keys([b"a"]).execute(body, attempts_max=1)
            assert caught.value.key == b""
        await trio.sleep(1)
        assert platform.sources.snapshots.floors() == [], "nothing is held for them"


async def test_a_lost_server_is_no_objection(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network, attempts_max=2) as client:
            network.is_down = True
            await network.cut()
            transaction = client.canonical.transaction().require_exists(b"a")
            with pytest.raises(UnavailableError):
                await transaction.preflight()
            with pytest.raises(UnavailableError):
                await transaction.execute(nothing)
            network.is_down = False
            with pytest.raises(PreflightFailedError):
                await transaction.execute(nothing)


async def test_one_that_hangs_or_is_cancelled_holds_nobody_up(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, connected(platform) as client:
        await put(platform.canonical, a=1)

        async def hang(ctx: TransactionContext) -> None:
            ctx.set(b"a", I64((await ctx.get(b"a")).as_i64() + 1))
            pairs = await ctx.iter_state()
            assert await pairs.next() is not None
            await trio.sleep_forever()

        with trio.move_on_after(1):
            await client.canonical.transaction().keys([b"a"]).execute(hang)
        with trio.fail_after(60):
            await platform.canonical.pause_ingestion()
        await trio.sleep(1)
        assert platform.canonical.lock_manager().held == 0
        assert platform.sources.snapshots.floors() == []
        assert await value_of(platform.canonical, b"a") == 1
