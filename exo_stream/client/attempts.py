"""How often a transaction from afar is tried when others were faster, and after which pauses."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from exo_stream.errors import InvalidRequestError, TransactionConflictError

ATTEMPTS_MAX: Final = 32
PAUSE_SECONDS_MIN: Final = 0.002
"""The longest pause before the second attempt; it doubles from one to the next."""
PAUSE_SECONDS_MAX: Final = 0.5

T = TypeVar("T")


async def until_it_holds(attempt: Callable[[], Awaitable[T]], attempts_max: int) -> T:
    """The answer of the first attempt that is not in conflict; at most so many are made.

    Between two there is a pause of a random length up to a bound that doubles. Raises the
    TransactionConflictError of the last, and whatever else an attempt raises.
    """
    if type(attempts_max) is not int or attempts_max < 1:
        raise InvalidRequestError("there is at least one attempt")
    number = 1
    while True:
        try:
            return await attempt()
        except TransactionConflictError:
            if number >= attempts_max:
                raise
        longest = min(PAUSE_SECONDS_MIN * 2.0 ** min(number, 32), PAUSE_SECONDS_MAX)
        # Jitter, not a secret.
        await trio.sleep(random.random() * longest)  # noqa: S311  jitter
        number += 1
