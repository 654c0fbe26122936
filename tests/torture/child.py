"""The child: a process that opens a file, writes, and says aloud what it was told.

``python -m tests.torture.child ASSIGNMENT`` where the assignment is JSON. It is killed while it
runs; whatever it has said on its standard output, it has said before.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog
import trio

from exo_stream.errors import (
    ExoStreamError,
    OutcomeUnknownError,
    OverloadedError,
    PlatformClosedError,
    StoreError,
)
from exo_stream.model import Batch
from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.producers import Producer
from tests.torture import workload

RETRY_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a child is to do: which file, where each writer goes on, and how long.

    Each of the writers writes ``batches``. With ``keep`` the log is pruned to about so many. A
    write that is refused is tried again as the same producer, up to ``tries`` times.
    ``limits`` are changes to those of the workload.
    """

    path: str
    seed: str
    first_numbers: list[int]
    batches: int
    keep: int | None = None
    tries: int = 1_000_000
    limits: dict[str, int] = field(default_factory=dict)

    def command(self) -> list[str]:
        """How to start a child with this assignment, from the top of the checkout."""
        return [sys.executable, "-m", "tests.torture.child", json.dumps(asdict(self))]


def say(*words: object) -> None:
    """Tell the parent, at once: what is in the pipe outlives us."""
    os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


async def main(assignment: Assignment) -> None:
    """Open, write until done, close; nothing is caught but what stops the platform."""
    say("started", os.getpid())
    limits: dict[str, Any] = {
        name: getattr(workload.LIMITS, name) for name in workload.LIMITS.__slots__
    }
    limits.update(assignment.limits)
    try:
        async with open_platform(assignment.path, limits=type(workload.LIMITS)(**limits)) as store:
            information = await store.info()
            frontier = information.frontier
            say("opened", store.log_id, frontier, information.oldest or frontier + 1)
            await _work(store, assignment)
    except ExoStreamError as error:
        say("stopped", error.code)
    else:
        say("closed")


async def _work(store: Platform, assignment: Assignment) -> None:
    newest = [0] * len(assignment.first_numbers)
    async with trio.open_nursery() as observers:
        observers.start_soon(_follow, store)
        observers.start_soon(_scan, store)
        if assignment.keep is not None:
            observers.start_soon(_prune, store, newest, assignment.keep)
        async with trio.open_nursery() as writers:
            for writer in range(len(newest)):
                writers.start_soon(_write, store, assignment, writer, newest)
        observers.cancel_scope.cancel()


async def _write(store: Platform, assignment: Assignment, writer: int, newest: list[int]) -> None:
    first = assignment.first_numbers[writer]
    # Once more the last that was acknowledged: it must be told the same number.
    for number in range(max(0, first - 1), first + assignment.batches):
        for _ in range(assignment.tries):
            say("try", writer, number)
            try:
                sequence = await _write_one(store, assignment.seed, writer, number)
            except ExoStreamError as error:
                say("refused", writer, number, error.code)
                if error.code == "platform_closed":
                    return
                await trio.sleep(RETRY_SECONDS)
            else:
                say("ack", writer, number, sequence)
                newest[writer] = sequence
                break
        else:
            return
        with suppress(OverloadedError, PlatformClosedError):
            await _read_back(store, writer, number, newest[writer])


async def _write_one(store: Platform, seed: str, writer: int, number: int) -> int:
    work = workload.work(seed, writer, number)
    producer = Producer(b"writer %d" % writer, epoch=0, seq=number)
    return await store.write(puts=work.puts, deletes=work.deletes, producer=producer)


async def _read_back(store: Platform, writer: int, number: int, sequence: int) -> None:
    """Whoever holds an acknowledgement reads its own write, and knows its version."""
    found = await store.get_entry(workload.author_key(writer), min_sequence=sequence)
    assert found.version >= sequence, (found, sequence)
    if found.version == sequence:
        assert found.value is not None
        assert int(found.value.split()[0]) == number, (found, number)
    say("shown", found.sequence)


async def _follow(store: Platform) -> None:
    """What a follower has seen is durable, and has no gap; it comes back if it could not read."""
    cursor = store.cursor
    while True:
        with suppress(OverloadedError, PlatformClosedError):
            async with store.subscribe(after=cursor) as feed:
                async for batch in feed:
                    expected = cursor.sequence + 1
                    assert batch.sequence == expected, (batch.sequence, expected)
                    assert isinstance(batch, Batch)
                    cursor = batch.cursor
                    say("shown", batch.sequence)
        await trio.sleep(RETRY_SECONDS)


async def _scan(store: Platform) -> None:
    """Keep Versions pinned, as readers do; a file that failed cannot be read for a while."""
    while True:
        with suppress(OverloadedError, PlatformClosedError):
            async with store.scan() as rows:
                last = b""
                async for key, _ in rows:
                    assert key > last, (key, last)
                    last = key
        await trio.sleep(RETRY_SECONDS)


async def _prune(store: Platform, newest: list[int], keep: int) -> None:
    """Prune below what every writer has been told of, so that the journal knows what is gone."""
    while True:
        await trio.sleep(RETRY_SECONDS)
        cutoff = min(newest) - keep
        if cutoff > 1:
            say("prune", cutoff)
            with suppress(StoreError, OutcomeUnknownError, PlatformClosedError):
                say("pruned", cutoff, await store.prune_batch_log(cutoff))


def run(main: Callable[[Assignment], Any], text: str) -> None:
    """Run ``main`` with the assignment that ``text`` holds."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, Assignment(**json.loads(text)))


if __name__ == "__main__":
    run(main, sys.argv[1])
