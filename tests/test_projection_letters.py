"""Dead letters: listed in pages, replayed one by one, all, or by themselves when they are due."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from exo_stream.canonical.projection import Projector
from exo_stream.canonical.projection_rules import (
    DeadLetterQueue,
    Event,
    ProjectorConfig,
    ReplayConfig,
    RunStats,
)
from exo_stream.canonical.projection_txn import ProjectionTxn
from exo_stream.canonical.projections import open_projections
from exo_stream.errors import (
    InvalidRequestError,
    InvalidStateError,
    OutcomeUnknownError,
    ProjectionError,
    StoreFullError,
)
from exo_stream.storage.dead_letter import DeadLetter
from exo_stream.storage.hop import Hop
from tests.projections import TABLES, Handler, append, projecting, see, seen
from tests.worlds import in_memory

pytestmark = pytest.mark.slow  # files are made

T = TypeVar("T")

ASIDE = ProjectorConfig(error_strategy=DeadLetterQueue(), replay_retries_max=2)


def microseconds() -> int:
    """A wall clock that goes with a mock clock."""
    return round(trio.current_time() * 1_000_000)


async def ids(projector: Projector) -> list[int]:
    return [letter.event_id for letter in await projector.dead_letters()]


async def test_one_letter_is_replayed_though_it_be_permanent(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler({1: 4, 2: 9})
        projector = await projections.add("seen", handler, tables=TABLES, config=ASIDE)
        await append(platform.canonical, b"0", b"1", b"2")
        await projector.wait_applied(2)
        for retries in (1, 2):
            with pytest.raises(ProjectionError) as raised:
                await projector.replay_dead_letter(1)
            assert isinstance(raised.value.__cause__, KeyError)
            [letter, _] = await projector.dead_letters()
            assert (letter.retry_count, letter.permanent) == (retries, retries == 2)
        assert (await projector.replay_dead_letters()).events_skipped == 1, "the other one"
        handler.bad[1] = 0
        await projector.replay_dead_letter(1)
        assert await ids(projector) == [2]
        assert [number for number, _ in await seen(projector)] == [0, 1]
        assert projector.cursor == 2
        for absent in (0, 1, 77):
            with pytest.raises(InvalidStateError, match="not put aside"):
                await projector.replay_dead_letter(absent)


async def test_letters_are_listed_in_pages(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add(
            "seen", Handler(dict.fromkeys(range(0, 9, 2), 9)), tables=TABLES, config=ASIDE
        )
        assert await projector.dead_letters() == []
        assert (await projector.replay_dead_letters()).events_applied == 0
        await append(platform.canonical, *[bytes(number) for number in range(9)])
        await projector.wait_applied(8)
        assert await ids(projector) == [0, 2, 4, 6, 8]
        page = await projector.dead_letters(3, 2)
        assert [(one.event_id, one.event_bytes) for one in page] == [(4, bytes(4)), (6, bytes(6))]
        assert await projector.dead_letters(9) == []
        file = projector._kept.file
        assert file is not None

        def sizes(first: int, bytes_max: int) -> list[int]:
            return [len(letter.event_bytes) for letter in file.letters(first, 10, bytes_max)]

        assert sizes(0, 6) == [0, 2, 4]
        assert sizes(1, 5) == [2]
        assert sizes(5, 1) == [6], "one at least"
        for first, limit in ((-1, 1), (1 << 64, 1), (0, 0), (0, 1_001), (True, 1), (0, True)):
            with pytest.raises(InvalidRequestError):
                await projector.dead_letters(first, limit)


async def test_letters_are_replayed_by_themselves_later_and_later(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    tried: list[float] = []

    async def handle(txn: ProjectionTxn, events: Sequence[Event]) -> None:
        await see(txn, events)
        tried.append(trio.current_time() - began)
        if len(tried) < 5:
            raise KeyError(len(tried))

    config = ProjectorConfig(
        error_strategy=DeadLetterQueue(),
        replay=ReplayConfig(check_interval_ms=1_000, initial_delay_ms=2_000, max_delay_ms=6_000),
    )
    began = trio.current_time()
    async with (
        in_memory()(clock=microseconds) as platform,
        projecting(platform, tmp_path) as projections,
    ):
        projector = await projections.add("seen", handle, tables=TABLES, config=config)
        await append(platform.canonical, b"a")
        await projector.wait_applied(0)
        await trio.sleep(21.5)
        assert tried == pytest.approx([0, 2, 6, 12, 18]), "2, 4, 6 and again 6 seconds later"
        assert await projector.dead_letters() == []
        assert await seen(projector) == [(0, b"a")]


async def test_replays_give_way_after_failures_in_a_row_and_to_a_shutdown(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The least replayed go first; a letter that failed as often as it may is left alone."""
    replay = ReplayConfig(
        check_interval_ms=1_000, initial_delay_ms=1, max_delay_ms=1, failures_max=2
    )
    config = ProjectorConfig(error_strategy=DeadLetterQueue(), replay=replay, replay_retries_max=2)
    async with (
        in_memory()(clock=microseconds) as platform,
        projecting(platform, tmp_path) as projections,
    ):
        handler = Handler({0: 9, 1: 9, 2: 1, 3: 9})
        projector = await projections.add("seen", handler, tables=TABLES, config=config)
        await append(platform.canonical, *[b"x"] * 4)
        await projector.wait_applied(3)
        handler.batches.clear()
        await trio.sleep(1.5)
        assert handler.batches == [[0], [1]]
        await trio.sleep(1)
        assert handler.batches[2:] == [[2], [3], [0]]
        projector.shutdown()
        await trio.sleep(5)
        assert len(handler.batches) == 5
        projector.resume()
        await trio.sleep(5)
        assert handler.batches[5:] == [[1], [3]]
        assert [letter.permanent for letter in await projector.dead_letters()] == [True] * 3
        assert [number for number, _ in await seen(projector)] == [2]


