"""Nothing wakes a projection but events, and none of them in vain: lives of many orders."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from exo_stream import Platform
from exo_stream.canonical.projection import Projector
from exo_stream.canonical.projection_rules import (
    DeadLetterQueue,
    ErrorStrategy,
    ProjectorConfig,
    ReplayConfig,
    RetryWithBackoff,
)
from exo_stream.limits import Limits
from tests.projections import TABLES, Handler, append, projecting, seen
from tests.worlds import in_memory

EVENTS = 15
TIGHT = Limits(page_rows_max=3)
STRATEGIES: tuple[ErrorStrategy, ...] = (
    RetryWithBackoff(max_retries=9, initial_delay_ms=10),
    DeadLetterQueue(),
)


class Life:
    """A writer, and stops, rebuilds and rests beside a projection, as the dice say.

    The mock clock jumps where everybody waits, so that a projection that missed a wake-up has
    waited for ever: nobody comes to its help.
    """

    def __init__(self, seed: int, platform: Platform) -> None:
        self.dice = random.Random(seed)
        self.platform = platform
        self.written = 0

    async def pause(self) -> None:
        """Some steps of the others, and now and then all there are."""
        if self.dice.random() < 0.2:
            await trio.sleep(self.dice.random())
        for _ in range(self.dice.randrange(6)):
            await trio.lowlevel.checkpoint()

    async def write(self) -> None:
        while self.written < EVENTS:
            count = min(self.dice.randint(1, 3), EVENTS - self.written)
            first, self.written = self.written, self.written + count
            await append(self.platform.canonical, *[b"%d" % n for n in range(first, first + count)])
            await self.pause()

    async def disturb(self, projector: Projector) -> None:
        for _ in range(3):
            await self.pause()
            match self.dice.randrange(5):
                case 0:
                    projector.shutdown()
                    await self.pause()
                    projector.resume()
                case 1:
                    await projector.rebuild()
                case 2:
                    with trio.move_on_after(0):
                        await projector.rebuild()
                case 3:
                    await projector.run_once()
                case _:
                    async with projector.at_rest():
                        await self.pause()

    def config(self) -> ProjectorConfig:
        return ProjectorConfig(
            batch_events_max=self.dice.randint(1, 5),
            batch_wait_ms=self.dice.choice([0, 0, 20]),
            error_strategy=self.dice.choice(STRATEGIES),
            replay=self.dice.choice([None, ReplayConfig(check_interval_ms=5, initial_delay_ms=1)]),
        )

    async def run(self, folder: Path) -> None:
        async with projecting(self.platform, folder) as projections:
            handler = Handler(dict.fromkeys(self.dice.sample(range(EVENTS), 2), 1))
            projector = await projections.add("a", handler, tables=TABLES, config=self.config())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.write)
                nursery.start_soon(self.disturb, projector)
            with trio.fail_after(1_000):
                await projector.wait_applied(EVENTS - 1)
            rows: list[Any] = [number for number, _ in await seen(projector)]
            aside = [letter.event_id for letter in await projector.dead_letters()]
            assert sorted(rows + aside) == list(range(EVENTS))
            assert (await projector.status()).lag == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
async def test_no_event_is_missed_or_applied_twice_whatever_happens_beside(
    tmp_path: Path, autojump_clock: MockClock, seed: int
) -> None:
    async with in_memory()(limits=TIGHT) as platform:
        await Life(seed, platform).run(tmp_path)


@pytest.mark.slow
async def test_an_event_at_any_step_of_going_to_sleep_wakes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A second event comes so many steps after the first, and nothing comes after it."""
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", Handler(), tables=TABLES)
        with trio.fail_after(1_000):  # a wake-up that is missed is a jump of the clock to here
            for steps in range(40):
                await append(platform.canonical, b"first")
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                await append(platform.canonical, b"second")
                await projector.wait_applied(2 * steps + 1)
