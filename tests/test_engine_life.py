"""Random lives of an engine against a dict and a list: groups, jobs, pins, scans, reopenings."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from exo_stream.limits import KIB, Limits
from exo_stream.model import Entry, Row, row_key
from exo_stream.storage.duckdb_engine import DuckDBEngine, open_duckdb_engine
from exo_stream.storage.engine import Cold, Job, Version
from exo_stream.storage.memory_engine import MemoryEngine
from exo_stream.storage.verify import verify
from tests.tables import Model, rows, work, write

LIMITS = Limits(
    memtable_entries_max=12,
    slice_rows_max=5,
    runs_max=2,
    cache_bytes_max=4 * KIB,
    checkpoint_idle_wal_bytes=1,
)

KEYS = st.one_of(
    st.sampled_from([b"", b"\0", b"\0\0", b"a", b"a\0", b"b", b"\xff", b"\xff" * 254]),
    st.binary(min_size=1, max_size=1),
)
SIZES = st.one_of(st.none(), st.integers(0, 9), st.sampled_from([40_000, 70_000]))
"""Of values; None is a deletion. The values themselves would make reports of failures too long."""
ENTRIES = st.lists(st.tuples(st.sampled_from([0, 0, 0, 1]), KEYS, SIZES), max_size=8)
GROUPS = st.lists(ENTRIES, min_size=1, max_size=4)


class EngineLife(RuleBasedStateMachine):
    """What MemoryEngine and DuckDBEngine have in common."""

    versions: Bundle[tuple[Version, list[Row]]] = Bundle("versions")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.job: Job | None = None
        self.engine: MemoryEngine | DuckDBEngine = self.open()

    def open(self) -> MemoryEngine | DuckDBEngine:
        return MemoryEngine(limits=LIMITS)

    @rule(group=GROUPS)
    def commit(self, group: list[list[tuple[int, bytes, int | None]]]) -> None:
        while self.engine.backlogged:
            self.take_a_step()
        batches = [
            [
                Entry(keyspace, key, None if size is None else b"%d" % size * size)
                for keyspace, key, size in entries
            ]
            for entries in group
        ]
        write(self.engine, *batches)
        self.model.write(batches)

    @rule(idle=st.booleans())
    def take_a_step(self, *, idle: bool = False) -> None:
        """One slice of the job at hand; more slices may follow after other groups."""
        if self.job is None:
            self.job = self.engine.next_job(0, idle=idle)
        if self.job is not None and self.job.step():
            self.job.install()
            self.job = None

    @rule()
    def finish_all_work(self) -> None:
        while self.job is not None:
            self.take_a_step()
        work(self.engine, idle=True)

    @rule(target=versions)
    def hold_a_version(self) -> tuple[Version, list[Row]]:
        version = self.engine.version
        self.engine.pin(version)
        return version, self.model.rows()

    @rule(held=versions, rows_max=st.integers(1, 9))
    def look_at_a_held_version(self, held: tuple[Version, list[Row]], rows_max: int) -> None:
        version, expected = held
        assert rows(self.engine, version, rows_max=rows_max) == expected
        assert rows(self.engine, version, forward=False, rows_max=rows_max) == expected[::-1]

    @rule(held=consumes(versions))
    def let_go(self, held: tuple[Version, list[Row]]) -> None:
        self.engine.unpin(held[0])

    @rule(keys=st.lists(KEYS, max_size=5))
    def get(self, keys: list[bytes]) -> None:
        version = self.engine.version
        wanted = [row_key(0, key) for key in keys]
        fetched = self.engine.open_reader().fetch(version, wanted)
        for key, row in zip(wanted, fetched, strict=True):
            expected = self.model.table.get(key)
            if expected is not None and expected.value is None and row is None:
                continue  # a tombstone that nothing needed any more
            assert row == expected
            in_memory = self.engine.lookup(version, key)
            assert isinstance(in_memory, Cold) or in_memory == row

    @rule(rows_max=st.integers(1, 9))
    def scan(self, rows_max: int) -> None:
        for forward in (True, False):
            found = rows(self.engine, self.engine.version, forward=forward, rows_max=rows_max)
            assert found == self.model.rows(forward=forward)

    @rule(up_to=st.integers(0, 5))
    def evict(self, up_to: int) -> None:
        self.model.floor = min(self.model.floor + up_to, len(self.model.log) + 1)
        write(self.engine, floor=self.model.floor)

    @rule(after=st.integers(0, 10))
    def read_the_log(self, after: int) -> None:
        after = min(self.model.floor - 1 + after, len(self.model.log))
        found = self.engine.open_reader().log_page(
            after, through=len(self.model.log), batches_max=5, bytes_max=1 << 20
        )
        expected = self.model.log[after : after + len(found)]
        assert found or after == len(self.model.log)
        assert [(b.sequence, b.committed_at, b.entries) for b in found] == [
            (b.sequence, b.committed_at, b.entries) for b in expected
        ]

    @invariant()
    def the_ends_of_the_log_agree(self) -> None:
        version = self.engine.version
        assert (version.frontier, version.floor) == (len(self.model.log), self.model.floor)


class FileLife(EngineLife):
    """With a file, which may be closed in order or not, and must never hold what nobody needs."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        super().__init__()

    def open(self) -> DuckDBEngine:
        return open_duckdb_engine(self.directory / "life.duckdb", limits=LIMITS)

    @precondition(lambda self: not self.engine._table.pins.frontiers)
    @rule(clean=st.booleans())
    def reopen(self, *, clean: bool) -> None:
        engine = self.engine
        assert isinstance(engine, DuckDBEngine)
        if clean:
            engine.close()
        else:  # as a kill leaves it: nothing marked, nothing moved out of the WAL
            engine._database.abandon()
        self.job = None
        self.engine = self.open()

    @precondition(lambda self: not self.engine._table.pins.frontiers)
    @rule()
    def nothing_dead_is_left(self) -> None:
        self.finish_all_work()
        engine = self.engine
        assert isinstance(engine, DuckDBEngine)
        con = engine._database.con
        alive = con.execute("SELECT coalesce(sum(entries), 0) FROM manifest").fetchone()
        assert con.execute("SELECT count(*) FROM kv").fetchone() == alive

    def teardown(self) -> None:
        self.engine.close()
        report = verify(self.directory / "life.duckdb")
        shutil.rmtree(self.directory)
        assert report.findings == ()


@pytest.mark.slow
def test_a_random_life_in_memory() -> None:
    run_state_machine_as_test(
        EngineLife, settings=settings(max_examples=50, stateful_step_count=40)
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_a_random_life_on_a_file(number: int) -> None:
    class Life(FileLife):
        """Others each time, unless everything is to be as it was the last time."""

    run_state_machine_as_test(
        seed(number)(Life) if settings().derandomize else Life,
        settings=settings(
            max_examples=10,
            stateful_step_count=40,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
