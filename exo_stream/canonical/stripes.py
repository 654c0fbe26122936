"""Stripe locks: keys are locked by their hash, many at once, without a deadlock.

Two transactions that declare the same key wait for one another before they read, instead of
finding out in the end that they are in conflict. The locks are advice: whoever writes without
them is caught by the versions that a decision checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

import trio
import xxhash

from exo_stream.canonical.fair_lock import FairLock
from exo_stream.errors import ConfigError, InvalidRequestError, LockTimeoutError

STRIPES: Final = 256


class LockGuard:
    """Some stripes, held until the block is left or ``release`` is called."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: list[FairLock] = []

    def release(self) -> None:
        """Let go; a second time it does nothing."""
        locks, self._locks = self._locks, []
        for lock in locks:
            lock.release()

    def take(self, lock: FairLock) -> None:
        """Answer for a lock that was acquired."""
        self._locks.append(lock)

    def __len__(self) -> int:
        return len(self._locks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class LockManager:
    """The stripes of one store. Locks are exclusive and not re-entrant, given in order of asking.

    A wait ends after ``lock_timeout_ms`` for all keys together, or earlier with the caller's own
    deadline.
    """

    def __init__(self, stripe_count: int = STRIPES, lock_timeout_ms: int = 5_000) -> None:
        if type(stripe_count) is not int or stripe_count < 1:
            raise ConfigError("there is at least one stripe")
        if type(lock_timeout_ms) is not int or lock_timeout_ms < 0:
            raise ConfigError("a lock timeout is a number of milliseconds from 0 on")
        self.stripe_count = stripe_count
        self.lock_timeout_ms = lock_timeout_ms
        self._stripes = [FairLock() for _ in range(stripe_count)]

    def stripe_of(self, key: bytes) -> int:
        """The stripe of a key, the same in every process."""
        if type(key) is not bytes:
            raise InvalidRequestError("keys are bytes")
        return xxhash.xxh3_64_intdigest(key) % self.stripe_count

    @property
    def held(self) -> int:
        """How many stripes are held."""
        return sum(1 for stripe in self._stripes if stripe.holder)

    async def lock(self, key: bytes) -> LockGuard:
        """Lock one key; use it as ``with await locks.lock(key):``."""
        return await self.acquire_keys([key])

    async def acquire_keys(self, keys: Iterable[bytes]) -> LockGuard:
        """Lock all of ``keys``, none if there are none; ``with await locks.acquire_keys(keys):``.

        Raises LockTimeoutError, which names the key that was not to be had and who held it;
        then, and when cancelled, nothing is held.
        """
        by_stripe = {self.stripe_of(key): key for key in keys}
        guard = LockGuard()
        name = trio.lowlevel.current_task().name
        deadline = trio.current_time() + self.lock_timeout_ms / 1000
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            for stripe in sorted(by_stripe):
                lock = self._stripes[stripe]
                if not lock.try_acquire(name):
                    await self._wait(lock, name, deadline, by_stripe[stripe])
                guard.take(lock)
        except BaseException:
            guard.release()
            raise
        return guard

    async def _wait(self, lock: FairLock, name: str, deadline: float, key: bytes) -> None:
        if not await lock.acquire(name, deadline):
            raise LockTimeoutError(self.lock_timeout_ms, key, lock.holder)
