"""The public conformance suites, on every backend of ours and on one of only nine methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import signature
from operator import attrgetter
from pathlib import Path

import pytest

from exo_stream.conformance import ENGINE_CHECKS, LOG_CHECKS, STORE_ENGINE_CHECKS
from exo_stream.limits import Limits
from exo_stream.storage.duckdb_engine import DuckDBEngine, open_duckdb_engine
from exo_stream.storage.engine import Engine, StoreEngine
from exo_stream.storage.memory_engine import MemoryEngine

TINY = Limits(
    memtable_entries_max=4,
    slice_rows_max=2,
    runs_max=1,
    page_rows_max=3,
    cache_bytes_max=1_000,
)
"""With these nearly everything that a check writes is folded and merged at once."""


@pytest.fixture(
    params=["memory", "file", pytest.param("file, folded at once", marks=pytest.mark.slow)]
)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryEngine | DuckDBEngine]:
    if request.param == "memory":
        yield MemoryEngine()
        return
    limits = Limits() if request.param == "file" else TINY
    opened = open_duckdb_engine(tmp_path / "store.duckdb", limits=limits)
    yield opened
    opened.close()


def test_the_trait_has_nine_methods_letter_for_letter() -> None:
    assert {
        name: [*signature(method).parameters][1:]
        for name, method in vars(StoreEngine).items()
        if not name.startswith("_")
    } == {
        "put_batch": ["kvs"],
        "get": ["key"],
        "range_scan": ["start", "end", "limit", "forward"],
        "get_many": ["keys"],
        "delete_batch": ["keys"],
        "current_sequence": [],
        "get_batch": ["sequence"],
        "oldest_retained_batch": [],
        "prune_batch_log": ["cutoff_exclusive"],
    }


@pytest.mark.parametrize("check", [*STORE_ENGINE_CHECKS, *LOG_CHECKS], ids=attrgetter("__name__"))
def test_an_engine_conforms_to_the_trait(
    engine: MemoryEngine | DuckDBEngine, check: Callable[[StoreEngine], None]
) -> None:
    check(engine)


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=attrgetter("__name__"))
def test_an_engine_conforms_to_the_seam(
    engine: MemoryEngine | DuckDBEngine, check: Callable[[Engine], None]
) -> None:
    check(engine)
