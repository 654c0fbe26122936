"""The written form of policies and retention: what is written is read, the rest is refused."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.keys import MatchKey
from exo_stream.model import SEQUENCE_MAX
from exo_stream.policies import document
from exo_stream.policies.document import (
    decode_policies,
    decode_retention,
    encode_policies,
    encode_retention,
)
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
from exo_stream.policies.retention import LogRetention

U64S = st.integers(0, SEQUENCE_MAX)
ANY_RETAIN = st.one_of(
    st.builds(KeepLatest, st.integers(1, SEQUENCE_MAX)),
    st.builds(GreaterThan, U64S),
    st.builds(GreaterThanOrEqual, U64S),
    st.just(DropAll()),
)
ANY_SCOPE = st.one_of(
    st.just(SequenceScope()),
    st.builds(
        KeysScope,
        st.builds(MatchKey, st.integers(0, 16), st.integers(0, 65_535), st.text()),
        st.lists(st.text(max_size=3), max_size=2).map(tuple),
        st.one_of(
            st.none(), st.builds(OrderBy, st.text(max_size=3), st.sampled_from(OrderEncoding))
        ),
        st.one_of(st.binary(), st.text().map(str.encode), st.just(b"base64:!")),
    ),
)


@pytest.mark.slow
@given(st.lists(st.builds(Policy, ANY_SCOPE, ANY_RETAIN), max_size=3).map(tuple))
def test_policies_can_be_written_and_read(policies: tuple[Policy, ...]) -> None:
    assert decode_policies(encode_policies(policies)) == policies


NUMBERS = st.one_of(st.none(), st.integers(1, SEQUENCE_MAX))


@given(st.builds(LogRetention, st.one_of(st.none(), ANY_RETAIN), NUMBERS, NUMBERS))
def test_a_retention_can_be_written_and_read(retention: LogRetention) -> None:
    assert decode_retention(encode_retention(retention)) == retention


def test_an_empty_document_has_no_policies_and_no_rules() -> None:
    assert decode_policies(b"") == ()
    assert encode_policies([]) == b""
    assert decode_retention(b"") == LogRetention()
    assert encode_retention(LogRetention()) == b""


def test_the_form_in_the_module_is_the_form_that_is_read() -> None:
    text = document.__doc__ or ""
    examples = [
        json.dumps(json.JSONDecoder().raw_decode(text, found.start())[0]).encode()
        for found in re.finditer(r'{"version"', text)
    ]
    policies, retention = decode_policies(examples[0]), decode_retention(examples[1])
    assert [policy.retain for policy in policies] == [KeepLatest(3), DropAll()]
    assert retention == LogRetention(KeepLatest(3), bytes_max=4096)
    assert len(examples) == 2


def test_a_stored_rule_that_makes_no_sense_is_refused() -> None:
    for rule in (LogRetention(KeepLatest(0)), LogRetention(seconds_max=0)):
        with pytest.raises(InvalidPolicyError):
            decode_retention(encode_retention(rule))


POLICY = '{"keys":%s,"retain":{"drop_all":{}}}'
MATCH = '"match_key":{"reserved_bits":0,"prefix":0,"payload_regex":"."}'


@pytest.mark.parametrize(
    ("policies", "field"),
    [
        ("{}", "policies"),
        ("[3]", "policies[0]"),
        ('[{"sequence":{}}]', "policies[0]"),
        ('[{"retain":{"drop_all":{}}}]', "policies[0]"),
        ('[{"sequence":{},"keys":{},"retain":{"drop_all":{}}}]', "policies[0]"),
        ('[{"sequence":{"x":1},"retain":{"drop_all":{}}}]', "policies[0].sequence"),
        ('[{"sequence":{},"retain":{}}]', "policies[0].retain"),
        ('[{"sequence":{},"retain":{"keep":{}}}]', "policies[0].retain"),
        ('[{"sequence":{},"retain":{"keep_latest":{}}}]', "policies[0].retain.keep_latest"),
        (
            '[{"sequence":{},"retain":{"keep_latest":{"count":0}}}]',
            "policies[0].retain.keep_latest.count",
        ),
        (
            '[{"sequence":{},"retain":{"greater_than":{"threshold":1.0}}}]',
            "policies[0].retain.greater_than.threshold",
        ),
        (f"[{POLICY % '[]'}]", "policies[0].keys"),
        (f"[{POLICY % '{}'}]", "policies[0].keys"),
        (
            "["
            + POLICY % '{"match_key":{"reserved_bits":true,"prefix":0,"payload_regex":"."}}'
            + "]",
            "policies[0].keys.match_key.reserved_bits",
        ),
        ("[" + POLICY % ("{" + MATCH + ',"group_by":[3]}') + "]", "policies[0].keys.group_by[0]"),
        ("[" + POLICY % ("{" + MATCH + ',"group_by":"x"}') + "]", "policies[0].keys.group_by"),
        (
            "["
            + POLICY % ("{" + MATCH + ',"order_by":{"capture_group":"x","encoding":"u64"}}')
            + "]",
            "policies[0].keys.order_by.encoding",
        ),
    ],
)
def test_a_document_that_is_half_understood_is_refused(policies: str, field: str) -> None:
    with pytest.raises(InvalidPolicyError) as caught:
        decode_policies(f'{{"version":1,"policies":{policies}}}'.encode())
    assert caught.value.field == field


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"[",
        b"[" * 100_000,
        b"3",
        b'{"version":1}',
        b'{"version":2,"policies":[],"retention":{}}',
        b'{"version":2,"policies":[]}',
        b'{"version":2,"retention":{}}',
        b'{"version":true,"retention":{}}',
        b'{"version":1,"retention":3}',
        b'{"version":1,"retention":{},"retention":{}}',
        b'{"version":1,"policies":[],"policies":[]}',
        b'{"version":1,"retention":{"seconds_max":' + b"9" * 5_000 + b"}}",
    ],
    ids=range(13),
)
def test_what_is_no_document_is_refused(text: bytes) -> None:
    for decode in (decode_policies, decode_retention):
        with pytest.raises(InvalidPolicyError):
            decode(text)


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_a_document_or_refused(text: bytes) -> None:
    for decode in (decode_policies, decode_retention):
        if text:
            with pytest.raises(InvalidPolicyError):
                decode(text)


@pytest.mark.parametrize(
    ("text", "prefix"), [("user/", b"user/"), ("base64:/w==", b"\xff"), ("", b"")]
)
def test_a_prefix_is_text_or_base64(text: str, prefix: bytes) -> None:
    match_key = {"reserved_bits": 0, "prefix": 0, "payload_regex": "."}
    policy = {"keys": {"prefix": text, "match_key": match_key}, "retain": {"drop_all": {}}}
    [found] = decode_policies(json.dumps({"version": 1, "policies": [policy]}).encode())
    assert isinstance(found.scope, KeysScope)
    assert found.scope.prefix == prefix


@pytest.mark.parametrize("text", ["base64:/w=", "\ud800"])
def test_a_prefix_that_stands_for_no_bytes_is_refused(text: str) -> None:
    match_key = {"reserved_bits": 0, "prefix": 0, "payload_regex": "."}
    policy = {"keys": {"prefix": text, "match_key": match_key}, "retain": {"drop_all": {}}}
    with pytest.raises(InvalidPolicyError, match="neither text nor base64"):
        decode_policies(json.dumps({"version": 1, "policies": [policy]}).encode())


def test_a_document_is_bounded() -> None:
    for decode in (decode_policies, decode_retention):
        with pytest.raises(InvalidPolicyError, match="at most 1048576 bytes"):
            decode(b" " * ((1 << 20) + 1))
