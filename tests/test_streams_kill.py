"""Killed at any moment: all that was acknowledged of streams is there, once, and nothing half."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.storage.verify import verify
from exo_stream.stream_errors import StreamGoneError, StreamNotFoundError
from exo_stream.streams.verify import StreamCheck
from tests.stream_worlds import check_streams
from tests.torture import streamer, workload
from tests.torture.life import SYSCALLS, AtMoment, AtSyscall, Death, can_trace, live
from tests.torture.streamer import CYCLE, PRODUCERS, SHARED, messages_of, stream_of

KILLS = 20

EXPECTED: dict[str, tuple[str, str]] = {
    # After a step: the source and the fork, as data and state; "" is open, "-" not there.
    "": ("-", "-"),
    "make": ("onetwo", "-"),
    "append": ("onetwothree", "-"),
    "fork": ("onetwothree", "onetwothree!"),
    "shut": ("onetwothree", "onetwothree!end closed"),
    "expiring": ("onetwothree", "onetwothree!end closed"),
    "remove": ("gone", "onetwothree!end closed"),
    "unfork": ("-", "-"),
}


class Journal:
    """What the children have said, over their lives."""

    def __init__(self) -> None:
        self.tried = [-1] * PRODUCERS
        self.acknowledged = [-1] * PRODUCERS
        self.duplicates = 0
        self.cycle = 0
        self.begun = ""
        self.done = ""
        self.abandoned: set[int] = set()

    @property
    def numbers(self) -> list[int]:
        return [seq + 1 for seq in self.acknowledged]

    def hear(self, line: str) -> None:
        match line.split():
            case ["started", _] | ["opened"]:
                pass
            case ["try", producer, seq]:
                self.tried[int(producer)] = int(seq)
            case ["ack", producer, seq, duplicate]:
                self.acknowledged[int(producer)] = int(seq)
                self.duplicates += int(duplicate)
            case ["do", cycle, step]:
                self.cycle, self.begun = int(cycle), step
                self.done = self.done if step != CYCLE[0] else ""
            case ["did", _, step]:
                self.done = step
            case _:
                raise AssertionError(line)


async def seen(platform: Platform, name: str) -> str:
    """A stream in a few words."""
    try:
        page = await platform.streams.read(name)
    except StreamNotFoundError:
        return "-"
    except StreamGoneError:
        return "gone"
    return page.body.decode() + (" closed" if page.closed else "")


async def check_appends(platform: Platform, journal: Journal) -> None:
    """Of every producer all numbers up to one are there, once each, whole, in their order."""
    found: list[list[list[bytes]]] = [[] for _ in range(PRODUCERS)]
    for name in SHARED:
        if not await platform.streams.exists(name):
            assert journal.acknowledged == [-1] * PRODUCERS
            continue
        offset = "-1"
        while True:
            page = await platform.streams.read(name, offset)
            for part in page.stored:
                together = [data for _, data in part.messages()]
                producer = int(together[0].partition(b":")[0])
                assert stream_of(producer) == name
                found[producer].append(together)
            offset = str(page.next_offset)
            if page.up_to_date:
                break
    for producer, appends in enumerate(found):
        assert appends == [messages_of(producer, seq) for seq in range(len(appends))]
        acknowledged, tried = journal.acknowledged[producer], journal.tried[producer]
        assert acknowledged < len(appends) <= max(tried, acknowledged) + 1, producer


async def check_cycle(platform: Platform, journal: Journal) -> None:
    """What was done to the streams of the last cycle is done, and what was begun all or not."""
    names = [f"cycle/{journal.cycle}/{name}" for name in ("s", "f", "e")]
    state = (await seen(platform, names[0]), await seen(platform, names[1]))
    assert state in {EXPECTED[journal.done], EXPECTED[journal.begun]}, (journal.done, journal.begun)
    assert await seen(platform, names[2]) == "-"
    journal.abandoned.add(journal.cycle)
    for cycle in set(range(journal.cycle)) - journal.abandoned:
        assert await seen(platform, f"cycle/{cycle}/s") == "-"
        assert await seen(platform, f"cycle/{cycle}/f") == "-"


async def check(path: Path, journal: Journal) -> None:
    report = verify(path, faces=(StreamCheck,))
    assert report.sound, report
    async with open_platform(path, limits=workload.LIMITS) as platform:
        await check_appends(platform, journal)
        await check_cycle(platform, journal)
        for producer, seq in enumerate(journal.acknowledged):
            if seq >= 0:
                before = (await platform.streams.head(stream_of(producer))).next_offset
                assert await streamer.append(platform.streams, producer, seq)
                after = (await platform.streams.head(stream_of(producer))).next_offset
                assert after == before
        await check_streams(platform)


def some_death(dice: random.Random) -> Death:
    if can_trace() and dice.random() < 0.6:
        name = dice.choice(SYSCALLS[:3])
        # Only a CHECKPOINT calls pwrite64, and they are seldom.
        return AtSyscall(name, dice.randint(1, 10) if name == "pwrite64" else dice.randint(20, 150))
    return AtMoment(dice.randint(5, 900), dice.uniform(0, 0.005))


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["first", "second"])
async def test_streams_survive_kills(seed: str, tmp_path: Path) -> None:
    dice, journal, path = random.Random(seed), Journal(), tmp_path / "feed.duckdb"
    for _ in range(KILLS):
        numbers = map(str, [*journal.numbers, journal.cycle + 1])
        command = [sys.executable, "-m", "tests.torture.streamer", str(path), *numbers]
        ended = await live(command, journal.hear, some_death(dice))
        assert ended.killed, ended
        if path.exists():
            await check(path, journal)
    assert min(journal.acknowledged) > KILLS
    assert journal.duplicates  # appends whose acknowledgement was lost took effect once
    assert journal.cycle > KILLS
