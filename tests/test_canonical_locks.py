"""Stripe locks: no deadlock, one timeout for all keys, first come first served, nothing left.

Named AC-4 are the acceptance cases of that section.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.canonical.fair_lock import FairLock
from exo_stream.canonical.stripes import LockManager
from exo_stream.errors import ConfigError, InvalidRequestError, LockTimeoutError


@pytest.mark.slow
def test_ac4_there_are_256_stripes_and_a_key_has_always_the_same() -> None:
    locks = LockManager()
    assert locks.stripe_count == 256
    stripes = [locks.stripe_of(b"key/%d" % n) for n in range(5_000)]
    assert stripes == [LockManager().stripe_of(b"key/%d" % n) for n in range(5_000)]
    assert set(stripes) == set(range(256)), "every stripe is used"


async def test_ac4_no_keys_and_the_same_key_twice_are_fine() -> None:
    locks = LockManager()
    with await locks.acquire_keys([]) as guard:
        assert len(guard) == 0
    with await locks.acquire_keys([b"a", b"a"]) as guard:
        assert len(guard) == locks.held == 1
    assert locks.held == 0
    with await locks.lock(b"a"):
        assert locks.held == 1
    guard.release()


async def test_ac4_opposite_orders_never_deadlock(autojump_clock: MockClock) -> None:
    locks = LockManager()
    done: list[int] = []

    async def work(keys: Sequence[bytes]) -> None:
        for _ in range(100):
            with await locks.acquire_keys(keys):
                await trio.lowlevel.checkpoint()
            done.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, [b"a", b"b"])
        nursery.start_soon(work, [b"b", b"a"])
    assert len(done) == 200
    assert trio.current_time() - autojump_clock.current_time() == 0


async def test_ac4_a_wait_ends_with_an_error_that_names_key_and_holder(
    autojump_clock: MockClock,
) -> None:
    locks = LockManager(stripe_count=1, lock_timeout_ms=50)

    async def hold(task_status: trio.TaskStatus[None]) -> None:
        with await locks.acquire_keys([b"mine"]):
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await nursery.start(hold, name="the holder")
        began = trio.current_time()
        with pytest.raises(LockTimeoutError) as caught:
            await locks.acquire_keys([b"yours"])
        assert trio.current_time() - began == pytest.approx(0.05)
        error = caught.value
        assert (error.timeout_ms, error.key, error.holder) == (50, b"yours", "the holder")
        assert locks.held == 1, "the holder's"
        nursery.cancel_scope.cancel()
    assert locks.held == 0


async def test_the_timeout_is_for_all_keys_together(autojump_clock: MockClock) -> None:
    """The original allows so much for each stripe: ten stripes, ten timeouts."""
    locks = LockManager(lock_timeout_ms=1_000)
    keys = sorted([b"disjoint/%d" % n for n in range(10)], key=locks.stripe_of)

    async def hold_one_after_the_other(task_status: trio.TaskStatus[None]) -> None:
        guards = [await locks.lock(key) for key in keys]
        task_status.started()
        for guard in guards:
            await trio.sleep(0.6)
            guard.release()

    async with trio.open_nursery() as nursery:
        await nursery.start(hold_one_after_the_other)
        began = trio.current_time()
        with pytest.raises(LockTimeoutError):
            await locks.acquire_keys(keys)
        assert trio.current_time() - began == pytest.approx(1)


async def test_ac4_ten_holders_of_different_keys_hold_at_the_same_time() -> None:
    """With a barrier: all of them are inside at once, or nobody ever goes on."""
    locks = LockManager()
    keys = [b"disjoint/%d" % n for n in range(10)]
    assert len({locks.stripe_of(key) for key in keys}) == 10
    inside = 0
    all_inside = trio.Event()

    async def hold(key: bytes) -> None:
        nonlocal inside
        with await locks.lock(key):
            inside += 1
            if inside == 10:
                all_inside.set()
            await all_inside.wait()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(hold, key)
    assert locks.held == 0


async def test_a_stripe_is_given_in_the_order_of_asking() -> None:
    locks = LockManager(stripe_count=1)
    order: list[int] = []

    async def take(number: int) -> None:
        with await locks.lock(b"k"):
            order.append(number)

    async with trio.open_nursery() as nursery:
        with await locks.lock(b"k"):
            for number in range(20):
                nursery.start_soon(take, number)
                await wait_all_tasks_blocked()
    assert order == list(range(20))


async def test_x17_a_cancelled_wait_leaves_nothing_behind() -> None:
    locks = LockManager(stripe_count=4)
    keys = [b"%d" % n for n in range(40)]
    with await locks.lock(keys[0]):
        with trio.move_on_after(0):
            await locks.acquire_keys(keys)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(locks.acquire_keys, keys)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert locks.held == 1
    assert locks.held == 0


async def test_who_is_cancelled_just_as_it_is_given_the_lock_hands_it_on() -> None:
    lock = FairLock()
    got: list[str] = []

    async def take(name: str) -> None:
        if await lock.acquire(name, trio.current_time() + 60):
            got.append(name)
            lock.release()

    assert lock.try_acquire("first")
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as doomed:
                doomed.start_soon(take, "doomed")
                await wait_all_tasks_blocked()
                nursery.start_soon(take, "next")
                await wait_all_tasks_blocked()
                assert lock.waiting == 2
                scope.cancel()
                lock.release()
        with trio.fail_after(60):
            await wait_all_tasks_blocked()
    assert got == ["next"]
    assert (lock.holder, lock.waiting) == ("", 0)


LIVES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 5), max_size=4), st.integers(0, 3), st.sampled_from([0.5, 1.5, 99])
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60)
@given(LIVES)
def test_whoever_comes_and_gives_up_no_two_hold_a_stripe_and_none_is_lost(
    lives: list[tuple[list[int], int, float]],
) -> None:
    locks = LockManager(stripe_count=3, lock_timeout_ms=2_000)
    holders: dict[int, int] = {}
    named: list[tuple[bytes, list[bytes]]] = []

    async def work(number: int, keys: list[bytes], busy: int, patience: float) -> None:
        stripes = {locks.stripe_of(key) for key in keys}
        with trio.move_on_after(patience):
            try:
                with await locks.acquire_keys(keys):
                    for stripe in stripes:
                        assert stripe not in holders
                        holders[stripe] = number
                    try:
                        await trio.sleep(busy)
                    finally:
                        for stripe in stripes:
                            del holders[stripe]
            except LockTimeoutError as error:
                named.append((error.key, keys))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number, (keys, busy, patience) in enumerate(lives):
                nursery.start_soon(work, number, [b"%d" % key for key in keys], busy, patience)
        assert locks.held == 0
        assert all(key in keys for key, keys in named)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("count", [0, -1, True, "4"])
def test_there_is_at_least_one_stripe(count: int) -> None:
    """The original takes one for none, and warns."""
    with pytest.raises(ConfigError, match="at least one stripe"):
        LockManager(stripe_count=count)
    with pytest.raises(ConfigError, match="milliseconds"):
        LockManager(lock_timeout_ms=-1)


async def test_keys_are_bytes() -> None:
    locks = LockManager()
    with pytest.raises(InvalidRequestError):
        await locks.acquire_keys(["text"])  # type: ignore[list-item]  # what is refused
    assert locks.held == 0
