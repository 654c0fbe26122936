"""A handler that raises, hangs or is cancelled, and a file that fails: state, effect and others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.canonical.changes import Changes
from exo_stream.canonical.projection import Projector
from exo_stream.canonical.projection_rules import (
    DeadLetterQueue,
    Event,
    FailFast,
    LogAndSkip,
    ProjectorConfig,
    RetryWithBackoff,
)
from exo_stream.canonical.projection_txn import ProjectionTxn
from exo_stream.canonical.projections import open_projections
from exo_stream.errors import (
    InvalidStateError,
    OutcomeUnknownError,
    OverloadedError,
    ProjectionError,
    StoreError,
    StoreFullError,
)
from exo_stream.limits import Limits
from exo_stream.storage.hop import Hop
from exo_stream.storage.memory_engine import MemoryEngine
from tests.projections import TABLES, Handler, append, projecting, see, seen
from tests.test_cancellation import CancelAt, sweep
from tests.worlds import in_memory

pytestmark = pytest.mark.slow  # files are made

T = TypeVar("T")

FAIL_FAST = ProjectorConfig(error_strategy=FailFast())
ASIDE = ProjectorConfig(error_strategy=DeadLetterQueue(), replay_retries_max=2)


async def numbers(projector: Projector) -> list[Any]:
    return [row[0] for row in await seen(projector)]


async def state_of(projector: Projector) -> str:
    await wait_all_tasks_blocked()
    return (await projector.status()).state


async def test_a_handler_that_raises_fails_its_projection_and_no_other(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler({2: 1})
        bad = await projections.add("bad", handler, tables=TABLES, config=FAIL_FAST)
        good = await projections.add("good", see, tables=TABLES)
        await append(platform.canonical, *[b"x"] * 5)
        await good.wait_applied(4)
        assert await state_of(bad) == "failed"
        assert handler.batches == [[0, 1, 2, 3, 4], [0], [1], [2]], "one by one, to find it"
        assert await numbers(bad) == [0, 1], "what is before it is kept, of itself nothing"
        assert isinstance(bad.failure, ProjectionError)
        assert (bad.failure.projection, bad.failure.event_id) == ("bad", 2)
        assert isinstance(bad.failure.__cause__, KeyError)
        assert str(bad.failure) == "projection bad at event 2: raised KeyError: 2"
        with pytest.raises(ProjectionError):
            await bad.wait_applied(2)
        bad.resume()
        await bad.wait_applied(4)
        assert await numbers(bad) == [0, 1, 2, 3, 4]
        assert bad.failure is None


async def test_a_handler_that_hangs_has_failed_at_its_deadline(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler()
        handler.hangs = True
        hung = await projections.add("hung", handler, tables=TABLES, config=FAIL_FAST)
        good = await projections.add("good", see, tables=TABLES)
        await append(platform.canonical, b"a")
        await good.wait_applied(0)
        with pytest.raises(ProjectionError, match="took longer than 30000 ms"):
            await hung.wait_applied(0)
        assert await numbers(hung) == []
        handler.hangs = False
        hung.resume()
        await hung.wait_applied(0)
        assert await numbers(hung) == [0]


async def test_a_handler_that_is_stopped_has_done_nothing(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler()
        handler.hangs = True
        projector = await projections.add("seen", handler, tables=TABLES)
        await append(platform.canonical, b"a")
        await handler.hanging.wait()
        projector.shutdown()
        assert await state_of(projector) == "stopped"
        with pytest.raises(InvalidStateError, match="stopped"):
            await projector.wait_applied(0)
        assert await numbers(projector) == []
        handler.hangs = False
        projector.resume()
        await projector.wait_applied(0)
        assert await numbers(projector) == [0]


async def test_a_handler_that_gives_up_on_a_statement_or_hides_its_failure_has_failed(
    tmp_path: Path,
) -> None:
    async def gives_up(txn: ProjectionTxn, events: Sequence[Event]) -> None:
        await see(txn, events)
        with trio.move_on_after(0):
            await see(txn, events)

    async def hides(txn: ProjectionTxn, events: Sequence[Event]) -> None:
        await see(txn, events)
        try:
            await txn.execute("INSERT INTO seen VALUES ('x', 'y')")
        except StoreError:
            pass

    async def goes_on(txn: ProjectionTxn, events: Sequence[Event]) -> None:
        await hides(txn, events)
        await see(txn, events)

    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await append(platform.canonical, b"a")
        for handler, sentence in (
            (gives_up, "gave up on a statement"),
            (hides, "raised StoreError: Conversion Error"),
            (goes_on, "raised InvalidStateError: the projection's transaction has failed"),
        ):
            projector = await projections.add(
                handler.__name__, handler, tables=TABLES, config=FAIL_FAST, run=False
            )
            with pytest.raises(ProjectionError, match=sentence):
                await projector.run_once()
            assert await numbers(projector) == []


async def test_a_transaction_that_is_kept_is_of_no_use(tmp_path: Path) -> None:
    kept: list[ProjectionTxn] = []

    async def keep(txn: ProjectionTxn, events: Sequence[Event]) -> None:
        kept.append(txn)
        await see(txn, events)

    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await append(platform.canonical, b"a")
        projector = await projections.add("seen", keep, tables=TABLES)
        await projector.wait_applied(0)
        with pytest.raises(InvalidStateError, match="is over"):
            await kept[0].execute("SELECT 1")


async def test_a_handler_that_moves_the_cursor_itself_has_failed(tmp_path: Path) -> None:
    async def meddle(txn: ProjectionTxn, events: Sequence[Event]) -> None:
        await txn.execute("UPDATE exo_projection.projection_meta SET last_applied_event_id = 9")

    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await append(platform.canonical, b"a")
        projector = await projections.add(
            "seen", meddle, tables=TABLES, config=FAIL_FAST, run=False
        )
        with pytest.raises(ProjectionError, match="changed the cursor"):
            await projector.run_once()
        assert projector.cursor is None


async def test_retries_wait_longer_and_longer_and_then_give_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        strategy = RetryWithBackoff(max_retries=3, initial_delay_ms=1_000, max_delay_ms=3_000)
        config = ProjectorConfig(error_strategy=strategy)
        handler = Handler({0: 4})
        projector = await projections.add(
            "seen", handler, tables=TABLES, config=config, chance=lambda: 1.0
        )
        began = trio.current_time()
        await append(platform.canonical, b"a")
        await trio.sleep(0.5)
        status = await projector.status()
        assert (status.state, status.retries) == ("retrying", 1)
        with pytest.raises(ProjectionError):
            await projector.wait_applied(0)
        assert trio.current_time() - began == pytest.approx(6), "1 + 2 + 3 seconds"
        assert len(handler.batches) == 4
        projector.resume()
        await projector.wait_applied(0)


async def test_an_event_may_be_skipped(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        config = ProjectorConfig(error_strategy=LogAndSkip())
        projector = await projections.add("seen", Handler({1: 9}), tables=TABLES, config=config)
        await append(platform.canonical, b"a", b"b", b"c")
        await projector.wait_applied(2)
        assert await numbers(projector) == [0, 2]
        status = await projector.status()
        assert (status.total_events_applied, status.total_events_skipped) == (2, 1)


async def test_dead_letters_are_kept_replayed_and_forgotten(tmp_path: Path) -> None:
    engine = MemoryEngine()
    async with in_memory(engine)() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add(
            "seen", Handler({1: 9, 3: 9, 4: 9}), tables=TABLES, config=ASIDE
        )
        await append(platform.canonical, *[b"%d" % n for n in range(6)])
        await projector.wait_applied(5)
        assert await numbers(projector) == [0, 2, 5]
    async with in_memory(engine)() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler({3: 9})
        projector = await projections.add("seen", handler, tables=TABLES, config=ASIDE, run=False)
        await projector.run_once()
        letters = await projector.dead_letters()
        assert [(one.event_id, one.event_bytes) for one in letters] == [
            (1, b"1"),
            (3, b"3"),
            (4, b"4"),
        ]
        assert "raised KeyError: 1" in letters[0].error_message
        assert (await projector.status()).dead_letters == 3
        done = await projector.replay_dead_letters(2)
        assert (done.events_applied, done.events_skipped) == (1, 1)
        assert await numbers(projector) == [0, 1, 2, 5]
        await projector.remove_dead_letter(4)
        await projector.replay_dead_letters()
        [letter] = await projector.dead_letters()
        assert (letter.event_id, letter.retry_count, letter.permanent) == (3, 2, True)
        tries = len(handler.batches)
        assert (await projector.replay_dead_letters()).events_skipped == 0
        assert len(handler.batches) == tries, "a permanent one is left alone"
        assert (await projector.status()).dead_letters == 1
        assert projector.cursor == 5


async def test_a_rebuild_shows_the_old_tables_until_the_new_ones_are_there(
    tmp_path: Path,
) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler()
        projector = await projections.add("seen", handler, tables=TABLES)
        await append(platform.canonical, b"a", b"b")
        await projector.wait_applied(1)
        handler.hangs = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(projector.rebuild)
            await handler.hanging.wait()
            assert (await projector.status()).state == "rebuilding"
            assert await numbers(projector) == [0, 1]
            nursery.cancel_scope.cancel()
        assert await numbers(projector) == [0, 1]
        assert sorted(path.name for path in tmp_path.iterdir()) == [  # noqa: ASYNC240  a few names, and nothing else happens meanwhile
            "seen.duckdb",
            "seen.duckdb.lock",
            "seen.duckdb.wal",
        ]
        handler.hangs = False
        await append(platform.canonical, b"c")
        await projector.wait_applied(2)
        done = await projector.rebuild()
        assert (done.events_applied, done.new_cursor) == (3, 2)
        await append(platform.canonical, b"d")
        await projector.wait_applied(3)
        assert await numbers(projector) == [0, 1, 2, 3]


async def test_a_rebuild_whose_handler_fails_leaves_the_old_tables(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler()
        projector = await projections.add("seen", handler, tables=TABLES, config=FAIL_FAST)
        await append(platform.canonical, b"a", b"b")
        await projector.wait_applied(1)
        handler.bad = {1: 1}
        with pytest.raises(ProjectionError):
            await projector.rebuild()
        assert await numbers(projector) == [0, 1]
        await append(platform.canonical, b"c")
        await projector.wait_applied(2)


class FaultyCommits:
    """A hop in place whose next commits fail, kept or not."""

    def __init__(self, *faults: tuple[type[Exception], bool]) -> None:
        self.faults = list(faults)

    async def __call__(self, fn: Callable[[], T], /) -> T:
        await trio.lowlevel.checkpoint()
        if not self.faults or "_commit" not in getattr(fn, "__qualname__", ""):
            return fn()
        error, is_kept = self.faults.pop(0)
        if is_kept:
            fn()
        raise error("injected")


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([(StoreFullError, False)], id="full"),
        pytest.param([(OutcomeUnknownError, True)], id="unknown, kept"),
        pytest.param([(OutcomeUnknownError, False)] * 3, id="unknown, lost, three times"),
    ],
)
async def test_a_file_that_fails_is_opened_again_and_each_event_is_there_once(
    tmp_path: Path, autojump_clock: MockClock, faults: list[tuple[type[Exception], bool]]
) -> None:
    hop = FaultyCommits(*faults)

    @asynccontextmanager
    async def open_hop(name: str) -> AsyncIterator[Hop]:
        yield hop if name.startswith("writer") else FaultyCommits()

    async with in_memory()() as platform:
        async with open_projections(platform._ground, tmp_path, open_hop=open_hop) as projections:
            projector = await projections.add("seen", see, tables=TABLES, config=FAIL_FAST)
            await append(platform.canonical, b"a", b"b")
            await projector.wait_applied(1)
            assert hop.faults == []
            assert await numbers(projector) == [0, 1]
            assert (await projector.status()).state == "running"


async def test_a_statement_that_runs_for_ever_is_stopped_in_its_thread(tmp_path: Path) -> None:
    endless = "SELECT count(*) FROM range(1000000000000)"

    async def run_for_ever(txn: ProjectionTxn, events: Sequence[Event]) -> None:
        await see(txn, events)
        await txn.execute(endless)

    limits = Limits(query_seconds_max=1)
    async with (
        in_memory()(limits=limits) as platform,
        open_projections(platform._ground, tmp_path) as projections,
    ):
        config = ProjectorConfig(error_strategy=FailFast(), handler_timeout_ms=200)
        await platform.canonical.submit(Changes(events=[b"a"]))
        projector = await projections.add(
            "seen", run_for_ever, tables=TABLES, config=config, run=False
        )
        with trio.fail_after(60), pytest.raises(ProjectionError, match="took longer than 200 ms"):
            await projector.run_once()
        with trio.fail_after(60), pytest.raises(OverloadedError):
            await projector.query(endless)
        assert await numbers(projector) == []


def test_a_projection_cancelled_at_any_step_has_each_event_once(tmp_path: Path) -> None:
    lives = 0

    async def live_once(cancel: CancelAt) -> None:
        nonlocal lives
        lives += 1
        folder = tmp_path / str(lives)
        async with in_memory()() as platform:
            await append(platform.canonical, b"a", b"b", b"c")
            with cancel.scope:
                async with projecting(platform, folder) as projections:
                    config = ProjectorConfig(batch_events_max=2, error_strategy=DeadLetterQueue())
                    add = partial(projections.add, tables=TABLES, config=config)
                    projector = await add("seen", Handler({1: 1}))
                    cancel.armed = True
                    await projector.wait_applied(2)
                    await projector.replay_dead_letters()
                    await projector.rebuild()
                    cancel.armed = False
            async with projecting(platform, folder) as projections:
                projector = await projections.add("seen", see, tables=TABLES)
                await projector.wait_applied(2)
                aside = [letter.event_id for letter in await projector.dead_letters()]
                assert sorted(await numbers(projector) + aside) == [0, 1, 2]
            assert not list(folder.glob("*.rebuild*"))
            assert not list(folder.glob("*.new*"))

    assert sweep(live_once) > 20
