"""The bytes of a batch: what is cut out of them unread is what decoding everything would give."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.model import Entry, Keyspace
from exo_stream.payload import (
    NONE,
    EncodedBatch,
    count_entries,
    decode_entries,
    encode_entries,
    is_of_one_face,
    prepend,
    visible,
)

SIZES = st.sampled_from([0, 1, 23, 24, 255, 256, 65_535, 65_536])
BYTES = st.one_of(st.binary(max_size=40), SIZES.map(lambda size: b"\xf6" * size))
VALUES = st.one_of(st.none(), BYTES)
PRODUCER_ENTRIES = st.lists(st.builds(Entry, st.just(int(Keyspace.PRODUCER)), BYTES, VALUES))
STORE_ENTRIES = st.lists(st.builds(Entry, st.just(int(Keyspace.STORE)), BYTES, VALUES))
ENTRIES = st.lists(st.builds(Entry, st.integers(0, 255), BYTES, VALUES))


@given(ENTRIES)
def test_entries_survive_being_encoded(entries: list[Entry]) -> None:
    payload = encode_entries(entries)
    assert decode_entries(payload) == tuple(entries)
    assert count_entries(payload) == len(entries)


@given(PRODUCER_ENTRIES, STORE_ENTRIES)
def test_prepending_is_encoding_both(hidden: list[Entry], entries: list[Entry]) -> None:
    assert prepend(hidden, encode_entries(entries)) == encode_entries([*hidden, *entries])


@pytest.mark.slow
@given(PRODUCER_ENTRIES, STORE_ENTRIES)
def test_what_is_visible_is_what_was_written_without_the_bookkeeping(
    hidden: list[Entry], entries: list[Entry]
) -> None:
    payload = encode_entries([*hidden, *entries])
    assert visible(payload) == encode_entries(entries)


@given(STORE_ENTRIES.filter(bool))
def test_a_payload_that_is_visible_whole_stays_the_same_object(entries: list[Entry]) -> None:
    payload = encode_entries(entries)
    assert visible(payload) is payload


@pytest.mark.slow
@given(PRODUCER_ENTRIES, st.sampled_from([k for k in Keyspace if k > Keyspace.PRODUCER]))
def test_a_batch_of_another_face_shows_nothing_to_subscribers_of_the_store(
    hidden: list[Entry], keyspace: Keyspace
) -> None:
    assert visible(encode_entries([*hidden, Entry(keyspace, b"k", b"v")])) == NONE


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 22, 23, 24, 253, 254, 255, 256, 65_534, 65_535, 65_536])
def test_heads_of_every_width(count: int) -> None:
    entries = [Entry(Keyspace.STORE, b"", b"")] * count
    hidden = [Entry(Keyspace.PRODUCER, b"p", b"h"), Entry(Keyspace.PRODUCER, b"p", None)]
    payload = prepend(hidden, encode_entries(entries))
    assert payload == encode_entries([*hidden, *entries])
    assert count_entries(payload) == count + 2
    assert cbor2.loads(visible(payload)) == [list(entry) for entry in entries]


def test_a_batch_is_encoded_once_and_decoded_once() -> None:
    entries = (Entry(Keyspace.STORE, b"k", b"v"),)
    made = EncodedBatch(1, 2, entries=entries)
    assert made.entries is entries
    assert made.payload is made.payload
    read = EncodedBatch(1, 2, made.payload)
    assert read.entries == entries
    assert read.entries is read.entries
    assert repr(read) == "EncodedBatch(1)"


def test_a_batch_without_payload_and_entries_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        EncodedBatch(1, 2)


@pytest.mark.parametrize(
    ("keyspaces", "may_be"),
    [
        pytest.param([], True, id="nothing"),
        pytest.param([0], True, id="the store's"),
        pytest.param([1, 1], True, id="a producer's alone"),
        pytest.param([1, 1, 0, 0], True, id="a producer's, then the store's"),
        pytest.param([1, 2, 3, 7, 8], True, id="a producer's, then a stream's"),
        pytest.param([5, 4, 9, 10], True, id="the canonical store's"),
        pytest.param([0, 1], False, id="a producer's that comes last"),
        pytest.param([1, 0, 1], False, id="a producer's that comes again"),
        pytest.param([0, 2], False, id="the store's and a stream's"),
        pytest.param([0, 6], False, id="the store's and its rules"),
        pytest.param([3, 4], False, id="a stream's and the canonical store's"),
        pytest.param([11, 12], False, id="of no face"),
    ],
)
def test_a_batch_is_of_one_face(keyspaces: list[int], may_be: bool) -> None:
    assert is_of_one_face([Entry(number, b"k", b"v") for number in keyspaces]) is may_be
