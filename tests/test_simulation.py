"""Random lives of one platform, whose writers, followers and disks come and go. No real time.

Writers give up and retry, followers stop and resume, disks fail and fill up, the log is pruned.
Hypothesis makes the trio scheduler deterministic, so a failing life is printed as a list of
steps, shrunk, and fails again when it is lived again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from exo_stream import Platform, Producer
from exo_stream.errors import BatchEvictedError, ExoStreamError, PlatformClosedError
from exo_stream.feed import Progress, SnapshotEnd, SnapshotPage
from exo_stream.limits import Limits
from exo_stream.model import Batch, Cursor
from exo_stream.testing import FakeClock, FaultyHop
from tests.worlds import FaultyEngine, in_memory

Verb = Literal[
    "write", "give up", "follow", "unfollow", "snapshot", "fail", "fill up", "make room",
    "prune", "wait", "restart",
]  # fmt: skip
Step = tuple[Verb, int]
VERBS: list[Verb] = [
    "write", "write", "write", "give up", "follow", "unfollow", "snapshot", "fail", "fill up",
    "make room", "prune", "wait", "wait", "restart",
]  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 5)), max_size=60)
LIMITS = Limits(
    waiting_writes_max=3,
    group_batches_max=2,
    page_rows_max=3,
    tail_batches_max=4,
    snapshots_max=3,
)
PREFIXES = [b"", b"", b"w0", b"w1", b"w1/", b"w"]


@dataclass(slots=True)
class Writer:
    """Writes its numbers one after the other, each until it knows what became of it."""

    name: bytes
    wanted: int = 0
    acknowledged: dict[int, int] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self, platform: Platform) -> None:
        while True:
            seq = len(self.acknowledged)
            if seq >= self.wanted:
                await trio.sleep(0.2)
                continue
            with trio.CancelScope() as self.scope:
                try:
                    self.acknowledged[seq] = await platform.write(
                        puts=[(self.name + b"/%d" % (seq % 3), b"%d" % seq)],
                        producer=Producer(self.name, 0, seq),
                    )
                except PlatformClosedError:
                    return
                except ExoStreamError:
                    await trio.sleep(0.5)


@dataclass(slots=True)
class Follower:
    """Follows from its last cursor, restart after restart; notes what it was given."""

    prefix: bytes
    snapshot: bool = False
    cursor: Cursor | None = None
    since: int = 0
    """Everything after this was delivered, or is still to come."""
    seen: list[tuple[int, list[tuple[bytes, bytes | None]]]] = field(default_factory=list)
    table: dict[bytes, bytes | None] = field(default_factory=dict)
    evicted: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self, platform: Platform) -> None:
        with self.scope:
            try:
                await self._follow(platform)
            except BatchEvictedError:
                self.evicted = True
            except ExoStreamError:
                pass

    async def _follow(self, platform: Platform) -> None:
        start: dict[str, Any] = {"after": self.cursor} if self.cursor else {}
        snapshot = self.snapshot and not self.cursor
        async with platform.subscribe(prefix=self.prefix, snapshot=snapshot, **start) as feed:
            if self.cursor is None and feed.cursor is not None:
                self.since = feed.cursor.sequence
            if snapshot:
                self.table.clear()
            async for message in feed.messages():
                match message:
                    case SnapshotPage(entries=entries):
                        self.table.update((entry.key, entry.value) for entry in entries)
                    case SnapshotEnd(cursor):
                        self.since = cursor.sequence
                        self.cursor = cursor
                    case Batch():
                        pairs = [(entry.key, entry.value) for entry in message.entries]
                        self.seen.append((message.sequence, pairs))
                        self.table.update(pairs)
                        self.cursor = message.cursor
                    case Progress(cursor):
                        self.cursor = cursor
                    case _:
                        pass


@dataclass(slots=True)
class Life:
    """What lives from one restart to the next."""

    engine: FaultyEngine = field(default_factory=FaultyEngine)
    clock: FakeClock = field(default_factory=FakeClock)
    writers: list[Writer] = field(default_factory=lambda: [Writer(b"w%d" % n) for n in range(3)])
    followers: list[Follower] = field(default_factory=list)

    async def live(self, steps: list[Step]) -> None:
        while steps:
            await self._until_restart(steps)
        self.engine.full = False
        await self._until_restart([("wait", 30), *[("follow", n) for n in range(6)], ("wait", 30)])

    async def _until_restart(self, steps: list[Step]) -> None:
        hop = FaultyHop(latency=0.003)
        async with in_memory(self.engine)(limits=LIMITS, hop=hop, clock=self.clock) as platform:
            async with trio.open_nursery() as nursery:
                for writer in self.writers:
                    nursery.start_soon(writer.run, platform)
                for follower in self.followers:
                    follower.scope = trio.CancelScope()
                    nursery.start_soon(follower.run, platform)
                while steps:
                    verb, number = steps.pop(0)
                    if verb == "restart":
                        break
                    await self._step(verb, number, platform, hop, nursery)
                nursery.cancel_scope.cancel()
        # What a crash in the middle of "no space" left behind is what a reopening finds.
        self.engine.forget_what_is_not_visible()
        self.engine.full = False

    async def _step(
        self, verb: Verb, number: int, platform: Platform, hop: FaultyHop, nursery: trio.Nursery
    ) -> None:
        match verb:
            case "write":
                self.writers[number % 3].wanted += number
            case "give up":
                self.writers[number % 3].scope.cancel()
            case "follow" | "snapshot":
                follower = Follower(PREFIXES[number], snapshot=verb == "snapshot")
                self.followers.append(follower)
                nursery.start_soon(follower.run, platform)
            case "unfollow" if self.followers:
                self.followers[number % len(self.followers)].scope.cancel()
            case "fail":
                hop.failures += 1
            case "fill up":
                self.engine.full = True
                self.engine.faults.append("full, kept" if number % 2 else "full, lost")
            case "make room":
                self.engine.full = False
            case "prune":
                nursery.start_soon(prune, platform, platform.cursor.sequence - number)
            case "wait":
                self.clock.advance(number - 1)
                await trio.sleep(number / 2)
            case _:
                pass

    async def check(self) -> None:
        """The log is exactly what was acknowledged; each follower had its part, or was told."""
        async with in_memory(self.engine)(limits=LIMITS) as platform:
            written = {
                number: (writer.name + b"/%d" % (seq % 3), b"%d" % seq)
                for writer in self.writers
                for seq, number in writer.acknowledged.items()
            }
            assert [len(writer.acknowledged) for writer in self.writers] == [
                writer.wanted for writer in self.writers
            ]
            assert sorted(written) == list(range(1, await platform.current_sequence() + 1))
            table = dict(written[number] for number in sorted(written))
            assert dict(await platform.range_scan()) == table
            for follower in self.followers:
                expected = [
                    (number, [pair])
                    for number, pair in sorted(written.items())
                    if number > follower.since and pair[0].startswith(follower.prefix)
                ]
                assert follower.seen == expected[: len(follower.seen)], "no gap, no duplicate"
            for follower in self.followers[-6:]:
                assert follower.evicted or len(follower.seen) == len(
                    [n for n in written if n > follower.since and written[n][0].startswith(
                        follower.prefix)]
                )  # fmt: skip
                assert not follower.evicted, "a relative start is never evicted by itself"


async def prune(platform: Platform, cutoff: int) -> None:
    """Prune, if the disk allows."""
    try:
        await platform.prune_batch_log(max(0, cutoff))
    except ExoStreamError:
        pass


async def live_and_check(steps: list[Step]) -> None:
    life = Life()
    await life.live(list(steps))
    await life.check()


@pytest.mark.slow
@settings(max_examples=150)
@given(STEPS)
def test_deliveries_are_exactly_what_was_acknowledged_or_an_explicit_eviction(
    steps: list[Step],
) -> None:
    trio.run(live_and_check, steps, clock=MockClock(autojump_threshold=0))
