"""Policies and selectors as messages: what each part becomes, and which part is missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.keys import MatchKey
from exo_stream.matchers import matcher_of
from exo_stream.model import Entry, Keyspace
from exo_stream.payload import EncodedBatch
from exo_stream.policies.policy import (
    DropAll,
    GreaterThan,
    GreaterThanOrEqual,
    InvalidPolicyError,
    KeepLatest,
    KeysScope,
    OrderBy,
    OrderEncoding,
    Policy,
    SequenceScope,
)
from exo_stream.protocol.connect.generated import common_pb2
from exo_stream.protocol.connect.generated import compact_pb2 as pb
from exo_stream.protocol.connect.pruning import policies
from exo_stream.protocol.connect.selection import checked_selector, simplest
from exo_stream.selectors import (
    ExactValue,
    InvalidSelectorError,
    Selector,
    StoreSelector,
    ValuePrefix,
    ValueRegex,
)

MATCH = {"reserved_bits": 4, "prefix": 5, "payload_regex": "(?P<id>.)"}


def test_every_part_of_a_policy_is_read() -> None:
    request = pb.PruneRequest(
        policies=[
            pb.Policy(
                keys={
                    "match_key": MATCH,
                    "group_by": {"capture_groups": ["id"]},
                    "order_by": {"capture_group": "id", "encoding": 1},
                },
                retain={"keep_latest": {"count": 3}},
            ),
            pb.Policy(keys={"match_key": MATCH}, retain={"drop_all": {}}),
            pb.Policy(sequence={}, retain={"greater_than": {"threshold": 7}}),
            pb.Policy(sequence={}, retain={"greater_than_or_equal": {"threshold": 8}}),
        ]
    )
    match_key = MatchKey(4, 5, "(?P<id>.)")
    assert policies(request) == (
        Policy(KeysScope(match_key, ("id",), OrderBy("id", OrderEncoding.U64_BE)), KeepLatest(3)),
        Policy(KeysScope(match_key), DropAll()),
        Policy(SequenceScope(), GreaterThan(7)),
        Policy(SequenceScope(), GreaterThanOrEqual(8)),
    )
    assert policies(pb.PruneRequest()) == ()


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (pb.Policy(retain={"drop_all": {}}), "policies[0].scope"),
        (pb.Policy(keys={}, retain={"drop_all": {}}), "policies[0].keys.match_key"),
        (pb.Policy(sequence={}), "policies[0].retain"),
        (pb.Policy(sequence={}, retain={}), "policies[0].retain"),
        (
            pb.Policy(keys={"match_key": MATCH, "order_by": {"encoding": 9}}),
            "policies[0].keys.order_by.encoding",
        ),
    ],
    ids=repr,
)
def test_a_part_that_is_missing_or_unknown_is_named(policy: pb.Policy, field: str) -> None:
    with pytest.raises(InvalidPolicyError) as caught:
        policies(pb.PruneRequest(policies=[policy]))
    assert caught.value.field == field


def test_selectors_are_match_keys_and_value_filters() -> None:
    selector = checked_selector(
        [common_pb2.MatchKey(reserved_bits=1, prefix=1, payload_regex="a")],
        [
            common_pb2.BytesFilter(exact=b""),
            common_pb2.BytesFilter(prefix=b"p"),
            common_pb2.BytesFilter(regex="r"),
        ],
    )
    assert selector == StoreSelector(
        (MatchKey(1, 1, "a"),), (ExactValue(b""), ValuePrefix(b"p"), ValueRegex("r"))
    )


def test_from_one_to_sixteen_match_keys_and_at_most_sixteen_filters_are_taken() -> None:
    key, value = common_pb2.MatchKey(payload_regex="a"), common_pb2.BytesFilter(regex="r")
    for count in (0, 17):
        with pytest.raises(InvalidSelectorError, match="match_keys: from 1 to 16"):
            checked_selector([key] * count, [])
    with pytest.raises(InvalidSelectorError, match="value_filters: at most 16"):
        checked_selector([key], [value] * 17)
    assert len(checked_selector([key] * 16, [value] * 16).value_filters) == 16


def test_a_filter_without_a_kind_is_named() -> None:
    key = common_pb2.MatchKey(payload_regex="a")
    with pytest.raises(InvalidSelectorError, match=r"value_filters\[1\]: one of exact"):
        checked_selector([key], [common_pb2.BytesFilter(exact=b""), common_pb2.BytesFilter()])


@pytest.mark.parametrize(
    ("match_key", "prefix"),
    [
        (MatchKey(0, 0, "(?s).*"), b""),
        (MatchKey(8, 0x2A, "(?s-u).*"), b"*"),
        (MatchKey(16, 5, "(?s).*"), b"\x00\x05"),
        (MatchKey(4, 5, "(?s).*"), None),
        (MatchKey(8, 0x2A, "(?s).+"), None),
        (MatchKey(8, 256, "(?s).*"), None),
        (MatchKey(0, 1, "(?s).*"), None),
    ],
    ids=str,
)
def test_all_of_a_prefix_is_selected_by_the_prefix(
    match_key: MatchKey, prefix: bytes | None
) -> None:
    selector = StoreSelector((match_key,))
    assert simplest(selector) == (selector if prefix is None else Selector(prefix))


def test_what_asks_for_more_than_a_prefix_stays_as_it_is() -> None:
    everything = MatchKey(0, 0, "(?s).*")
    for selector in (
        StoreSelector((everything,), (ExactValue(b""),)),
        StoreSelector((everything, everything)),
        StoreSelector((everything,), prefix=b"a"),
    ):
        assert simplest(selector) is selector


@given(st.binary(max_size=3), st.sampled_from([0, 8, 16]), st.integers(0, 0xFFFF))
def test_the_prefix_takes_what_the_match_key_takes(key: bytes, bits: int, prefix: int) -> None:
    selector = StoreSelector((MatchKey(bits, prefix >> 16 - bits, "(?s-u).*"),))
    batch = EncodedBatch(1, 0, entries=(Entry(Keyspace.STORE, key, b""),))
    found = [matcher_of(one).select(batch) for one in (selector, simplest(selector))]
    assert (found[0] is None) == (found[1] is None)
