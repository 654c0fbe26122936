"""Selectors: the matching entries in their order, and no copy where everything matches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.model import Entry, Keyspace
from exo_stream.payload import EncodedBatch, encode_entries
from exo_stream.selectors import (
    ExactValue,
    Selector,
    StoreSelector,
    ValuePrefix,
    ValueRegex,
    check_selector,
)

KEYS = st.binary(max_size=3)
PUT = st.builds(Entry, st.just(int(Keyspace.STORE)), KEYS, st.one_of(st.none(), KEYS))
HIDDEN = st.builds(Entry, st.just(int(Keyspace.PRODUCER)), KEYS, KEYS)


@given(st.lists(HIDDEN, max_size=2), st.lists(PUT, max_size=5), KEYS)
def test_a_selector_takes_what_starts_with_its_prefix_and_nothing_else(
    hidden: list[Entry], puts: list[Entry], prefix: bytes
) -> None:
    batch = EncodedBatch(3, 9, encode_entries([*hidden, *puts]))
    expected = tuple(entry for entry in puts if entry.key.startswith(prefix))
    selected = Selector(prefix).select(batch)
    if selected is None:
        assert expected == ()
    else:
        assert selected.entries == expected
        assert (selected.sequence, selected.committed_at) == (3, 9)


def test_a_batch_that_matches_whole_keeps_its_bytes() -> None:
    batch = EncodedBatch(1, 1, encode_entries([Entry(Keyspace.STORE, b"k", b"v")]))
    assert Selector().select(batch) is batch


def test_bookkeeping_is_cut_off_without_decoding() -> None:
    entries = [Entry(Keyspace.PRODUCER, b"p", b"1"), Entry(Keyspace.STORE, b"k", b"v")]
    selected = Selector().select(EncodedBatch(1, 1, encode_entries(entries)))
    assert selected is not None
    assert selected.payload == encode_entries(entries[1:])


@pytest.mark.parametrize(
    ("selector", "takes_all"),
    [
        pytest.param(Selector(), True, id="everything"),
        pytest.param(Selector(b"k"), False, id="a prefix"),
        pytest.param(Selector(keyspace=Keyspace.EVENT), False, id="another keyspace"),
    ],
)
def test_only_a_selector_of_the_whole_store_takes_all(selector: Selector, takes_all: bool) -> None:
    assert selector.takes_all is takes_all


def test_other_keyspaces_are_selected_by_name() -> None:
    entries = (Entry(Keyspace.STATE, b"a", b"1"), Entry(Keyspace.EVENT, b"a", b"2"))
    batch = EncodedBatch(1, 1, entries=entries)
    selected = Selector(b"a", Keyspace.EVENT).select(batch)
    assert selected is not None
    assert selected.entries == entries[1:]
    assert Selector(b"b", Keyspace.EVENT).select(batch) is None


def test_a_batch_without_entries_matches_nobody() -> None:
    """It must send no frame; and one byte is one object, so its payload seems to be whole."""
    assert Selector().select(EncodedBatch(1, 1, encode_entries([]))) is None


@pytest.mark.parametrize("wanted", [ExactValue(b"v"), ValuePrefix(b"v"), ValueRegex("^v")])
def test_every_kind_of_value_filter_may_be_asked_for(
    wanted: ExactValue | ValuePrefix | ValueRegex,
) -> None:
    check_selector(StoreSelector(value_filters=(wanted,)))
