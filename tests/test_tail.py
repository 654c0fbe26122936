"""The tail: the newest batches, bounded, and never a page with a gap."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.model import Entry, Keyspace
from exo_stream.payload import EncodedBatch, encode_entries
from exo_stream.tail import Tail


def batch(sequence: int, size: int = 1) -> EncodedBatch:
    return EncodedBatch(sequence, 0, entries=(Entry(Keyspace.STORE, b"", b"v" * size),))


def held(size: int = 1) -> int:
    return tail_bytes([batch(1, size)])


def tail_bytes(batches: list[EncodedBatch]) -> int:
    tail = Tail(0, batches_max=len(batches), bytes_max=1 << 40)
    tail.push(batches)
    return tail.bytes


def memory_bytes(batch: EncodedBatch) -> int:
    """What Python allocated for it, and its place in a list."""
    parts = [batch, batch.sequence, batch.committed_at, batch.payload, batch.entries]
    for entry in batch.entries:
        parts += [entry, entry.key, entry.value]
    return 8 + sum(map(sys.getsizeof, parts))


def tail_of(*sequences: int, after: int = 0, batches_max: int = 100, held_max: int = 100) -> Tail:
    tail = Tail(after, batches_max=batches_max, bytes_max=held_max * held())
    tail.push([batch(sequence) for sequence in sequences])
    return tail


def numbers(tail: Tail, after: int, batches_max: int = 100, bytes_max: int = 1_000) -> list[int]:
    page = tail.since(after, batches_max=batches_max, bytes_max=bytes_max)
    assert page is not None
    return [batch.sequence for batch in page]


def test_a_page_follows_its_position() -> None:
    tail = tail_of(1, 2, 3, 4)
    assert numbers(tail, 0) == [1, 2, 3, 4]
    assert numbers(tail, 2) == [3, 4]
    assert numbers(tail, 4) == []
    assert numbers(tail, 1, batches_max=2) == [2, 3]


def test_a_page_is_bounded_in_bytes_but_never_empty() -> None:
    tail = tail_of()
    tail.push([batch(1, 500), batch(2, 500), batch(3, 500)])
    assert numbers(tail, 0, bytes_max=1_100) == [1, 2]
    assert numbers(tail, 0, bytes_max=1) == [1]


def test_who_stands_before_it_must_read_the_log() -> None:
    tail = tail_of(8, 9, after=7)
    assert tail.since(6, batches_max=1, bytes_max=1) is None
    assert numbers(tail, 7) == [8, 9]
    assert Tail(7, batches_max=1, bytes_max=1).since(6, batches_max=1, bytes_max=1) is None


def test_the_oldest_go_first_by_number_and_by_bytes() -> None:
    assert numbers(tail_of(*range(1, 10), batches_max=3), 6) == [7, 8, 9]
    tail = tail_of(*range(1, 10), held_max=4)
    assert tail.after == 5
    assert tail.bytes == 4 * held()


def test_one_batch_larger_than_everything_is_kept_alone() -> None:
    tail = tail_of(1, 2)
    tail.push([batch(3, 1_000_000)])
    assert len(tail) == 1
    assert numbers(tail, 2) == [3]


@pytest.mark.parametrize(
    ("entries", "key", "size"), [(0, 1, 1), (1, 8, 100), (99, 32, 8), (2, 1, 10**6)]
)
def test_what_it_counts_is_what_a_decoded_batch_occupies(entries: int, key: int, size: int) -> None:
    one = EncodedBatch(
        10**12,
        10**15,
        encode_entries(
            [Entry(Keyspace.STORE, b"%0*d" % (key, i), b"v" * size) for i in range(entries)]
        ),
    )
    counted = tail_bytes([one])
    assert one._entries is None, "counting decodes nothing"
    assert 0.7 * counted <= memory_bytes(one) <= counted


def test_numbers_may_have_holes() -> None:
    tail = tail_of(2, 5, 9)
    assert [numbers(tail, after) for after in (0, 2, 3, 5, 9)] == [
        [2, 5, 9],
        [5, 9],
        [5, 9],
        [9],
        [],
    ]


@pytest.mark.parametrize(("floor", "after"), [(0, 0), (1, 0), (3, 2), (6, 5)])
def test_what_retention_evicted_is_dropped(floor: int, after: int) -> None:
    tail = tail_of(1, 2, 3, 4, 5)
    tail.evict_below(floor)
    assert tail.after == after
    assert numbers(tail, after) == list(range(after + 1, 6))
    assert tail.bytes == held() * len(tail)
    tail.push([batch(6)])
    assert numbers(tail, 5) == [6]


@given(
    st.lists(st.one_of(st.integers(1, 5), st.tuples(st.integers(0, 40))), max_size=30),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_it_is_always_the_end_of_the_log_without_a_gap(
    steps: list[int | tuple[int]], batches_max: int, held_max: int
) -> None:
    tail = tail_of(batches_max=batches_max, held_max=held_max)
    newest = floor = 0
    for step in steps:
        if isinstance(step, int):
            tail.push([batch(newest + i + 1) for i in range(step)])
            newest += step
        else:
            floor = max(floor, min(step[0], newest + 1))
            tail.evict_below(floor)
        assert tail.after >= floor - 1
        assert numbers(tail, tail.after, bytes_max=100_000) == list(
            range(tail.after + 1, newest + 1)
        )
        assert len(tail) <= batches_max
        assert tail.bytes == len(tail) * held() <= max(held_max, 1) * held()
        assert len(tail._batches) <= 2 * len(tail) + 1, "what is gone is cut off"
