"""Rebuilds: what is in their way, what they mend, and what else is asked of a projection then."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from exo_stream import Platform
from exo_stream.canonical.projection import Projector
from exo_stream.canonical.projection_rules import (
    Custom,
    DeadLetterQueue,
    Event,
    FailFast,
    ProjectorConfig,
    Remedy,
)
from exo_stream.canonical.projection_txn import ProjectionTxn
from exo_stream.errors import (
    CorruptionError,
    ForeignFileError,
    InvalidStateError,
    OutcomeUnknownError,
    PlatformClosedError,
    ProjectionError,
    StoreError,
)
from exo_stream.storage import projection_file as files
from exo_stream.storage.dead_letter import DeadLetter
from exo_stream.storage.memory_engine import MemoryEngine
from tests.projections import LONG, TABLES, Handler, append, projecting, see, seen
from tests.worlds import in_memory

pytestmark = pytest.mark.slow  # files are made

FAIL_FAST = ProjectorConfig(error_strategy=FailFast())
IDENTITY = files.Identity("seen", "00", 1, TABLES)


async def numbers(projector: Projector) -> list[Any]:
    return [number for number, _ in await seen(projector)]


async def test_a_projection_stopped_while_it_is_rebuilt_stays_stopped(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler()
        projector = await projections.add("seen", handler, tables=TABLES, config=LONG)
        await append(platform.canonical, b"a")
        await projector.wait_applied(0)
        handler.hangs = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(projector.rebuild)
            await handler.hanging.wait()
            handler.hangs = False
            projector.shutdown()
            assert (await projector.status()).state == "rebuilding"
            nursery.cancel_scope.cancel()
        assert projector.state == "stopped"
        await append(platform.canonical, b"b")
        await wait_all_tasks_blocked()
        assert projector.cursor == 0
        projector.resume()
        await projector.wait_applied(1)


async def test_rebuilds_at_once_come_one_after_the_other_and_start_nothing(tmp_path: Path) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler()
        projector = await projections.add("seen", handler, tables=TABLES, run=False)
        await append(platform.canonical, b"a", b"b")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(projector.rebuild)
        assert handler.batches == [[0, 1]] * 3
        assert projector.state == "stopped"
        await append(platform.canonical, b"c")
        await wait_all_tasks_blocked()
        assert await numbers(projector) == [0, 1]


async def test_who_waits_for_an_event_is_told_when_the_rebuild_ends_before_it(
    tmp_path: Path,
) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler()
        projector = await projections.add("seen", handler, tables=TABLES, run=False)
        await append(platform.canonical, b"a")
        told: list[str] = []

        async def wait() -> None:
            with pytest.raises(InvalidStateError) as raised:
                await projector.wait_applied(9)
            told.append(str(raised.value))

        handler.hangs = True
        async with trio.open_nursery() as nursery, trio.open_nursery() as rebuilding:
            rebuilding.start_soon(projector.rebuild)
            await handler.hanging.wait()
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert told == []
            rebuilding.cancel_scope.cancel()
        assert told == ["projection seen is stopped"]


async def test_a_rebuild_does_not_go_one_by_one_through_what_once_failed_together(
    tmp_path: Path,
) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        handler = Handler({5: 1})
        config = ProjectorConfig(error_strategy=FailFast(), batch_events_max=3)
        projector = await projections.add("seen", handler, tables=TABLES, config=config)
        await append(platform.canonical, *[b"x"] * 6)
        with pytest.raises(ProjectionError):
            await projector.wait_applied(5)
        handler.batches.clear()
        await projector.rebuild()
        assert handler.batches == [[0, 1, 2], [3], [4], [5]], "3 to 5 have failed together"
        assert projector.state == "running"


def made(path: Path, rows: int, *, name: str = "seen") -> files.ProjectionFile:
    """A file that has applied so many events, the last of them in its write-ahead log only."""
    identity = files.Identity(name, "00", 1, TABLES)
    file = files.open_projection_file(path, identity, newest=rows, now=0)
    for number in range(rows):
        file.begin()
        file.execute("INSERT INTO seen VALUES (?, 'x')", [number])
        file.commit(number, now=0)
    return file


def rows_of(file: files.ProjectionFile) -> int:
    return len(file.read("SELECT * FROM seen"))


def test_a_reader_in_the_way_leaves_both_files_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "seen.duckdb"
    old = made(path, 2)
    rebuilt = files.begin_rebuilt(path, IDENTITY, old, now=0)
    old._reader.execute("BEGIN TRANSACTION READ ONLY")
    old._reader.execute("SELECT * FROM seen").fetchall()
    old.begin()
    old.execute("INSERT INTO seen VALUES (2, 'x')")
    old.commit(2, now=0)
    with pytest.raises(StoreError, match="could not be completed"):
        files.install_rebuilt(rebuilt, path, old)
    assert (old.is_closed, old.cursor, rows_of_open(old)) == (False, 2, 2)
    old._reader.execute("ROLLBACK")
    assert rows_of(old) == 3
    files.install_rebuilt(rebuilt, path, old)
    assert old.lock is not None
    swapped = files.open_projection_file(path, IDENTITY, newest=0, now=0, lock=old.lock)
    assert (swapped.cursor, rows_of(swapped)) == (None, 0)
    swapped.close()


def rows_of_open(file: files.ProjectionFile) -> int:
    """As the reader's transaction sees it."""
    return len(file._reader.execute("SELECT * FROM seen").fetchall())


