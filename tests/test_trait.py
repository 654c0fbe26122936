"""The nine methods over an engine: what they refuse, and what they find wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exo_stream.errors import (
    InvalidRequestError,
    LimitExceededError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
)
from exo_stream.limits import Limits
from exo_stream.storage import table_reader
from exo_stream.storage.duckdb_engine import DuckDBEngine, open_duckdb_engine
from tests.worlds import Fault, FaultyEngine, OneJob

LIMITS = Limits(memtable_entries_max=4, page_rows_max=2, value_bytes_max=10)
NOW = 1_700_000_000_000_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDBEngine]:
    opened = open_duckdb_engine(tmp_path / "store.duckdb", limits=LIMITS, now=lambda: NOW)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        pytest.param(lambda e: e.put_batch([]), InvalidRequestError, id="nothing to put"),
        pytest.param(lambda e: e.delete_batch([]), InvalidRequestError, id="nothing to delete"),
        pytest.param(lambda e: e.put_batch([("a", b"")]), InvalidRequestError, id="a text key"),
        pytest.param(lambda e: e.put_batch([(b"a", None)]), InvalidRequestError, id="no value"),
        pytest.param(lambda e: e.delete_batch(["a"]), InvalidRequestError, id="a text to delete"),
        pytest.param(
            lambda e: e.put_batch([(b"k" * 255, b"")]), LimitExceededError, id="a long key"
        ),
        pytest.param(
            lambda e: e.put_batch([(b"a", b"1"), (b"b", b"v" * 11)]),
            LimitExceededError,
            id="a large value",
        ),
    ],
)
def test_a_bad_batch_is_refused_whole(
    engine: DuckDBEngine, refused: Callable[[DuckDBEngine], int], error: type[Exception]
) -> None:
    with pytest.raises(error):
        refused(engine)
    assert engine.current_sequence() == 0


def test_keys_are_found_in_memory_and_in_blocks_alike(engine: DuckDBEngine) -> None:
    engine.put_batch([(b"%d" % number, b"old") for number in range(5)])
    engine.put_batch([(b"1", b"new"), (b"9", b"new")])
    assert engine.statistics().block_entries == 5
    keys = [b"1", b"0", b"9", b"x", b"1"]
    values = [b"new", b"old", b"new", None, b"new"]
    assert engine.get_many(keys) == list(zip(keys, values, strict=True))
    expected = [(b"%d" % n, b"new" if n == 1 else b"old") for n in range(5)] + [(b"9", b"new")]
    assert engine.range_scan(b"", b"", 100, forward=True) == expected
    assert engine.range_scan(b"", b"", 3, forward=False) == expected[:2:-1]


def test_values_from_blocks_are_got_within_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(memtable_entries_max=4, get_many_bytes_max=150_000)
    engine = open_duckdb_engine(tmp_path / "store.duckdb", limits=limits)
    keys = [b"%d" % number for number in range(4)]
    engine.put_batch([(key, b"v" * 70_000) for key in keys])
    engine.put_batch([(b"what is written now has them folded", b"")])
    monkeypatch.setattr(table_reader, "_KEYS_MAX", 1)  # as if each were several megabytes
    with pytest.raises(LimitExceededError, match="get_many_bytes_max"):
        engine.get_many(keys)
    assert len(engine.get_many(keys[:2])) == 2
    engine.close()


def test_a_job_that_fails_does_not_refuse_the_write_that_was_kept() -> None:
    def fail() -> None:
        raise StoreError("injected")

    engine = FaultyEngine()
    engine.jobs.append(OneJob(step=fail))
    assert engine.put_batch([(b"a", b"1")]) == 1
    assert engine.get(b"a") == b"1"


@pytest.mark.parametrize(("fault", "kept"), [("full, kept", True), ("full, lost", False)])
def test_after_no_space_the_file_is_opened_again(fault: Fault, kept: bool) -> None:
    engine = FaultyEngine()
    engine.faults.append(fault)
    if kept:
        assert engine.put_batch([(b"a", b"1")]) == 1
    else:
        with pytest.raises(StoreFullError, match="nothing was kept"):
            engine.put_batch([(b"a", b"1")])
    assert engine.get(b"a") == (b"1" if kept else None)
    assert engine.put_batch([(b"b", b"2")]) == 1 + kept


@pytest.mark.parametrize(("fault", "kept"), [("full, kept", True), ("full, lost", False)])
def test_as_long_as_there_is_no_space_nobody_knows_what_was_kept(fault: Fault, kept: bool) -> None:
    engine = FaultyEngine()
    engine.faults.append(fault)
    engine.full = True
    with pytest.raises(OutcomeUnknownError, match="not known yet"):
        engine.put_batch([(b"a", b"1")])
    with pytest.raises(StoreFullError, match="still none"):
        engine.put_batch([(b"b", b"")])
    with pytest.raises(StoreFullError, match="still none"):
        engine.prune_batch_log(9)
    assert engine.get(b"a") is None
    engine.full = False
    assert engine.put_batch([(b"b", b"2")]) == 1 + kept
    assert engine.get(b"a") == (b"1" if kept else None)


def test_after_a_job_without_space_the_next_write_opens_the_file_again() -> None:
    engine = FaultyEngine()

    def fail() -> None:
        engine.full = True
        raise StoreFullError("injected")

    engine.jobs.append(OneJob(step=fail))
    assert engine.put_batch([(b"a", b"1")]) == 1
    with pytest.raises(StoreFullError):
        engine.put_batch([(b"a", b"2")])
    engine.full = False
    assert engine.put_batch([(b"a", b"2")]) == 2


def test_a_floor_that_met_no_space_is_of_unknown_outcome() -> None:
    engine = FaultyEngine()
    engine.put_batch([(b"a", b"1")])
    engine.faults.append("full, lost")
    with pytest.raises(OutcomeUnknownError):
        engine.prune_batch_log(2)
    assert engine.prune_batch_log(2) == 1


def test_batches_have_the_time_of_the_clock(engine: DuckDBEngine) -> None:
    engine.put_batch([(b"a", b"1")])
    assert engine.last_committed_at == NOW
    assert engine.open_reader().sequence_at(NOW) == 1
