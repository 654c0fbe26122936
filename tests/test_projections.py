"""Projections: events become tables in order, each once, and up to the seal.

Named AC-1 and AC-11 are acceptance cases of those sections, and X14 is one of the extra ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from exo_stream.canonical.projection_rules import Event, FailFast, ProjectorConfig, RunStats
from exo_stream.canonical.projection_txn import ProjectionTxn
from exo_stream.errors import (
    ConfigError,
    CursorAheadError,
    FileInUseError,
    ForeignFileError,
    InvalidRequestError,
    InvalidStateError,
    LogMismatchError,
    ProjectionError,
)
from exo_stream.storage.memory_engine import MemoryEngine
from exo_stream.testing import FakeClock
from tests.projections import LONG, TABLES, Handler, append, projecting, see, seen
from tests.worlds import in_memory

pytestmark = pytest.mark.slow  # files are made


async def test_ac1_a_projector_applies_what_is_there_and_then_nothing(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", see, tables=TABLES, run=False)
        assert projector.cursor is None
        assert await projector.run_once() == RunStats()
        await append(platform.canonical, b"a", b"bc")
        done = await projector.run_once()
        assert (done.events_applied, done.bytes_processed, done.new_cursor) == (2, 3, 1)
        assert (done.gaps_detected, done.events_skipped) == (0, 0)
        assert await projector.run_once() == RunStats(new_cursor=1)
        assert await seen(projector) == [(0, b"a"), (1, b"bc")]


async def test_ac1_lag_is_what_is_still_to_be_applied(tmp_path: Path) -> None:
    clock = FakeClock()
    async with in_memory()(clock=clock) as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", see, tables=TABLES, run=False)
        assert await projector.get_lag() == 0
        assert (await projector.status()).lag_seconds == 0
        await append(platform.canonical, b"a", b"b", b"c")
        clock.advance(5)
        assert await projector.get_lag() == 3
        await append(platform.canonical, b"d")
        clock.advance(2)
        status = await projector.status()
        assert status.lag == 4
        assert status.lag_seconds == pytest.approx(7, abs=0.1), "the age of the oldest of them"
        await projector.catch_up()
        assert await projector.get_lag() == 0
        assert (await projector.status()).lag_seconds == 0


async def test_lag_in_seconds_is_unknown_where_the_log_was_pruned(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", see, tables=TABLES, run=False)
        await append(platform.canonical, b"a")
        await append(platform.canonical, b"b")
        await platform.prune_batch_log(2)
        status = await projector.status()
        assert (status.lag, status.lag_seconds) == (2, None)


async def test_ac11_a_batch_size_of_three_over_five_events_gives_two_batches(
    tmp_path: Path,
) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await append(platform.canonical, *[b"%d" % n for n in range(5)])
        handler = Handler()
        config = ProjectorConfig(batch_events_max=3)
        projector = await projections.add("seen", handler, tables=TABLES, config=config, run=False)
        done = await projector.catch_up()
        assert handler.batches == [[0, 1, 2], [3, 4]]
        assert (done.events_applied, done.new_cursor) == (5, 4)


async def test_ac11_deposits_and_withdrawals_make_a_balance(tmp_path: Path) -> None:
    async def account(txn: ProjectionTxn, events: Sequence[Event]) -> None:
        for _, event in events:
            await txn.execute("UPDATE balance SET amount = amount + ?", [int(event)])

    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        tables = ("CREATE TABLE balance (amount BIGINT)", "INSERT INTO balance VALUES (0)")
        projector = await projections.add("balance", account, tables=tables)
        await append(platform.canonical, b"100")
        await append(platform.canonical, b"50", b"-30")
        await projector.wait_applied(2)
        assert await projector.query("SELECT amount FROM balance") == [(120,)]


async def test_ac1_a_projector_is_woken_by_an_event_and_not_by_a_clock(tmp_path: Path) -> None:
    """Nothing here sleeps: if no event woke it, this would never end."""
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", see, tables=TABLES)
        with trio.fail_after(60):
            for number in range(20):
                await wait_all_tasks_blocked()
                await append(platform.canonical, b"x")
                await projector.wait_applied(number)
        assert (await projector.status()).state == "running"


async def test_a_batch_waits_for_more_only_as_long_as_it_may(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler()
        config = ProjectorConfig(batch_events_max=3, batch_wait_ms=1_000)
        projector = await projections.add("seen", handler, tables=TABLES, config=config)
        for _ in range(4):
            await append(platform.canonical, b"x")
            await trio.sleep(0.1)
        await projector.wait_applied(3)
        assert handler.batches == [[0, 1, 2], [3]]


async def test_a_batch_has_no_more_bytes_than_it_may(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await append(platform.canonical, bytes(6), bytes(4), bytes(1), bytes(99), bytes(1))
        handler = Handler()
        config = ProjectorConfig(batch_bytes_max=10)
        projector = await projections.add("seen", handler, tables=TABLES, config=config)
        await projector.wait_applied(4)
        assert handler.batches == [[0, 1], [2], [3], [4]]


async def test_the_seal_is_the_target_and_an_unseal_moves_it(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        canonical = platform.canonical
        running = await projections.add("running", see, tables=TABLES)
        once = await projections.add("once", see, tables=TABLES, run=False)
        await append(canonical, b"a", b"b")
        assert not (await once.status()).sealed
        assert await canonical.seal() == 1
        await running.wait_applied(1)
        status = await running.status()
        assert (status.cursor, status.lag, status.sealed) == (1, 0, True)
        assert not (await once.status()).sealed, "it is not there yet"
        assert (await once.catch_up()).new_cursor == 1
        assert (await once.status()).sealed
        await canonical.unseal()
        await append(canonical, b"c")
        await running.wait_applied(2)
        assert not (await running.status()).sealed


async def test_x14_a_projection_goes_on_after_a_restart_with_each_event_once(
    tmp_path: Path,
) -> None:
    engine = MemoryEngine()
    for life in range(3):
        async with in_memory(engine)() as platform, projecting(platform, tmp_path) as projections:
            handler = Handler()
            projector = await projections.add("seen", handler, tables=TABLES)
            await append(platform.canonical, b"%d" % life, b"x")
            await projector.wait_applied(2 * life + 1)
            assert handler.batches[0][0] == 2 * life
            assert [row[0] for row in await seen(projector)] == list(range(2 * life + 2))


async def test_any_number_of_projections_each_at_its_own_pace(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        slow = Handler()
        slow.hangs = True
        stuck = await projections.add("stuck", slow, tables=TABLES, config=LONG)
        others = [await projections.add(f"p{n}", see, tables=TABLES) for n in range(4)]
        await append(platform.canonical, b"a")
        for other in others:
            await other.wait_applied(0)
        statuses = await projections.statuses()
        assert [status.lag for status in statuses] == [1, 0, 0, 0, 0]
        assert list(projections) == ["stuck", "p0", "p1", "p2", "p3"]
        assert (len(projections), projections["p0"]) == (5, others[0])
        assert stuck.cursor is None


async def test_a_name_is_given_once_and_is_one(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await projections.add("seen", see, tables=TABLES)
        with pytest.raises(ConfigError, match="already"):
            await projections.add("seen", see, tables=TABLES)
        with pytest.raises(ConfigError):
            await projections.add("a/b", see)
        with pytest.raises(ConfigError, match="schema version"):
            await projections.add("other", see, schema_version=-1)


async def test_tables_that_cannot_be_made_are_its_own_failure(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", see, tables=("CREATE nonsense",))
        await wait_all_tasks_blocked()
        status = await projector.status()
        assert status.state == "failed"
        assert "the tables of seen cannot be made: Parser Error" in status.error
        assert isinstance(projector.failure, InvalidRequestError)
        with pytest.raises(InvalidStateError, match="no tables"):
            await projector.query("SELECT 1")
        with pytest.raises(InvalidRequestError):
            await projector.wait_applied(0)
    assert list(tmp_path.glob("*.duckdb")) == []  # noqa: ASYNC240  no names, and nothing else happens meanwhile


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT", "ROLLBACK", "BEGIN", "CHECKPOINT", "ATTACH 'x'", "SET threads = 2",
        "PREPARE p AS SELECT 1", "USE memory", "SELECT 1; COMMIT", "COPY seen TO 'x'",
    ],
)  # fmt: skip
async def test_a_handler_may_not_end_its_transaction_or_reach_out(tmp_path: Path, sql: str) -> None:
    async def handler(txn: ProjectionTxn, events: Sequence[Event]) -> None:
        await see(txn, events)
        await txn.execute(sql)

    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await append(platform.canonical, b"a")
        config = ProjectorConfig(error_strategy=FailFast())
        projector = await projections.add("seen", handler, tables=TABLES, config=config, run=False)
        with pytest.raises(ProjectionError) as raised:
            await projector.run_once()
        assert isinstance(raised.value.__cause__, InvalidRequestError)
        assert await seen(projector) == []


async def test_a_query_reads_and_nothing_else(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", see, tables=TABLES, run=False)
        await projector.run_once()
        for sql in ("INSERT INTO seen VALUES (1, 'x')", "nonsense", "SELECT * FROM nowhere"):
            with pytest.raises(InvalidRequestError):
                await projector.query(sql)
        assert await projector.query("SELECT ? + 1", [1]) == [(2,)]


async def test_the_file_of_another_log_version_or_moment_is_rebuilt_and_not_used(
    tmp_path: Path,
) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await append(platform.canonical, b"a", b"b")
        projector = await projections.add("seen", see, tables=TABLES, run=False)
        await projector.catch_up()
    engine = MemoryEngine()
    async with in_memory(engine)() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", see, tables=TABLES, run=False)
        with pytest.raises(LogMismatchError):
            await projector.run_once()
        # Nobody has seen the failure but the caller; a running one keeps it.
        projector.resume()
        await wait_all_tasks_blocked()
        assert isinstance(projector.failure, LogMismatchError)
        await append(platform.canonical, b"c")
        assert (await projector.rebuild()).events_applied == 1
        assert await seen(projector) == [(0, b"c")]
    async with in_memory(engine)() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", see, tables=TABLES, schema_version=2)
        await wait_all_tasks_blocked()
        assert "built as version 1" in (await projector.status()).error
        assert (await projector.rebuild()).new_cursor == 0
        await append(platform.canonical, b"d")
        await projector.wait_applied(1)
        assert (await projector.status()).state == "running"


async def test_a_projection_ahead_of_its_log_says_so(tmp_path: Path) -> None:
    async with in_memory()() as platform:
        log_id = platform.log_id
        await append(platform.canonical, b"a", b"b")
        async with projecting(platform, tmp_path) as projections:
            projector = await projections.add("seen", see, tables=TABLES, run=False)
            await projector.catch_up()
    older = MemoryEngine(log_id=log_id)
    async with in_memory(older)() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", see, tables=TABLES)
        await wait_all_tasks_blocked()
        assert isinstance(projector.failure, CursorAheadError)
        await projector.rebuild()
        assert projector.cursor is None


async def test_a_file_that_is_no_projection_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "seen.duckdb").write_bytes(b"somebody's diary" * 100)
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        await append(platform.canonical, b"a")
        projector = await projections.add("seen", see, tables=TABLES)
        other = await projections.add("other", see, tables=TABLES)
        await other.wait_applied(0)
        assert (await projector.status()).state == "failed"
        with pytest.raises(Exception, match=r"seen\.duckdb"):
            await projector.rebuild()
        (tmp_path / "other2.duckdb").hardlink_to(tmp_path / "other.duckdb")
    assert (tmp_path / "seen.duckdb").read_bytes().startswith(b"somebody")
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        foreign = await projections.add("other2", see, tables=TABLES, run=False)
        with pytest.raises(ForeignFileError, match="'other'"):
            await foreign.run_once()


async def test_two_programs_do_not_share_a_file(tmp_path: Path) -> None:
    engine = MemoryEngine()
    async with in_memory(engine)() as platform, projecting(platform, tmp_path) as projections:
        first = await projections.add("seen", see, tables=TABLES, run=False)
        await first.run_once()
        async with projecting(platform, tmp_path) as beside:
            second = await beside.add("seen", see, tables=TABLES, run=False)
            with pytest.raises(FileInUseError):
                await second.run_once()
            with pytest.raises(FileInUseError):
                await second.rebuild()
        assert (await first.run_once()).new_cursor is None