async def test_a_rebuilt_file_that_cannot_take_the_name_leaves_the_old_tables(
    tmp_path: Path,
) -> None:
    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        is_lost = True

        async def lose(txn: ProjectionTxn, events: Sequence[Event]) -> None:
            await see(txn, events)
            if is_lost and txn._file.path.name.endswith(files.REBUILT_SUFFIX):
                txn._file.path.unlink()  # as a cleaner of disks might

        projector = await projections.add("seen", lose, tables=TABLES)
        await append(platform.canonical, b"a", b"b")
        await projector.wait_applied(1)
        with pytest.raises(OutcomeUnknownError):
            await projector.rebuild()
        await append(platform.canonical, b"c")
        await projector.wait_applied(2)
        assert await numbers(projector) == [0, 1, 2]
        is_lost = False
        await projector.rebuild()
        assert await numbers(projector) == [0, 1, 2]
        assert not list(tmp_path.glob("*.rebuild*"))  # noqa: ASYNC240  nothing else happens meanwhile


def test_a_lock_is_let_go_of_when_a_file_cannot_be_made_or_take_the_name(tmp_path: Path) -> None:
    path = tmp_path / "seen.duckdb"
    wrong = files.Identity("seen", "00", 1, ("CREATE nonsense",))
    with pytest.raises(Exception, match="cannot be made"):
        files.begin_rebuilt(path, wrong, None, now=0)
    rebuilt = files.begin_rebuilt(path, IDENTITY, None, now=0)
    rebuilt.path.unlink()
    with pytest.raises(OutcomeUnknownError):
        files.install_rebuilt(rebuilt, path, None)
    files.drop_rebuilt(rebuilt)
    made(path, 1).close()  # which takes the lock


async def crashed(folder: Path, engine: MemoryEngine) -> Path:
    """Its files as a killed process leaves them: the last events in the write-ahead log."""
    left = folder / "left"
    left.mkdir()
    async with in_memory(engine)() as platform, projecting(platform, folder / "live") as live:
        projector = await live.add("seen", see, tables=TABLES)
        for number in range(3):
            await append(platform.canonical, b"%d" % number)
            await projector.wait_applied(number)
        for name in ("seen.duckdb", "seen.duckdb.wal"):
            shutil.copy(folder / "live" / name, left / name)
    return left


def flip(path: Path, at: int, count: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + count] = bytes(byte ^ 0xFF for byte in content[at : at + count])
    path.write_bytes(content)


