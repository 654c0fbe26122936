"""Idempotent producers: one row per sentence of docs/guarantees.md, number 6."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream import producers
from exo_stream.decision import UNKNOWN, Answer, KeyRange, Need, Unknown, Verdict, Write
from exo_stream.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    ProducerFencedError,
    ProducerGapError,
)
from exo_stream.model import SEQUENCE_MAX, Entry, Keyspace, Row, row_key
from exo_stream.producers import (
    WINDOW,
    Accepted,
    Duplicate,
    Judgement,
    Producer,
    Rejected,
    judge,
)


class Table:
    """A view of a table that is all in memory, unless a key is in ``cold``."""

    def __init__(self) -> None:
        self.sequence = 1
        self.found: dict[bytes, Row] = {}
        self.cold: set[bytes] = set()
        self.ranges_are_cold = False

    def row(self, keyspace: int, key: bytes) -> Row | Unknown | None:
        return UNKNOWN if key in self.cold else self.found.get(row_key(keyspace, key))

    def version(self, keyspace: int, key: bytes) -> int | Unknown:
        row = self.row(keyspace, key)
        if isinstance(row, Unknown):
            return row
        return 0 if row is None or row.value is None else row.sequence

    def changed(self, keyspace: int, key: bytes, since: int) -> bool | Unknown:
        row = self.row(keyspace, key)
        return row if isinstance(row, Unknown) else row is not None and row.sequence > since

    def rows(self, wanted: KeyRange) -> list[Row] | Unknown:
        if self.ranges_are_cold:
            return UNKNOWN
        start, end = row_key(wanted.keyspace, wanted.start), row_key(wanted.keyspace, wanted.end)
        found = [self.found[key] for key in sorted(self.found) if start <= key < end]
        return [row for row in found if row.value is not None][: wanted.limit]

    def write(self, entries: Any) -> int:
        for keyspace, key, value in entries:
            whole = row_key(keyspace, key)
            self.found[whole] = Row(whole, self.sequence, value)
        self.sequence += 1
        return self.sequence - 1


def attempt(table: Table, seq: int, *, epoch: int = 0, now: int = 0, **options: Any) -> Judgement:
    """Judge a write, and if it is new, write it."""
    judgement = judge(Producer(b"p", epoch, seq, **options), table, now)
    if isinstance(judgement, Accepted):
        table.write(judgement.entries)
    return judgement


def written(*attempts: tuple[int, int]) -> Table:
    """What is there after these ``(epoch, seq)`` have been accepted, as sequences from 1 on."""
    table = Table()
    for epoch, seq in attempts:
        assert isinstance(attempt(table, seq, epoch=epoch), Accepted)
    return table


BEFORE = [(1, 0), (1, 1), (1, 300)]


@pytest.mark.parametrize(
    ("epoch", "seq", "expected"),
    [
        pytest.param(1, 301, Accepted, id="newer"),
        pytest.param(1, 1_000, Accepted, id="newer, numbers skipped"),
        pytest.param(1, SEQUENCE_MAX, Accepted, id="the newest there can be"),
        pytest.param(1, 45, Accepted, id="the oldest in the window, absent"),
        pytest.param(1, 299, Accepted, id="inside the window, absent"),
        pytest.param(1, 300, Duplicate(3), id="in the record"),
        pytest.param(1, 0, Duplicate(1), id="out of the window, but still in the record"),
        pytest.param(1, 44, OutcomeUnknownError, id="older than the window, slot overwritten"),
        pytest.param(1, 2, OutcomeUnknownError, id="older than the window, never seen"),
        pytest.param(0, 0, ProducerFencedError, id="a lower epoch"),
        pytest.param(0, SEQUENCE_MAX, ProducerFencedError, id="a lower epoch, however new"),
        pytest.param(2, 0, Accepted, id="a higher epoch begins again"),
        pytest.param(2, 300, Accepted, id="a higher epoch, a number of the last one"),
        pytest.param(SEQUENCE_MAX, 7, Accepted, id="a higher epoch begins anywhere"),
    ],
)
def test_a_write_is_new_or_a_duplicate_or_refused(epoch: int, seq: int, expected: Any) -> None:
    judgement = attempt(written(*BEFORE), seq, epoch=epoch)
    if isinstance(expected, Duplicate):
        assert judgement == expected
    elif expected is Accepted:
        assert isinstance(judgement, Accepted)
    else:
        assert isinstance(judgement, Rejected)
        assert isinstance(judgement.error, expected)


@pytest.mark.parametrize(
    ("epoch", "seq", "expected"),
    [
        pytest.param(1, 2, None, id="the next"),
        pytest.param(1, 3, (2, 3), id="one skipped"),
        pytest.param(2, 0, None, id="a new epoch from the start"),
        pytest.param(2, 1, (0, 1), id="a new epoch in the middle"),
    ],
)
def test_a_contiguous_producer_may_not_skip(
    epoch: int, seq: int, expected: tuple[int, int] | None
) -> None:
    judgement = attempt(written((1, 0), (1, 1)), seq, epoch=epoch, contiguous=True)
    if expected is None:
        assert isinstance(judgement, Accepted)
    else:
        assert isinstance(judgement, Rejected)
        assert isinstance(judgement.error, ProducerGapError)
        assert (judgement.error.expected_seq, judgement.error.received_seq) == expected


def test_a_contiguous_producer_that_is_not_known_begins_at_0() -> None:
    assert isinstance(attempt(Table(), 0, contiguous=True), Accepted)
    judgement = attempt(Table(), 1, contiguous=True)
    assert isinstance(judgement, Rejected)
    assert isinstance(judgement.error, ProducerGapError)


def test_a_fenced_producer_is_told_the_epoch_that_fenced_it() -> None:
    judgement = attempt(written((7, 0)), 0, epoch=6)
    assert isinstance(judgement, Rejected)
    assert isinstance(judgement.error, ProducerFencedError)
    assert judgement.error.current_epoch == 7


def test_every_number_of_the_window_is_remembered() -> None:
    """One slot more or less would be an off-by-one that only the 257th write meets."""
    table = written(*[(0, seq) for seq in range(1_000)])
    for seq in range(1_000 - WINDOW, 1_000):
        assert attempt(table, seq) == Duplicate(seq + 1)
    judgement = attempt(table, 1_000 - WINDOW - 1)
    assert isinstance(judgement, Rejected)
    assert isinstance(judgement.error, OutcomeUnknownError)


def test_one_producer_is_not_mistaken_for_another_whose_id_begins_alike() -> None:
    ids = [b"a", b"ab", b"a\x00", b"\x01", b"\x01a", b"a" * 64, b"\xff"]
    keys = [producers.head_key(id_) for id_ in ids]
    keys += [producers.slot_key(id_, seq) for id_ in ids for seq in range(WINDOW)]
    assert len(set(keys)) == len(keys)
    heads = [key for key in keys if producers.is_head(key)]
    assert heads == [producers.head_key(id_) for id_ in ids]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 700), st.booleans()), min_size=1, max_size=60
    )
)
def test_no_write_takes_effect_twice_and_none_is_wrongly_called_a_duplicate(
    attempts: list[tuple[int, int, bool]],
) -> None:
    """Against a memory without bounds: a duplicate has its first sequence, an acceptance is new."""
    table = Table()
    accepted: dict[tuple[int, int], int] = {}
    for epoch, seq, contiguous in attempts:
        before = table.sequence
        judgement = attempt(table, seq, epoch=epoch, contiguous=contiguous)
        if isinstance(judgement, Accepted):
            assert (epoch, seq) not in accepted
            accepted[epoch, seq] = before
        elif isinstance(judgement, Duplicate):
            assert judgement.sequence == accepted[epoch, seq]
        else:
            assert isinstance(judgement, Rejected)
            if isinstance(judgement.error, ProducerFencedError):
                assert judgement.error.current_epoch == max(e for e, _ in accepted)


@pytest.mark.parametrize(
    "cold",
    [
        pytest.param([producers.head_key(b"p")], id="the head"),
        pytest.param([producers.slot_key(b"p", 5)], id="the slot"),
        pytest.param([producers.head_key(b"p"), producers.slot_key(b"p", 5)], id="both"),
    ],
)
def test_what_is_not_in_memory_is_asked_for_all_at_once(cold: list[bytes]) -> None:
    table = Table()
    table.cold.update(cold)
    assert judge(Producer(b"p", 0, 5), table, 0) == Need(
        keys=[(int(Keyspace.PRODUCER), key) for key in cold]
    )


@pytest.mark.parametrize(
    "producer",
    [
        pytest.param(Producer(b"", 0, 0), id="no id"),
        pytest.param(Producer(b"p" * 65, 0, 0), id="a long id"),
        pytest.param(Producer("p", 0, 0), id="a text for an id"),  # type: ignore[arg-type]  # what is refused
        pytest.param(Producer(b"p", -1, 0), id="a negative epoch"),
        pytest.param(Producer(b"p", 0, -1), id="a negative seq"),
        pytest.param(Producer(b"p", SEQUENCE_MAX + 1, 0), id="an epoch too large"),
        pytest.param(Producer(b"p", 0, SEQUENCE_MAX + 1), id="a seq too large"),
        pytest.param(Producer(b"p", True, 0), id="a bool for an epoch"),
        pytest.param(Producer(b"p", 0, 1.0), id="a float for a seq"),  # type: ignore[arg-type]  # what is refused
    ],
)
def test_a_producer_that_cannot_be_is_refused_in_one_sentence(producer: Producer) -> None:
    with pytest.raises(InvalidRequestError, match=r"^a producer"):
        producer.check()


def test_a_producer_at_its_bounds_is_fine() -> None:
    Producer(b"p" * 64, SEQUENCE_MAX, SEQUENCE_MAX).check()


def expired(table: Table, *, before: int) -> Verdict[bool]:
    return producers.expire(b"p", before=before)(table, 0)


def test_an_idle_producer_is_forgotten_with_all_its_slots() -> None:
    table = written(*[(0, seq) for seq in range(WINDOW)])
    table.write([Entry(Keyspace.PRODUCER, producers.head_key(b"pp"), b"another's")])
    verdict = expired(table, before=1)
    assert isinstance(verdict, Write)
    assert verdict.answer is True
    assert len(verdict.entries) == WINDOW + 1
    table.write(verdict.entries)
    assert len([row for row in table.found.values() if row.value is not None]) == 1
    assert isinstance(attempt(table, 0), Accepted)


def test_a_producer_that_wrote_meanwhile_is_not_forgotten() -> None:
    table = Table()
    attempt(table, 0, now=50)
    assert expired(table, before=50) == Answer(answer=False)


def test_an_unknown_producer_needs_no_forgetting() -> None:
    assert expired(Table(), before=50) == Answer(answer=False)


def test_forgetting_asks_for_the_record_first() -> None:
    table = Table()
    table.ranges_are_cold = True
    verdict = expired(table, before=50)
    assert isinstance(verdict, Need)
    [wanted] = verdict.ranges
    assert wanted.limit == WINDOW + 1
