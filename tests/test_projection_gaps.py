"""Events that are missing: told by an error of their own, and nothing moves past them unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Platform
from exo_stream.canonical.projection import Projector
from exo_stream.canonical.projection_rules import LogAndSkip, ProjectorConfig
from exo_stream.decision import Write
from exo_stream.errors import EventGapError
from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace
from exo_stream.storage.projection_file import look
from tests.projections import TABLES, Handler, append, projecting, see, seen
from tests.worlds import in_memory, on_file

pytestmark = pytest.mark.slow  # files are made

SKIP = ProjectorConfig(gap_strategy=LogAndSkip())
SMALL_PAGES = Limits(page_rows_max=3)


async def put_events(platform: Platform, values: dict[int, bytes | None]) -> None:
    """What no transaction does: take events away, or put them back."""
    entries = [Entry(Keyspace.EVENT, id_.to_bytes(8, "big"), v) for id_, v in values.items()]
    await platform._ground.decide(lambda _view, _now: Write(entries, None))


async def holed(platform: Platform, *holes: int) -> None:
    """Six events, without these."""
    await append(platform.canonical, *[b"%d" % number for number in range(6)])
    await put_events(platform, dict.fromkeys(holes))


async def numbers(projector: Projector) -> list[Any]:
    return [number for number, _ in await seen(projector)]


async def test_a_pruned_log_is_no_gap_for_a_projection_that_was_stopped(tmp_path: Path) -> None:
    """Events are in the table, which no pruning of the log touches; folded or not."""
    limits = Limits(memtable_entries_max=4)
    async with on_file(tmp_path / "feed.duckdb")(limits=limits) as platform:
        async with projecting(platform, tmp_path) as projections:
            projector = await projections.add("seen", see, tables=TABLES)
            await append(platform.canonical, b"0")
            await projector.wait_applied(0)
            projector.shutdown()
            for number in range(1, 12):
                await append(platform.canonical, b"%d" % number)
            await platform.prune_batch_log(await platform.current_sequence() + 1)
            assert await platform.oldest_retained_batch() is None
            projector.resume()
            await projector.wait_applied(11)
            assert await seen(projector) == [(n, b"%d" % n) for n in range(12)]
            assert (await projector.status()).total_gaps_detected == 0


@pytest.mark.parametrize(
    ("holes", "gap"),
    [
        pytest.param([0], (0, 1), id="the first"),
        pytest.param([2, 3], (2, 2), id="in the middle"),
        pytest.param([5], (5, 1), id="the newest"),
        pytest.param([1, 2, 3, 4, 5], (1, 5), id="more than a page"),
    ],
)
async def test_a_gap_stops_a_projection_before_it_until_it_is_mended(
    tmp_path: Path, holes: list[int], gap: tuple[int, int]
) -> None:
    async with (
        in_memory()(limits=SMALL_PAGES) as platform,
        projecting(platform, tmp_path) as projections,
    ):
        await holed(platform, *holes)
        projector = await projections.add("seen", see, tables=TABLES)
        with pytest.raises(EventGapError) as raised:
            await projector.wait_applied(5)
        assert (raised.value.event_id, raised.value.missing) == gap
        status = await projector.status()
        assert (status.state, status.cursor) == ("failed", gap[0] - 1 if gap[0] else None)
        assert (status.lag, status.lag_seconds) == (6 - gap[0], None)
        assert "missing" in status.error
        assert await numbers(projector) == list(range(gap[0]))
        for again in (projector.run_once, projector.catch_up, projector.rebuild):
            with pytest.raises(EventGapError):
                await again()
            assert projector.cursor == status.cursor
        assert (await projector.status()).state == "failed"
        await put_events(platform, dict.fromkeys(holes, b"mended"))
        done = await projector.rebuild()
        assert (done.events_applied, done.gaps_detected) == (6, 0)
        assert await numbers(projector) == [0, 1, 2, 3, 4, 5]
        await append(platform.canonical, b"6")
        await projector.wait_applied(6)
        assert (await projector.status()).state == "running"


async def test_a_gap_is_in_the_file_for_those_who_look_at_it_later(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await holed(platform, 1)
        projector = await projections.add("seen", see, tables=TABLES)
        with pytest.raises(EventGapError):
            await projector.wait_applied(5)
    found = look(tmp_path / "seen.duckdb")
    assert found.problem == "event 1 is missing, though later ones were given an id"
    assert found.stored is not None
    assert found.stored.cursor == 0


async def test_gaps_may_be_passed_over_and_are_counted(tmp_path: Path) -> None:
    async with (
        in_memory()(limits=SMALL_PAGES) as platform,
        projecting(platform, tmp_path) as projections,
    ):
        await holed(platform, 0, 2, 3, 5)
        running = await projections.add("running", see, tables=TABLES, config=SKIP)
        await running.wait_applied(5)
        assert await numbers(running) == [1, 4]
        status = await running.status()
        assert (status.total_gaps_detected, status.total_events_skipped, status.lag) == (3, 4, 0)
        once = await projections.add("once", see, tables=TABLES, config=SKIP, run=False)
        done = await once.run_once()
        assert (done.gaps_detected, done.events_skipped, done.new_cursor) == (1, 1, 0)
        done = await once.catch_up()
        assert (done.events_applied, done.gaps_detected, done.events_skipped) == (2, 2, 3)
        done = await once.rebuild()
        assert (done.events_applied, done.gaps_detected, done.events_skipped) == (2, 3, 4)
        assert await numbers(once) == [1, 4]
        await append(platform.canonical, b"6")
        await running.wait_applied(6)
        assert await numbers(running) == [1, 4, 6]


async def test_what_is_before_a_gap_is_applied_though_the_batch_was_to_fill(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await holed(platform, 2)
        handler = Handler()
        config = ProjectorConfig(batch_wait_ms=1_000)
        projector = await projections.add("seen", handler, tables=TABLES, config=config)
        with pytest.raises(EventGapError):
            await projector.wait_applied(5)
        assert handler.batches == [[0, 1]]
        assert await numbers(projector) == [0, 1]


async def test_a_gap_met_beside_somebody_who_has_passed_it_is_none(tmp_path: Path) -> None:
    """A following projection may have read ahead of what ``run_once`` passes over beside it."""
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler()
        config = ProjectorConfig(batch_events_max=1, gap_strategy=LogAndSkip())
        projector = await projections.add("seen", handler, tables=TABLES, config=config)
        await wait_all_tasks_blocked()
        await holed(platform, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(projector.catch_up)
            nursery.start_soon(projector.catch_up)
            await projector.wait_applied(5)
        assert await numbers(projector) == [0, 2, 3, 4, 5]
        assert (await projector.status()).total_gaps_detected == 1
