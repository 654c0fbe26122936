"""Namespaces: keys there and back, in their order, and no nesting that loses a bit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.errors import InvalidRequestError
from exo_stream.keys import KeyCodec, MatchKey, PayloadTooLargeError
from exo_stream.limits import STORE_KEY_BYTES_MAX
from exo_stream.matchers import matcher_of
from exo_stream.model import Entry, Keyspace
from exo_stream.namespaces import Namespace, NamespaceNestingError, combined
from exo_stream.selectors import selector_for

CODECS = st.integers(0, 16).flatmap(
    lambda bits: st.builds(KeyCodec, st.just(bits), st.integers(0, (1 << bits) - 1))
)
PARTS = st.one_of(st.binary(max_size=3), CODECS)
KEYS = st.binary(max_size=5)


@st.composite
def namespaces(draw: st.DrawFn) -> Namespace:
    namespace = Namespace()
    for part in draw(st.lists(PARTS, max_size=3)):
        try:
            namespace = namespace.within(part)
        except NamespaceNestingError:
            break
    return namespace


@given(namespaces(), KEYS)
def test_a_key_comes_back(namespace: Namespace, key: bytes) -> None:
    assert namespace.decode(namespace.encode(key)) == key


@given(namespaces(), KEYS, KEYS)
def test_keys_keep_their_order(namespace: Namespace, one: bytes, other: bytes) -> None:
    assert (one < other) == (namespace.encode(one) < namespace.encode(other))


@given(namespaces(), st.binary(max_size=8))
def test_what_comes_back_was_a_key_of_the_namespace(namespace: Namespace, key: bytes) -> None:
    own = namespace.decode(key)
    assert own is None or namespace.encode(own) == key


@given(namespaces(), KEYS, KEYS, KEYS)
def test_a_range_holds_the_keys_between_its_ends_and_no_others(
    namespace: Namespace, start: bytes, end: bytes, key: bytes
) -> None:
    within = namespace.key_range(start, end)
    encoded = namespace.encode(key)
    expected = start <= key and (not end or key <= end)
    assert (within is not None and within[0] <= encoded <= within[1]) is expected


@pytest.mark.parametrize("part", [b"user/", KeyCodec(4, 5), KeyCodec(9, 0x1FF)])
def test_a_bound_longer_than_any_key_is_between_keys(part: bytes | KeyCodec) -> None:
    namespace = Namespace().within(part)
    longest = b"\xff" * namespace.capacity
    beyond = longest + b"\x00"
    within = namespace.key_range(b"", beyond)
    assert within is not None
    assert within[0] <= namespace.encode(longest) <= within[1]
    after = namespace.key_range(beyond, b"")
    assert after is None or not after[0] <= namespace.encode(longest) <= after[1]
    low = b"a" * (namespace.capacity + 1)
    between = namespace.key_range(low, b"")
    assert between is not None
    assert not between[0] <= namespace.encode(low[:-1])
    assert between[0] <= namespace.encode(b"b") <= between[1]


def test_bytes_are_put_before_the_key() -> None:
    namespace = Namespace().within(b"a/").within(b"b/")
    assert namespace == Namespace(b"a/b/")
    assert namespace.encode(b"k") == b"a/b/k"
    assert namespace.decode(b"a/k") is None
    assert namespace.capacity == STORE_KEY_BYTES_MAX - 4
    assert namespace.key_range(b"", b"") == (b"a/b/", b"a/b/" + b"\xff" * 250)


def test_a_packed_prefix_is_what_the_codec_makes() -> None:
    """StoreKeyPrefix of release 4.1 is a codec over whole keys."""
    codec = KeyCodec(4, 5)
    namespace = Namespace().within(codec)
    assert namespace.encode(bytes.fromhex("abcd")) == bytes.fromhex("5abcd0")
    assert namespace.capacity == codec.payload_capacity_bytes == 253
    assert namespace.decode(bytes.fromhex("5abcd1")) is None  # bits that no key has
    assert namespace.decode(bytes.fromhex("6abcd0")) is None


def test_whole_bytes_packed_are_bytes() -> None:
    assert Namespace().within(KeyCodec(8, 0x2A)) == Namespace(b"\x2a")
    assert Namespace().within(KeyCodec(0, 0)) == Namespace()


def test_bytes_within_packed_bits_are_packed_too() -> None:
    namespace = Namespace().within(KeyCodec(4, 5)).within(b"\xab")
    assert namespace.encode(b"\xcd") == bytes.fromhex("5abcd0")
    assert namespace.decode(bytes.fromhex("5abcd0")) == b"\xcd"
    assert namespace.decode(bytes.fromhex("5accd0")) is None


def test_nesting_that_would_lose_bits_is_refused() -> None:
    """The trap: in 4.1 outer 4/5 round inner 4/6 made a key whose payload had a zero byte more."""
    outer, inner = KeyCodec(4, 5), KeyCodec(4, 6)
    assert outer.encode(inner.encode(b"\x01\x02\x03")) == bytes.fromhex("5601020300")
    assert KeyCodec(8, 0x56).decode(bytes.fromhex("5601020300"), 4) == b"\x01\x02\x03\x00"
    with pytest.raises(NamespaceNestingError):
        Namespace().within(outer).within(inner)
    with pytest.raises(NamespaceNestingError):
        Namespace().within(outer).selection(b"", [MatchKey(4, 6, "(?s-u)^.{3}$")])
    with pytest.raises(NamespaceNestingError):
        Namespace().within(outer).within(b"x").within(inner)
    with pytest.raises(NamespaceNestingError):
        Namespace().within(outer).selection(b"x", [MatchKey(0, 0, "a")])
    fitting = KeyCodec(7, 1)  # two of it lose nothing, unless bytes stand between them
    between = Namespace().within(fitting).within(b"x")
    with pytest.raises(NamespaceNestingError, match="within packed bytes"):
        between.within(fitting)
    with pytest.raises(NamespaceNestingError, match="within packed bytes"):
        between.selection(b"", [MatchKey(7, 1, "a")])
    with pytest.raises(NamespaceNestingError, match="within packed bytes"):
        between.family(b"", MatchKey(7, 1, "a"))
    with pytest.raises(NamespaceNestingError, match="17 reserved bits"):
        combined(KeyCodec(9, 0), KeyCodec(8, 0))


def test_a_nested_match_key_has_the_bits_of_both() -> None:
    """Known of the reference: 3/0b101 round 4/0b0110 is 7/0b1010110; its bits are lost, though."""
    with pytest.raises(NamespaceNestingError):
        combined(KeyCodec(3, 0b101), KeyCodec(4, 0b0110))
    assert combined(KeyCodec(3, 0b101), KeyCodec(8, 0x06)) == KeyCodec(11, 0b101_0000_0110)
    assert combined(KeyCodec(7, 0x7F), KeyCodec(7, 1)) == KeyCodec(14, 0x3F81)


@given(CODECS, CODECS, KEYS)
def test_codecs_are_combined_only_if_one_makes_the_keys_of_both(
    outer: KeyCodec, inner: KeyCodec, payload: bytes
) -> None:
    nested = outer.encode(inner.encode(payload))
    try:
        both = combined(outer, inner)
    except NamespaceNestingError:
        bits = outer.reserved_bits + inner.reserved_bits
        assert bits > 16 or len(nested) > (bits + 8 * len(payload) + 7) // 8
        return
    assert both.encode(payload) == nested


MATCH_KEYS = st.builds(
    lambda codec, regex: MatchKey(codec.reserved_bits, codec.prefix, regex),
    CODECS,
    st.sampled_from(["(?s-u).*", r"(?-u)^\x00", "(?s-u)^.$", "(?s-u)a$"]),
)


@pytest.mark.slow
@given(namespaces(), KEYS, st.one_of(st.none(), st.lists(MATCH_KEYS, min_size=1, max_size=2)), KEYS)
def test_what_is_asked_of_the_store_is_what_is_asked_of_the_namespace(
    namespace: Namespace, prefix: bytes, match: list[MatchKey] | None, key: bytes
) -> None:
    try:
        outer, keys = namespace.selection(prefix, match)
    except NamespaceNestingError:
        return
    asked = matcher_of(selector_for(prefix=prefix, match=match))
    of_store = matcher_of(selector_for(prefix=outer, match=keys))
    encoded = Entry(Keyspace.STORE, namespace.encode(key), b"")
    assert of_store.takes(encoded) is asked.takes(Entry(Keyspace.STORE, key, b""))


@given(namespaces(), KEYS, st.binary(max_size=6))
def test_nothing_of_others_is_asked_for(namespace: Namespace, prefix: bytes, key: bytes) -> None:
    """But what the namespace could not have made, which whoever asks leaves out."""
    outer, keys = namespace.selection(prefix, None)
    taken = matcher_of(selector_for(prefix=outer, match=keys)).takes(
        Entry(Keyspace.STORE, key, b"")
    )
    own = namespace.decode(key)
    if own is not None:
        assert taken is own.startswith(prefix)


def test_a_key_has_room_or_is_refused() -> None:
    namespace = Namespace().within(b"a" * 250)
    assert namespace.encode(b"1234") == b"a" * 250 + b"1234"
    with pytest.raises(PayloadTooLargeError) as caught:
        namespace.encode(b"12345")
    assert (caught.value.payload_len, caught.value.max) == (5, 4)
    with pytest.raises(PayloadTooLargeError) as caught:
        namespace.within(b"12345")
    assert (caught.value.payload_len, caught.value.max) == (5, 4)


@pytest.mark.parametrize("part", ["text", 5, None, (4, 5)])
def test_a_namespace_is_bytes_or_a_codec(part: Any) -> None:
    with pytest.raises(InvalidRequestError):
        Namespace().within(part)


@pytest.mark.parametrize("key", ["text", 5, None, bytearray(b"k")])
def test_a_key_is_bytes(key: Any) -> None:
    with pytest.raises(InvalidRequestError):
        Namespace(b"a").encode(key)
