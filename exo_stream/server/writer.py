"""The writes of one connection: handed to the platform in their order, as many as have come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import outcome
import trio

from exo_stream.errors import ExoStreamError
from exo_stream.limits import Limits
from exo_stream.protocol.failures import failure
from exo_stream.protocol.messages import Failure, Write, Written
from exo_stream.writes import LargeWrite, StoreWrite, begin_write

if TYPE_CHECKING:
    from exo_stream.server.conversation import Conversation

Done = Callable[[], None]


class Writer:
    """Collects while the last ones are being made durable; then it takes all that came."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._waiting: list[tuple[Sequence[Write], Done]] = []
        self._come = trio.Event()

    def take(self, writes: Sequence[Write], done: Done) -> None:
        """Have ``writes`` done behind those that came before; then ``done`` is called."""
        self._waiting.append((writes, done))
        self._come.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._come.wait()
            self._come = trio.Event()
            frames, self._waiting = self._waiting, []
            try:
                await self._write([write for writes, _ in frames for write in writes])
            finally:
                for _, done in frames:
                    done()

    async def _write(self, asked: Sequence[Write]) -> None:
        replies: list[Written | Failure] = []
        writes: list[StoreWrite] = []
        ids: list[int] = []
        for write in asked:
            try:
                checked = _begun(write, self._conversation.limits)
                while isinstance(checked, LargeWrite):
                    await trio.lowlevel.checkpoint()
                    checked = checked.step()
                writes.append(checked)
                ids.append(write.id)
            except ExoStreamError as error:
                replies.append(failure(write.id, error))
        for id_, result in zip(ids, await self._submit(writes), strict=True):
            if isinstance(result, outcome.Value):
                replies.append(Written(id_, result.value))
            else:
                assert isinstance(result, outcome.Error), result
                assert isinstance(result.error, Exception), result.error
                replies.append(failure(id_, result.error))
        await self._conversation.send(*replies)

    async def _submit(self, writes: Sequence[StoreWrite]) -> list[outcome.Outcome[int]]:
        if not writes:
            await trio.lowlevel.checkpoint()
            return []
        return await self._conversation.platform.write_many(writes)


def _begun(write: Write, limits: Limits) -> StoreWrite | LargeWrite:
    return begin_write(
        limits,
        puts=write.puts,
        deletes=write.deletes,
        require=write.require,
        producer=write.producer,
    )
