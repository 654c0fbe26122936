"""Matchers: what a store selector takes, where to look for it, and what looking costs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.errors import InvalidRequestError
from exo_stream.keys import KeyCodec, MatchKey
from exo_stream.matchers import matcher_of
from exo_stream.model import Entry, Keyspace, row_key
from exo_stream.payload import EncodedBatch
from exo_stream.selectors import (
    AnySelector,
    ExactValue,
    InvalidSelectorError,
    Selector,
    StoreSelector,
    StreamSelector,
    ValueFilter,
    ValuePrefix,
    ValueRegex,
    check_selector,
    selector_for,
)

EVERY = "(?s-u).*"


def put(key: bytes, value: bytes | None = b"") -> Entry:
    return Entry(Keyspace.STORE, key, value)


def taken(selector: AnySelector, *entries: Entry) -> list[Entry]:
    found = matcher_of(selector).select(EncodedBatch(1, 0, entries=entries))
    return [] if found is None else list(found.entries)


def by_values(*filters: ValueFilter) -> StoreSelector:
    return StoreSelector((MatchKey(0, 0, EVERY),), filters)


@pytest.mark.parametrize(
    ("match_key", "key", "takes"),
    [
        pytest.param(MatchKey(0, 0, "b"), b"abc", True, id="a search is not anchored"),
        pytest.param(MatchKey(0, 0, "^b"), b"abc", False, id="unless it says so"),
        pytest.param(MatchKey(0, 0, EVERY), b"", True, id="the empty key is a key"),
        pytest.param(MatchKey(0, 0, "^$"), b"", True, id="and an empty payload"),
        pytest.param(MatchKey(8, 0x61, "^bc$"), b"abc", True, id="the payload follows the bits"),
        pytest.param(MatchKey(8, 0x62, EVERY), b"abc", False, id="other bits"),
        pytest.param(MatchKey(8, 0, EVERY), b"", False, id="too short for the bits"),
        pytest.param(
            MatchKey(4, 5, r"(?s-u)^\xab$"),
            bytes.fromhex("5ab0"),
            True,
            id="the payload is shifted",
        ),
        pytest.param(
            MatchKey(4, 5, "^$"), b"\x5f", True, id="the bits that are no byte are left out"
        ),
        pytest.param(MatchKey(12, 0xABC, r"(?-u)^\x12$"), bytes.fromhex("abc120"), True, id="12"),
        pytest.param(MatchKey(16, 0xBEEF, "^x$"), b"\xbe\xefx", True, id="16 bits"),
        pytest.param(MatchKey(0, 0, "^.$"), b"\xff", False, id="no byte is a character"),
        pytest.param(MatchKey(0, 0, "(?-u)^.$"), b"\xff", True, id="unless Unicode is off"),
        pytest.param(MatchKey(0, 0, "a$"), b"a\n", False, id="the end is the very end"),
    ],
)
def test_a_match_key_takes(match_key: MatchKey, key: bytes, takes: bool) -> None:
    assert taken(StoreSelector((match_key,)), put(key)) == ([put(key)] if takes else [])


@pytest.mark.parametrize(
    ("filters", "value", "takes"),
    [
        pytest.param((), b"anything", True, id="no filter"),
        pytest.param((), None, True, id="no filter takes deletions"),
        pytest.param((ExactValue(b""),), b"", True, id="the empty value"),
        pytest.param((ExactValue(b"a"),), b"ab", False, id="exact is exact"),
        pytest.param((ValuePrefix(b""),), b"ab", True, id="every value begins with nothing"),
        pytest.param((ValuePrefix(b"ab"),), b"abc", True, id="a prefix"),
        pytest.param((ValueRegex("^keep.*$"),), b"keep me", True, id="a regex"),
        pytest.param((ValueRegex("ep"),), b"keep me", True, id="a search"),
        pytest.param((ExactValue(b"x"), ValueRegex("y")), b"xy", True, id="one of them"),
        pytest.param((ExactValue(b"x"), ValueRegex("z")), b"xy", False, id="none of them"),
        pytest.param((ValuePrefix(b""),), None, False, id="a deletion has no value"),
        pytest.param((ValueRegex(".*"),), None, False, id="not even for a regex of everything"),
    ],
)
def test_a_value_filter_takes(
    filters: tuple[ValueFilter, ...], value: bytes | None, takes: bool
) -> None:
    assert taken(by_values(*filters), put(b"k", value)) == ([put(b"k", value)] if takes else [])


def test_a_row_that_several_match_is_taken_once_and_duplicates_stay_in_their_order() -> None:
    selector = StoreSelector((MatchKey(0, 0, "a"), MatchKey(0, 0, EVERY), MatchKey(8, 0x61, "")))
    with pytest.raises(InvalidSelectorError):
        check_selector(selector)  # a blank regex
    selector = StoreSelector((MatchKey(0, 0, "a"), MatchKey(0, 0, EVERY)))
    entries = [put(b"a", b"1"), put(b"b", b"2"), put(b"a", b"1"), put(b"a", None)]
    assert taken(selector, *entries) == entries


def test_value_and_key_must_both_match() -> None:
    selector = StoreSelector((MatchKey(0, 0, "^k"),), (ExactValue(b"v"),))
    assert taken(selector, put(b"k", b"v"), put(b"k", b"w"), put(b"j", b"v")) == [put(b"k", b"v")]


def test_match_keys_look_at_what_follows_the_prefix() -> None:
    selector = StoreSelector((MatchKey(8, 0x61, "^b$"),), prefix=b"user/")
    assert taken(selector, put(b"user/ab"), put(b"ab"), put(b"user/xab")) == [put(b"user/ab")]


def test_other_keyspaces_are_not_the_store() -> None:
    assert taken(StoreSelector(), Entry(Keyspace.EVENT, b"k", b"v")) == []


MATCH_KEYS = st.builds(
    lambda bits, prefix, regex: MatchKey(bits, prefix % (1 << bits), regex),
    st.integers(0, 16),
    st.integers(0, 0xFFFF),
    st.sampled_from([EVERY, "a", "(?-u)^.$", r"(?-u)\x00$"]),
)
STORE_SELECTORS = st.builds(
    StoreSelector,
    st.lists(MATCH_KEYS, max_size=4).map(tuple),
    st.lists(
        st.sampled_from([ExactValue(b""), ValuePrefix(b"a"), ValueRegex("b")]), max_size=2
    ).map(tuple),
    st.sampled_from([b"", b"a", b"\xff"]),
)
KEYS = st.binary(max_size=4)
ENTRIES = st.builds(put, KEYS, st.sampled_from([None, b"", b"a", b"ab", b"xb"]))


def plainly_takes(selector: StoreSelector, entry: Entry) -> bool:
    """What the reference says, word by word, with another engine."""
    if not entry.key.startswith(selector.prefix):
        return False
    rest = entry.key[len(selector.prefix) :]
    bits = "".join(f"{byte:08b}" for byte in rest)

    def searched(regex: str, payload: bytes) -> bool:
        match regex:
            case "a" | "b":
                return regex.encode() in payload
            case "(?-u)^.$":
                return len(payload) == 1 and payload != b"\n"
            case "(?s-u).*":
                return True
            case _:
                return payload.endswith(b"\x00")

    def matches(match_key: MatchKey) -> bool:
        reserved = match_key.reserved_bits
        if len(bits) < reserved or (reserved and int(bits[:reserved], 2) != match_key.prefix):
            return False
        payload = bits[reserved:]
        whole = [payload[at : at + 8] for at in range(0, len(payload) // 8 * 8, 8)]
        return searched(match_key.payload_regex, bytes(int(byte, 2) for byte in whole))

    def passes(one: ValueFilter, value: bytes) -> bool:
        match one:
            case ExactValue(wanted):
                return value == wanted
            case ValuePrefix(prefix):
                return value.startswith(prefix)
            case ValueRegex(regex):
                return searched(regex, value)

    filters = selector.value_filters
    return (not selector.match_keys or any(map(matches, selector.match_keys))) and (
        not filters
        or (entry.value is not None and any(passes(one, entry.value) for one in filters))
    )


@given(STORE_SELECTORS, st.lists(ENTRIES, max_size=6))
def test_a_selector_takes_what_the_reference_says(
    selector: StoreSelector, entries: list[Entry]
) -> None:
    expected = [entry for entry in entries if plainly_takes(selector, entry)]
    assert taken(selector, *entries) == expected
    matcher = matcher_of(selector)
    assert [entry for entry in entries if any(matcher.looks(entry))] == expected


@given(STORE_SELECTORS, ENTRIES)
def test_what_is_taken_begins_as_the_index_is_told_and_lies_where_rows_are_read(
    selector: StoreSelector, entry: Entry
) -> None:
    matcher = matcher_of(selector)
    if matcher.takes(entry):
        assert any(entry.key.startswith(lead) for _, lead in matcher.leads)
        row = row_key(Keyspace.STORE, entry.key)
        assert any(low <= row < high for low, high in matcher.row_ranges)


@given(STORE_SELECTORS)
def test_rows_are_read_in_order_and_none_twice(selector: StoreSelector) -> None:
    ends = [end for span in matcher_of(selector).row_ranges for end in span]
    assert ends == sorted(set(ends))


def test_the_index_is_told_of_whole_bytes_and_of_few_more() -> None:
    def leads(bits: int, prefix: int) -> list[bytes]:
        return [lead for _, lead in matcher_of(StoreSelector((MatchKey(bits, prefix, "a"),))).leads]

    assert leads(0, 0) == [b""]
    assert leads(8, 0x2A) == [b"\x2a"]
    assert leads(16, 0xBEEF) == [b"\xbe\xef"]
    assert leads(3, 0b101) == [b""]
    assert leads(4, 5) == [bytes([byte]) for byte in range(0x50, 0x60)]
    assert leads(15, 0x7FFF) == [b"\xff\xfe", b"\xff\xff"]
    assert leads(9, 0x1FF) == [b"\xff"]


def test_a_look_costs_more_the_longer_the_value_and_the_larger_the_regex() -> None:
    short, long = put(b"k", b"v"), put(b"k", b"v" * 100)
    small = matcher_of(by_values(ValueRegex("a")))
    large = matcher_of(by_values(ValueRegex("(?-u)a{90}b")))
    assert small.steps([short]) < small.steps([long]) < large.steps([long])
    assert small.steps([long]) + small.steps([short]) == small.steps([short, long])
    assert matcher_of(by_values(ValueRegex(".*"))).steps([short]) == matcher_of(
        by_values(ValueRegex(".*"))
    ).steps([long])
    for cheap in (Selector(b"k"), StreamSelector("s")):
        assert matcher_of(cheap).steps([long]) == 0
        assert matcher_of(cheap).regexes == frozenset()
        for entry in (long, Entry(Keyspace.STREAM, b"s", b"")):
            assert list(matcher_of(cheap).looks(entry)) == [matcher_of(cheap).takes(entry)]


def test_a_prefix_takes_what_begins_so_and_is_of_its_keyspace() -> None:
    matcher = matcher_of(Selector(b"a", Keyspace.STATE))
    assert matcher.takes(Entry(Keyspace.STATE, b"ab", None))
    assert not matcher.takes(Entry(Keyspace.STATE, b"b", None))
    assert not matcher.takes(put(b"ab"))


GOOD = MatchKey(0, 0, "a")


def wrong(value: object) -> Any:
    """What its type forbids, and a caller may give all the same."""
    return value


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        pytest.param({"match": []}, "match_keys", id="no match key"),
        pytest.param({"match": [GOOD] * 17}, "match_keys", id="too many match keys"),
        pytest.param({"match": GOOD}, "match_keys", id="one that is not in a list"),
        pytest.param({"match": "abc"}, "match_keys", id="text"),
        pytest.param({"match": [b"a"]}, "match_keys[0]", id="no match key at all"),
        pytest.param({"match": [GOOD, MatchKey(17, 0, "a")]}, "match_keys[1]", id="17 bits"),
        pytest.param({"match": [MatchKey(-1, 0, "a")]}, "match_keys[0]", id="less than no bit"),
        pytest.param({"match": [MatchKey(3, 8, "a")]}, "match_keys[0]", id="a large prefix"),
        pytest.param({"match": [MatchKey(0, 1, "a")]}, "match_keys[0]", id="of no bits"),
        pytest.param({"match": [MatchKey(wrong(1.5), 1, "a")]}, "match_keys[0]", id="half a bit"),
        pytest.param(
            {"match": [MatchKey(0, 0, wrong(b"a"))]},
            "match_keys[0].payload_regex",
            id="a regex of bytes",
        ),
        pytest.param(
            {"match": [MatchKey(0, 0, " ")]}, "match_keys[0].payload_regex", id="a blank regex"
        ),
        pytest.param(
            {"match": [MatchKey(0, 0, "(")]}, "match_keys[0].payload_regex", id="a bad one"
        ),
        pytest.param({"values": [ExactValue(b"")] * 17}, "value_filters", id="too many filters"),
        pytest.param({"values": [None]}, "value_filters[0]", id="a filter of no kind"),
        pytest.param({"values": [ExactValue(wrong("a"))]}, "value_filters[0]", id="an exact text"),
        pytest.param({"values": [ValuePrefix(wrong(None))]}, "value_filters[0]", id="no prefix"),
        pytest.param(
            {"values": [ValueRegex(wrong(b"a"))]}, "value_filters[0]", id="bytes for a regex"
        ),
        pytest.param({"values": [ValueRegex("")]}, "value_filters[0].regex", id="an empty regex"),
        pytest.param({"values": [ValueRegex("[")]}, "value_filters[0].regex", id="a bad regex"),
    ],
)
def test_a_selector_that_breaks_a_rule_is_refused_with_the_field_that_breaks_it(
    asked: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidSelectorError) as caught:
        check_selector(selector_for(**asked))
    assert caught.value.field == field
    assert caught.value.problem
    assert isinstance(caught.value, InvalidRequestError)
    assert caught.value.code == "invalid_request"


def test_as_many_as_are_allowed_are_taken() -> None:
    selector = selector_for(match=[GOOD] * 16, values=[ExactValue(b"")] * 16)
    check_selector(selector)
    assert isinstance(selector, StoreSelector)
    assert len(selector.match_keys) == len(selector.value_filters) == 16


def test_what_is_not_asked_is_no_condition() -> None:
    assert selector_for(prefix=b"p") == Selector(b"p")
    assert selector_for(values=[]) == StoreSelector()
    assert selector_for(match=(one for one in [GOOD])) == StoreSelector((GOOD,))
    check_selector(Selector(b"p"))


def test_the_families_of_a_codec_and_of_a_match_key_are_the_same() -> None:
    assert MatchKey(4, 5, "a").codec == KeyCodec(4, 5)
