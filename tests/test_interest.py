"""The index of interest: as one by one matching would find, and nothing kept of those who left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.interest import Interest, Seat
from exo_stream.limits import Limits
from exo_stream.matchers import matcher_of
from exo_stream.model import Entry, Keyspace
from exo_stream.payload import EncodedBatch
from exo_stream.selectors import Selector

KEYS = st.binary(max_size=3).map(lambda key: bytes(byte % 3 for byte in key))
SELECTORS = st.builds(Selector, KEYS, st.sampled_from([Keyspace.STORE, Keyspace.EVENT]))
BATCHES = st.lists(
    st.tuples(
        st.sampled_from([Keyspace.STORE, Keyspace.EVENT, Keyspace.PRODUCER]),
        st.lists(KEYS, max_size=4),
    ),
    max_size=5,
)


def batch(sequence: int, *keys: bytes, keyspace: Keyspace = Keyspace.STORE) -> EncodedBatch:
    return EncodedBatch(sequence, 0, entries=tuple(Entry(keyspace, key, b"") for key in keys))


def plain(found: EncodedBatch) -> tuple[int, tuple[Entry, ...]]:
    return found.sequence, found.entries


def interest_at(through: int) -> Interest:
    return Interest(through, matcher_of, steps_max=Limits().match_steps_max)


def seat_of(selector: Selector, sequence: int) -> Seat[Any]:
    def encode(_batches: Sequence[EncodedBatch]) -> Sequence[Any]:
        return []

    return Seat(selector, sequence, encode, lambda _body: True)


@given(st.sets(SELECTORS, max_size=8), BATCHES)
def test_the_index_finds_what_matching_one_by_one_finds(
    selectors: set[Selector], written: list[tuple[Keyspace, list[bytes]]]
) -> None:
    interest = interest_at(0)
    for selector in selectors:
        interest.park(selector)
    batches = [
        batch(sequence, *keys, keyspace=keyspace)
        for sequence, (keyspace, keys) in enumerate(written, start=1)
    ]
    expected = {
        selector: found
        for selector in selectors
        if (found := [part for batch in batches if (part := selector.select(batch))])
    }
    matched = interest.match(batches)
    assert {s: [plain(part) for part in found] for s, found in matched.items()} == {
        s: [plain(part) for part in found] for s, found in expected.items()
    }


def test_nobody_is_interested_in_nothing() -> None:
    assert interest_at(0).match([batch(1, b"k")]) == {}


def test_who_leaves_leaves_nothing_behind() -> None:
    interest = interest_at(4)
    selector = Selector(b"a")
    parked = [interest.park(selector) for _ in range(2)]
    seat = seat_of(selector, 4)
    interest.take_seat(seat)
    assert (len(interest), interest.seats) == (3, 1)
    interest.unpark(selector, parked[0])
    assert interest.leave_seat(seat) == 4
    interest.unpark(selector, parked[1])
    assert (len(interest), interest.seats) == (0, 0)
    assert interest.interested(selector) is None
    assert interest._all == {}
    assert not interest._by_prefix


def test_leaving_a_seat_tells_what_it_took_once() -> None:
    interest = interest_at(4)
    seat = seat_of(Selector(b"a"), 4)
    interest.take_seat(seat)
    interest.through = 9  # nothing matched up to here
    interest.lose_seat(seat)
    assert seat.lost.is_set()
    interest.through = 20  # it was not in the index any more
    assert interest.leave_seat(seat) == 9


def test_another_seat_of_the_same_selector_is_not_given_up_with_it() -> None:
    interest = interest_at(0)
    one, other = seat_of(Selector(), 0), seat_of(Selector(), 0)
    interest.take_seat(other)
    interest.leave_seat(one)
    assert interest.seats == 1


def test_a_seat_is_taken_at_the_frontier_never_before_what_is_being_handed_out() -> None:
    with pytest.raises(AssertionError):
        interest_at(5).take_seat(seat_of(Selector(), 4))


def test_closing_wakes_the_parked_and_takes_the_seats_away() -> None:
    interest = interest_at(0)
    parked = [interest.park(Selector(b"a")), interest.park(Selector(b"b"))]
    seats = [seat_of(Selector(b"a"), 0), seat_of(Selector(b"c"), 0)]
    for seat in seats:
        interest.take_seat(seat)
    interest.close()
    assert interest.closed
    assert all(sleeper.woken.is_set() and sleeper.found is None for sleeper in parked)
    assert all(seat.lost.is_set() for seat in seats)
    assert interest.seats == 0
