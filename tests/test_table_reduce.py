"""Reducing a file: SQL finds what looking at the rows one by one finds."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo_stream.errors import InvalidRequestError
from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace, row_key
from exo_stream.reduce.reduction import Reduction
from exo_stream.reduce.request import ReduceRequest, ReduceResult
from exo_stream.storage.duckdb_engine import DuckDBEngine, open_duckdb_engine
from exo_stream.storage.engine import Reducing
from exo_stream.storage.paged_reduce import PagedReduce
from exo_stream.storage.reduce_sql import is_pushable
from exo_stream.storage.table_reduce import TableReduce
from tests.reductions import comparable, keys, requests, row_values
from tests.tables import work, write

LOW, HIGH = row_key(Keyspace.STORE, b""), row_key(Keyspace.STORE + 1, b"")
SMALL = Limits(memtable_entries_max=24, slice_rows_max=8, runs_max=2)


def reduced(engine: DuckDBEngine, reducing: Reducing) -> ReduceResult:
    reader = engine.open_reader()
    while True:
        while not reducing.plan():
            pass
        result = reducing.run(reader)
        if result is not None:
            return result


def outcome(engine: DuckDBEngine, reducing: Reducing) -> object:
    try:
        return comparable(reduced(engine, reducing))
    except InvalidRequestError as error:
        return str(error)


def by_hand(table: dict[bytes, bytes], request: ReduceRequest) -> object:
    reduction = Reduction(request, SMALL)
    try:
        reduction.add_rows(sorted(table.items()))
        return comparable(reduction.result(0))
    except InvalidRequestError as error:
        return str(error)


@pytest.mark.slow
@settings(max_examples=40)
@given(data=st.data())
def test_sql_and_looking_at_each_row_agree(data: st.DataObject) -> None:
    """On a real file, with entries in memory, several runs, overwritten keys and deletions."""
    values = data.draw(row_values())
    batches = data.draw(
        st.lists(
            st.lists(
                st.tuples(keys, st.none() | values | values | values), min_size=1, max_size=16
            ),
            min_size=1,
            max_size=8,
        )
    )
    table: dict[bytes, bytes] = {}
    with tempfile.TemporaryDirectory() as directory:
        engine = open_duckdb_engine(Path(directory) / "store.duckdb", limits=SMALL)
        for batch in batches:
            write(engine, [Entry(Keyspace.STORE, key, value) for key, value in batch])
            for key, value in batch:
                table.pop(key, None)
                if value is not None:
                    table[key] = value
            work(engine)
        for any_request in (requests(), *[requests(by_sql=True)] * 4):
            request = data.draw(any_request)
            version = engine.version
            expected = by_hand(table, request)

            paged = PagedReduce(engine, version, LOW, HIGH, Reduction(request, SMALL))
            assert outcome(engine, paged) == expected
            if is_pushable(request):
                sql = engine.open_reduce(version, LOW, HIGH, Reduction(request, SMALL))
                assert isinstance(sql, TableReduce)
                assert outcome(engine, sql) == expected
        engine.close()
