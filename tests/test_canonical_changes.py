"""How a transaction is decided, by the pure functions alone: every objection, every need."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from exo_stream.canonical.changes import Changes, CommitInfo, Source, decision, judge
from exo_stream.canonical.record import (
    NEED_RECORD,
    RECORD_KEY,
    Record,
    read_record,
    seal,
    touch,
    unseal,
)
from exo_stream.decision import UNKNOWN, Answer, KeyRange, Need, Refuse, Unknown, Write
from exo_stream.errors import ExoStreamError, SealedError, StoreError, TransactionConflictError
from exo_stream.model import Entry, Keyspace, Row, row_key

STATE, EVENT, CANONICAL = int(Keyspace.STATE), int(Keyspace.EVENT), int(Keyspace.CANONICAL)


@dataclass
class TableView:
    """A view of a dict; keys in ``unknown`` have to be fetched first."""

    sequence: int = 10
    rows_: dict[tuple[int, bytes], Row] = field(default_factory=dict)
    unknown: set[tuple[int, bytes]] = field(default_factory=set)

    def put(self, keyspace: int, key: bytes, sequence: int, value: bytes | None) -> None:
        self.rows_[keyspace, key] = Row(row_key(keyspace, key), sequence, value)

    def record(self, record: Record, sequence: int = 5) -> None:
        self.put(CANONICAL, RECORD_KEY, sequence, record.entry().value)

    def row(self, keyspace: int, key: bytes) -> Row | Unknown | None:
        assert keyspace == CANONICAL, "of the state only versions are asked for"
        return self._found(keyspace, key)

    def version(self, keyspace: int, key: bytes) -> int | Unknown:
        row = self._found(keyspace, key)
        if isinstance(row, Unknown):
            return UNKNOWN
        return 0 if row is None or row.value is None else row.sequence

    def _found(self, keyspace: int, key: bytes) -> Row | Unknown | None:
        if (keyspace, key) in self.unknown:
            return UNKNOWN
        return self.rows_.get((keyspace, key))

    def changed(self, keyspace: int, key: bytes, since: int) -> bool | Unknown:
        raise AssertionError((keyspace, key, since))

    def rows(self, wanted: KeyRange) -> list[Row] | Unknown:
        raise AssertionError(wanted)


def refused(verdict: object) -> ExoStreamError:
    assert isinstance(verdict, Refuse), verdict
    return verdict.error


def test_a_first_commit_makes_the_record() -> None:
    view = TableView()
    verdict = judge(Changes([(b"k", b"v")], [b"e", b"f"]), view, 77)
    assert isinstance(verdict, Write)
    assert verdict.answer == CommitInfo(2, 0, 1, 1, 0, 0, 10)
    assert list(verdict.entries[:3]) == [
        Entry(STATE, b"k", b"v"),
        Entry(EVENT, bytes(8), b"e"),
        Entry(EVENT, bytes(7) + b"\x01", b"f"),
    ]
    row = Row(b"", 10, verdict.entries[3].value)
    assert read_record(row) == Record(2, 0, 0, created_at=77, updated_at=77)


def test_a_later_one_goes_on_where_the_record_is() -> None:
    view = TableView()
    view.record(Record(next_event_id=7, schema_version=3, created_at=1, updated_at=2))
    verdict = judge(Changes(events=[b"e"], first_event_id=7), view, 77)
    assert isinstance(verdict, Write)
    assert read_record(Row(b"", 10, verdict.entries[-1].value)) == Record(8, 0, 3, 1, 77)


def test_what_is_not_in_memory_is_asked_for_all_at_once() -> None:
    changes = Changes([(b"put", b"v"), (b"del", None)], [], {b"read": 0, b"known": 0})
    view = TableView(unknown={(STATE, b"read"), (STATE, b"del"), (CANONICAL, RECORD_KEY)})
    verdict = judge(changes, view, 0)
    assert isinstance(verdict, Need)
    assert verdict.keys == NEED_RECORD.keys
    assert list(verdict.versions) == [(STATE, b"read"), (STATE, b"del")]
    view.unknown.discard((CANONICAL, RECORD_KEY))
    verdict = judge(changes, view, 0)
    assert isinstance(verdict, Need)
    assert verdict == Need(versions=[(STATE, b"read"), (STATE, b"del")])


@pytest.mark.parametrize(
    ("row", "expected", "found"),
    [
        pytest.param((4, b"v"), 3, 4, id="written again"),
        pytest.param((4, b"v"), 0, 4, id="created"),
        pytest.param(None, 4, 0, id="gone"),
        pytest.param((4, None), 3, 0, id="deleted"),
    ],
)
def test_a_version_that_is_another_is_a_conflict(
    row: tuple[int, bytes | None] | None, expected: int, found: int
) -> None:
    view = TableView()
    if row is not None:
        view.put(STATE, b"k", *row)
    error = refused(judge(Changes(reads={b"k": expected}), view, 0))
    assert isinstance(error, TransactionConflictError)
    assert (error.key, error.expected, error.found) == (b"k", expected, found)
    if found:
        assert isinstance(judge(Changes(reads={b"k": found}), view, 0), Answer)


def test_absent_is_absent_whether_deleted_or_never_there() -> None:
    view = TableView()
    view.put(STATE, b"deleted", 4, None)
    verdict = judge(Changes(reads={b"deleted": 0, b"never": 0}), view, 0)
    assert verdict == Answer(CommitInfo(0, None, None, 0, 0, 0, 9))


def test_the_whole_state_and_ids_given_away_are_checked_by_the_record() -> None:
    view = TableView()
    view.record(Record(next_event_id=7), sequence=5)
    assert isinstance(judge(Changes(store_version=5), view, 0), Answer)
    error = refused(judge(Changes(store_version=4), view, 0))
    assert isinstance(error, TransactionConflictError)
    assert (error.key, error.expected, error.found) == (b"", 4, 5)
    error = refused(judge(Changes(events=[b"e"], first_event_id=6), view, 0))
    assert isinstance(error, TransactionConflictError)
    assert (error.key, error.expected, error.found) == (b"", 6, 7)


def test_a_sealed_store_refuses_before_it_looks_at_anything_else() -> None:
    view = TableView()
    view.record(Record(next_event_id=7, sealed=7))
    for changes in (Changes(), Changes([(b"k", b"v")]), Changes(reads={b"k": 99})):
        error = refused(judge(changes, view, 0))
        assert isinstance(error, SealedError)
        assert error.sealed_event_id == 6


@pytest.mark.parametrize(
    ("operations", "final", "written", "deleted"),
    [
        pytest.param([(b"k", b"1"), (b"k", b"2")], {b"k": b"2"}, 2, 0, id="put twice"),
        pytest.param([(b"k", b"1"), (b"k", None)], {b"k": None}, 1, 1, id="put, deleted"),
        pytest.param([(b"k", None)], {}, 0, 0, id="nothing deleted"),
        pytest.param([(b"here", None)], {b"here": None}, 0, 1, id="deleted"),
        pytest.param([(b"here", None), (b"here", None)], {b"here": None}, 0, 1, id="twice"),
        pytest.param([(b"here", None), (b"here", b"")], {b"here": b""}, 1, 1, id="put again"),
        pytest.param([(b"k", None), (b"k", b"1")], {b"k": b"1"}, 1, 0, id="absent, then put"),
        pytest.param([(b"gone", None)], {}, 0, 0, id="a tombstone is not there"),
    ],
)
def test_puts_are_counted_by_call_and_deletions_by_what_was_there(
    operations: list[tuple[bytes, bytes | None]],
    final: dict[bytes, bytes | None],
    written: int,
    deleted: int,
) -> None:
    view = TableView()
    view.put(STATE, b"here", 3, b"v")
    view.put(STATE, b"gone", 3, None)
    verdict = judge(Changes(operations), view, 0)
    assert isinstance(verdict, Write | Answer)
    answer = verdict.answer
    assert (answer.state_keys_written, answer.state_keys_deleted) == (written, deleted)
    entries = verdict.entries[:-1] if isinstance(verdict, Write) else []
    assert [(entry.key, entry.value) for entry in entries] == list(final.items())


def test_who_builds_on_another_goes_by_what_became_of_it() -> None:
    info = CommitInfo(0, None, None, 1, 0, 0, 10)
    settled: list[CommitInfo | ExoStreamError | None] = [None]
    source = Source(lambda: settled[0])
    view, next_view = TableView(), TableView(sequence=12)
    first = decision(Changes([(b"k", b"v")]), source)
    on_it = [
        Changes([(b"k", b"w")], reads={b"k": source}),
        Changes([(b"k", b"w")], built_on=[source]),
        Changes([(b"k", b"w")], store_version=source),
    ]
    for changes in on_it:  # asked before the first is decided: thrown away, and asked again
        assert isinstance(refused(judge(changes, view, 0)), TransactionConflictError)
    assert isinstance(first(view, 0), Write)
    view.put(STATE, b"k", 10, b"v")
    view.record(Record(), sequence=10)
    view.sequence = 11
    for changes in on_it:
        assert isinstance(judge(changes, view, 0), Write), "in the same group"
    settled[0] = StoreError("its group failed")
    for changes in on_it:
        # Another batch may have been given its number by now.
        next_view.put(STATE, b"k", 10, b"v")
        assert isinstance(refused(judge(changes, next_view, 0)), StoreError)
    settled[0] = info
    next_view.record(Record(), sequence=10)
    source.forget_view()
    for changes in on_it:
        assert isinstance(judge(changes, next_view, 0), Write), "in an earlier group"


def test_a_source_that_was_refused_is_not_in_its_group() -> None:
    view = TableView()
    source = Source(lambda: None)
    assert isinstance(decision(Changes(reads={b"k": 3}), source)(view, 0), Refuse)
    assert isinstance(source.version(view), TransactionConflictError)


def test_seal_and_unseal_and_open_need_the_record_first() -> None:
    view = TableView(unknown={(CANONICAL, RECORD_KEY)})
    for decide in (seal, unseal, touch):
        assert decide(view, 0) == NEED_RECORD


def test_a_seal_is_at_the_last_event_once() -> None:
    view = TableView()
    assert seal(view, 0) == Answer(0)
    assert unseal(view, 0) == Answer(None)
    view.record(Record(next_event_id=7, created_at=1))
    verdict = seal(view, 88)
    assert isinstance(verdict, Write)
    assert verdict.answer == 6
    sealed = read_record(Row(b"", 10, verdict.entries[0].value))
    assert sealed == Record(7, 7, 0, 1, 88)
    assert sealed.sealed_event_id == 6
    view.record(sealed)
    assert seal(view, 99) == Answer(6)
    verdict_ = unseal(view, 99)
    assert isinstance(verdict_, Write)
    assert read_record(Row(b"", 11, verdict_.entries[0].value)) == Record(7, 0, 0, 1, 99)
    assert Record().sealed_event_id is None


def test_opening_notes_the_time_and_keeps_the_rest() -> None:
    view = TableView()
    verdict = touch(view, 5)
    assert isinstance(verdict, Write)
    assert read_record(Row(b"", 1, verdict.entries[0].value)) == Record(0, 0, 0, 5, 5)
    view.record(Record(7, 3, 1, 2, 4))
    verdict = touch(view, 9)
    assert isinstance(verdict, Write)
    assert read_record(Row(b"", 1, verdict.entries[0].value)) == Record(7, 3, 1, 2, 9)