async def test_a_torn_end_of_the_write_ahead_log_costs_a_repetition(tmp_path: Path) -> None:
    """X3 of a projection's file: what was not complete is applied again, and nothing else."""
    engine = MemoryEngine()
    left = await crashed(tmp_path, engine)
    wal = left / "seen.duckdb.wal"
    wal.write_bytes(wal.read_bytes()[:-7])
    async with in_memory(engine)() as platform, projecting(platform, left) as projections:
        handler = Handler()
        projector = await projections.add("seen", handler, tables=TABLES)
        await projector.wait_applied(2)
        assert handler.batches == [[2]]
        assert await numbers(projector) == [0, 1, 2]


@pytest.mark.parametrize("what", ["write-ahead log", "headers", "tables"])
async def test_a_damaged_file_is_told_and_mended_by_a_rebuild(tmp_path: Path, what: str) -> None:
    engine = MemoryEngine()
    left = await crashed(tmp_path, engine)
    path, wal = left / "seen.duckdb", left / "seen.duckdb.wal"
    match what:
        case "write-ahead log":
            flip(wal, wal.stat().st_size // 2)
        case "headers":
            flip(path, 4_096 + 16, 8)
            flip(path, 8_192 + 16, 8)
        case _:
            wal.unlink()
            flip(path, 12_288, path.stat().st_size - 12_288)
    async with in_memory(engine)() as platform, projecting(platform, left) as projections:
        projector = await projections.add("seen", see, tables=TABLES)
        other = await projections.add("other", see, tables=TABLES)
        await other.wait_applied(2)
        with pytest.raises(CorruptionError, match=r"damaged.*rebuild it"):
            await projector.wait_applied(2)
        with pytest.raises(InvalidStateError, match="no tables") as raised:
            await projector.query("SELECT 1")
        assert isinstance(raised.value.__cause__, CorruptionError)
        assert path.exists(), "it is there for whoever wants to look at it"
        done = await projector.rebuild()
        assert done.events_applied == 3
        assert await numbers(projector) == [0, 1, 2]
        await append(platform.canonical, b"3")
        await projector.wait_applied(3)


def test_a_file_of_something_else_or_of_a_newer_format_is_no_projection(tmp_path: Path) -> None:
    made(tmp_path / "seen.duckdb", 1).close()
    with duckdb.connect(tmp_path / "seen.duckdb") as con:
        con.execute("UPDATE exo_projection.projection_meta SET format = 99")
    with duckdb.connect(tmp_path / "other.duckdb") as con:
        con.execute("CREATE TABLE t (x INTEGER)")
    for name, sentence in (("seen", "format 99"), ("other", "not the file of a projection")):
        assert sentence in files.look(tmp_path / f"{name}.duckdb").problem
        with pytest.raises(ForeignFileError, match=sentence):
            files.open_projection_file(
                tmp_path / f"{name}.duckdb", files.Identity(name, "00"), newest=1, now=0
            )


async def test_a_folder_that_cannot_be_made_fails_its_projection_only(tmp_path: Path) -> None:
    (tmp_path / "tables").write_bytes(b"no folder")
    async with in_memory()() as platform, projecting(platform, tmp_path / "tables") as projections:
        await append(platform.canonical, b"a")
        projector = await projections.add("seen", see, tables=TABLES)
        with pytest.raises(StoreError):
            await projector.wait_applied(0)
        assert (await platform.canonical.meta()).next_event_id == 1


async def test_a_strategy_that_raises_fails_its_projection_and_nothing_else(
    tmp_path: Path,
) -> None:
    def choose(error: Exception, retries: int) -> Remedy:
        raise ZeroDivisionError(str(error), retries)

    async with in_memory()() as platform, projecting(platform, tmp_path) as projections:
        config = ProjectorConfig(error_strategy=Custom(choose))
        projector = await projections.add("seen", Handler({0: 9}), tables=TABLES, config=config)
        other = await projections.add("other", see, tables=TABLES)
        await append(platform.canonical, b"a")
        await other.wait_applied(0)
        with pytest.raises(ProjectionError, match="strategy raised ZeroDivisionError") as raised:
            await projector.wait_applied(0)
        assert isinstance(raised.value.__cause__, ZeroDivisionError)


async def test_a_platform_that_closes_stops_its_projections(tmp_path: Path) -> None:
    """The body of the projections may outlive that of the platform, in another task."""
    closing, closed = trio.Event(), trio.Event()

    async def live(started: trio.Event, kept: list[Platform]) -> None:
        async with in_memory()() as platform:
            kept.append(platform)
            started.set()
            await closing.wait()
        closed.set()

    started, kept = trio.Event(), list[Platform]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(live, started, kept))
        await started.wait()
        async with projecting(kept[0], tmp_path) as projections:
            projector = await projections.add("seen", see, tables=TABLES)
            await append(kept[0].canonical, b"a")
            await projector.wait_applied(0)
            closing.set()
            await closed.wait()
            await wait_all_tasks_blocked()
            assert projector.state == "stopped"
            with pytest.raises((InvalidStateError, PlatformClosedError)):
                await projector.wait_applied(1)


