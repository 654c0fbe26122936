"""The index of interest: as one by one matching would find, and nothing kept of those who left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.interest import LOOK_STEPS, Interest, Seat
from exo_stream.keys import MatchKey
from exo_stream.limits import Limits
from exo_stream.matchers import matcher_of
from exo_stream.model import Entry, Keyspace
from exo_stream.payload import EncodedBatch
from exo_stream.selectors import AnySelector, ExactValue, Selector, StoreSelector, ValueRegex

KEYS = st.binary(max_size=3).map(lambda key: bytes(byte % 3 for byte in key))
PREFIXES = st.builds(Selector, KEYS, st.sampled_from([Keyspace.STORE, Keyspace.EVENT]))
MATCH_KEYS = st.builds(
    lambda bits, prefix, regex: MatchKey(bits, prefix % (1 << bits), regex),
    st.sampled_from([0, 3, 6, 8, 14, 16]),
    st.sampled_from([0, 1, 2, 0x101]),
    st.sampled_from([".*", r"\x01", r"\x02$"]),
)
SPECIAL = st.builds(
    StoreSelector,
    st.lists(MATCH_KEYS, max_size=3).map(tuple),
    st.sampled_from([(), (ExactValue(b""),), (ValueRegex("x"),)]),
    KEYS,
)
SELECTORS = st.one_of(PREFIXES, SPECIAL)
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
    selectors: set[AnySelector], written: list[tuple[Keyspace, list[bytes]]]
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
        if (found := [part for b in batches if (part := matcher_of(selector).select(b))])
    }
    matched = interest.match(batches)
    assert {s: [plain(part) for part in found] for s, found in matched.items()} == {
        s: [plain(part) for part in found] for s, found in expected.items()
    }


@given(SPECIAL, SPECIAL)
def test_equal_selectors_share_and_leave_nothing_behind(
    one: StoreSelector, other: StoreSelector
) -> None:
    interest = interest_at(0)
    parked = [(selector, interest.park(selector)) for selector in (one, other, one)]
    assert len(interest._all) == len({one, other})
    for selector, sleeper in parked:
        interest.unpark(selector, sleeper)
    assert interest._all == {}
    assert not interest._by_lead


def test_what_would_be_too_much_work_is_left_to_those_who_asked() -> None:
    """Those who follow a prefix have their part all the same."""
    special = StoreSelector((MatchKey(0, 0, "a"),), (ValueRegex("(?-u)a{90}b"),))
    entries = (Entry(Keyspace.STORE, b"k", b"v" * 100),)
    large = EncodedBatch(1, 0, entries=entries)
    work = matcher_of(special).steps(entries)
    too_much: dict[AnySelector, list[EncodedBatch]] = {special: []}
    for steps_max, expected in ((work - 1, too_much), (work, {})):
        interest = Interest(0, matcher_of, steps_max=steps_max)
        interest.park(special)
        interest.park(Selector(b"k"))
        matched = interest.match([large])
        assert [plain(part) for part in matched.pop(Selector(b"k"))] == [plain(large)]
        assert matched == expected


def test_the_cheap_do_not_pay_for_the_dear() -> None:
    cheap = StoreSelector((MatchKey(0, 0, "k"),))
    dear = StoreSelector((MatchKey(0, 0, "(?-u)k{500}"),))
    entries = (Entry(Keyspace.STORE, b"k", b""),)
    group = [EncodedBatch(sequence, 0, entries=entries) for sequence in (1, 2)]
    interest = Interest(0, matcher_of, steps_max=4 * LOOK_STEPS + 100)
    for selector in (dear, cheap):
        interest.park(selector)
    matched = interest.match(group)
    assert matched.pop(dear) == []
    assert [part.sequence for part in matched.pop(cheap)] == [1, 2]
    assert matched == {}


def test_many_entries_are_too_much_work_before_they_are_found() -> None:
    interest = Interest(0, matcher_of, steps_max=LOOK_STEPS)
    special = StoreSelector((MatchKey(0, 0, "a"),))
    interest.park(special)
    assert interest.match([batch(1, b"a", b"b", b"c")]) == {special: []}


def test_an_entry_that_begins_as_two_match_keys_ask_is_found_once_and_twins_twice() -> None:
    interest = interest_at(0)
    special = StoreSelector((MatchKey(0, 0, "a"), MatchKey(8, 0x61, ".*")))
    interest.park(special)
    twins = batch(1, b"a", b"x", b"a")
    [(selector, [part])] = interest.match([twins]).items()
    assert selector == special
    assert [entry.key for entry in part.entries] == [b"a", b"a"]


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
