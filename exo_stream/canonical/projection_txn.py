"""What a projection's handler works with: its own tables, in the transaction of its cursor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import outcome
import trio

from exo_stream.errors import InvalidStateError
from exo_stream.storage.hop import Hop
from exo_stream.storage.projection_file import ProjectionFile, Rows

T = TypeVar("T")

_INTERRUPT_SECONDS: Final = 0.01


class ProjectionTxn:
    """One transaction over the tables of one projection, committed together with its cursor.

    The handler does not commit: when it returns, that is done for it; when it raises, hangs or
    is cancelled, everything is undone. A statement that failed, or was given up on, fails the
    transaction, whatever the handler makes of it.
    """

    __slots__ = ("_file", "_hop", "_is_over", "failure")

    def __init__(self, file: ProjectionFile, hop: Hop) -> None:
        self._file = file
        self._hop = hop
        self._is_over = False
        self.failure: BaseException | None = None

    async def execute(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """Run SQL and return its rows, none or the number of rows changed if it has none.

        ``?`` or ``$1`` stand for parameters; whole columns go in as lists, by
        ``INSERT INTO t SELECT unnest(?), unnest(?)``. Raises InvalidRequestError for a statement
        that ends transactions or reaches beyond the file, StoreError if the database refuses.
        """
        if self._is_over:
            raise InvalidStateError("the projection's transaction is over")
        if self.failure is not None:
            raise InvalidStateError("the projection's transaction has failed") from self.failure
        try:
            call = partial(self._file.execute, sql, tuple(parameters))
            return await interruptible(self._hop, call, self._file.interrupt)
        except BaseException as error:
            self.failure = error
            raise

    def close(self) -> None:
        """Nothing more may be done in it."""
        self._is_over = True


async def interruptible(hop: Hop, call: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """Run ``call`` in the thread; when the caller is cancelled, ``interrupt`` ends it there."""
    finished = False

    async def watch() -> None:
        try:
            await trio.sleep_forever()
        finally:
            # Again and again: what was interrupted before it began would run on.
            while not finished:
                interrupt()
                with trio.move_on_after(1, shield=True):
                    await trio.sleep(_INTERRUPT_SECONDS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            result = await hop(lambda: outcome.capture(call))
        finally:
            finished = True
        nursery.cancel_scope.cancel()
    return result.unwrap()