async def test_tables_that_rotted_stop_a_projection_and_are_no_events_fault(
    tmp_path: Path,
) -> None:
    """Else every event would be put aside, one after the other."""
    tables = (*TABLES, "CREATE TABLE big AS SELECT hash(range) AS n FROM range(200_000)")

    async def use(txn: ProjectionTxn, events: Sequence[Event]) -> None:
        await see(txn, events)
        await txn.execute("SELECT sum(n) FROM big")

    config = ProjectorConfig(error_strategy=DeadLetterQueue())
    engine = MemoryEngine()
    path = tmp_path / "seen.duckdb"
    async with in_memory(engine)() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", use, tables=tables, config=config)
        await append(platform.canonical, b"0")
        await projector.wait_applied(0)
    flip(path, path.stat().st_size // 2, 64)
    async with in_memory(engine)() as platform, projecting(platform, tmp_path) as projections:
        projector = await projections.add("seen", use, tables=tables, config=config)
        await wait_all_tasks_blocked()
        with pytest.raises(CorruptionError, match=r"damaged; rebuild it"):
            await projector.query("SELECT sum(n) FROM big")
        await append(platform.canonical, b"1")
        with pytest.raises(CorruptionError, match=r"damaged; rebuild it"):
            await projector.wait_applied(1)
        assert (await projector.status()).dead_letters == 0
        done = await projector.rebuild()
        assert (done.events_applied, projector.state) == (2, "running")
        assert await numbers(projector) == [0, 1]


def test_a_file_whose_folder_is_gone_does_not_say_that_it_kept_anything(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    file = made(folder / "seen.duckdb", 1)
    file.checkpoint()
    shutil.rmtree(folder)
    file.begin()
    file.execute("INSERT INTO seen VALUES (1, 'x')")
    with pytest.raises(OutcomeUnknownError):
        file.commit(1, now=0)
    assert file.cursor == 0
    with pytest.raises(OutcomeUnknownError):
        file.checkpoint()
    file.drop()


def test_a_large_write_ahead_log_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = made(tmp_path / "seen.duckdb", 3)
    assert file.wal_bytes
    monkeypatch.setattr(files, "_CHECKPOINT_WAL_BYTES", 0)
    file.begin()
    file.commit(3, now=0)
    assert not file.wal_bytes
    file.close()


def test_tables_of_ours_that_a_handler_dropped_fail_whoever_needs_them(tmp_path: Path) -> None:
    file = made(tmp_path / "seen.duckdb", 1)
    file.begin()
    file.execute("DROP TABLE exo_projection.dead_letter_queue")
    with pytest.raises(StoreError, match="refused the write"):
        file.put_letter(DeadLetter(0, b"", "", 0))
    file.roll_back()
    file._con.execute("DROP TABLE exo_projection.dead_letter_queue")
    for look in (lambda: file.letters(0, 1, 1), lambda: file.letters_due(0, None, 1)):
        with pytest.raises(StoreError, match="refused the query"):
            look()
    file.close()