class FaultyWrites:
    """A hop in place, of which the next calls with this in their names fail, kept or not."""

    def __init__(self) -> None:
        self.faults: list[tuple[str, type[Exception], bool]] = []

    async def __call__(self, fn: Callable[[], T], /) -> T:
        await trio.lowlevel.checkpoint()
        if not self.faults or self.faults[0][0] not in getattr(fn, "__qualname__", ""):
            return fn()
        _, error, is_kept = self.faults.pop(0)
        if is_kept:
            fn()
        raise error("injected")

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Hop]:
        yield self if name.startswith("writer") else FaultyWrites()


@pytest.mark.parametrize("error", [StoreFullError, OutcomeUnknownError])
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "lost"])
async def test_a_letter_and_the_cursor_are_kept_together_or_not_at_all(
    tmp_path: Path, autojump_clock: MockClock, error: type[Exception], is_kept: bool
) -> None:
    hop = FaultyWrites()
    async with in_memory()() as platform:
        async with open_projections(platform._ground, tmp_path, open_hop=hop.open) as projections:
            handler = Handler({1: 9})
            projector = await projections.add("seen", handler, tables=TABLES, config=ASIDE)
            hop.faults = [("pass_over", error, is_kept)]
            await append(platform.canonical, b"0", b"1", b"2")
            await projector.wait_applied(2)
            assert hop.faults == []
            assert await ids(projector) == [1]
            assert [number for number, _ in await seen(projector)] == [0, 2]
            assert (await projector.status()).dead_letters == 1


@pytest.mark.parametrize("call", ["_commit", "note_replay"])
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "lost"])
async def test_a_replay_whose_file_fails_has_it_opened_again(
    tmp_path: Path, autojump_clock: MockClock, call: str, is_kept: bool
) -> None:
    hop = FaultyWrites()
    async with in_memory()() as platform:
        async with open_projections(platform._ground, tmp_path, open_hop=hop.open) as projections:
            handler = Handler({1: 1 if call == "_commit" else 2})
            projector = await projections.add("seen", handler, tables=TABLES, config=ASIDE)
            await append(platform.canonical, b"0", b"1", b"2")
            await projector.wait_applied(2)
            hop.faults = [(call, OutcomeUnknownError, is_kept)]
            with pytest.raises(OutcomeUnknownError):
                await projector.replay_dead_letter(1)
            assert hop.faults == []
            await append(platform.canonical, b"3")
            await projector.wait_applied(3)
            left = await projector.dead_letters()
            if call == "_commit":
                assert [letter.event_id for letter in left] == [] if is_kept else [1]
            else:
                assert [letter.retry_count for letter in left] == [int(is_kept)]
            await projector.replay_dead_letters()
            assert await ids(projector) == []
            assert sorted([number for number, _ in await seen(projector)]) == [0, 1, 2, 3]


async def test_a_file_that_fails_under_a_replay_by_itself_is_no_end_of_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    hop = FaultyWrites()
    config = ProjectorConfig(
        error_strategy=DeadLetterQueue(), replay=ReplayConfig(check_interval_ms=60_000)
    )
    async with in_memory()(clock=microseconds) as platform:
        async with open_projections(platform._ground, tmp_path, open_hop=hop.open) as projections:
            handler = Handler({0: 1})
            projector = await projections.add("seen", handler, tables=TABLES, config=config)
            await append(platform.canonical, b"0")
            await projector.wait_applied(0)
            hop.faults = [("_commit", StoreFullError, False)]
            await trio.sleep(61)
            assert hop.faults == []
            assert (await projector.status()).state == "running"
            await append(platform.canonical, b"1")  # which opens the file again
            await projector.wait_applied(1)
            await trio.sleep(60)
            assert await projector.dead_letters() == []


async def test_two_who_replay_at_once_apply_each_letter_once(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler(dict.fromkeys(range(5), 1))
        projector = await projections.add("seen", handler, tables=TABLES, config=ASIDE)
        await append(platform.canonical, *[b"x"] * 5)
        await projector.wait_applied(4)
        done: list[RunStats] = []

        async def replay() -> None:
            done.append(await projector.replay_dead_letters())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replay)
            nursery.start_soon(replay)
        assert sum(stats.events_applied for stats in done) == 5
        assert sorted([number for number, _ in await seen(projector)]) == [0, 1, 2, 3, 4]


async def test_what_a_handler_raised_is_kept_in_one_bounded_line(tmp_path: Path) -> None:
    async def handle(_txn: ProjectionTxn, _events: Sequence[Event]) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("first\nsecond " + "x" * 10_000)

    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", handle, tables=TABLES, config=ASIDE)
        await append(platform.canonical, b"0")
        await projector.wait_applied(0)
        [letter] = await projector.dead_letters()
        assert isinstance(letter, DeadLetter)
        assert "raised ValueError: first second xxx" in letter.error_message
        assert len(letter.error_message) < 1_000
        assert "\n" not in letter.error_message
