"""Both codecs: round trips, bounds, and that nothing but a CallError gets out of them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st

from exo_stream.protocol.connect.codec import Codec, count_fields
from exo_stream.protocol.connect.failure import CallError, Code
from exo_stream.protocol.connect.generated import compact_pb2, ingest_pb2, query_pb2, stream_pb2

REQUESTS: tuple[type[Message], ...] = (
    ingest_pb2.PutRequest,
    query_pb2.GetRequest,
    query_pb2.GetManyRequest,
    query_pb2.RangeRequest,
    query_pb2.ReduceRequest,
    stream_pb2.SubscribeRequest,
    stream_pb2.GetRequest,
    compact_pb2.PruneRequest,
)

PUT = ingest_pb2.PutRequest(kvs=[{"key": b"\x00\xff", "value": b"1"}, {"key": b""}])
NAMES = ["kvs", "key", "value", "keys", "batchSize", "batch_size", "mode", "params", "reducers",
         "minSequenceNumber", "limit", "policies", "matchKeys", "sequenceNumber", "expr", "op",
         "filter", "checks", "payloadRegex", "kind", "retain", "keepLatest", "count"]  # fmt: skip


@pytest.mark.parametrize("codec", Codec)
def test_a_message_comes_back(codec: Codec) -> None:
    assert codec.decode(codec.encode(PUT), ingest_pb2.PutRequest, 100) == PUT


def test_json_is_that_of_proto3() -> None:
    encoded = Codec.JSON.encode(
        query_pb2.RangeRequest(
            start=b"\xff", batch_size=5, mode=query_pb2.TRAVERSAL_MODE_REVERSE,
            min_sequence_number=1 << 60,
        )
    )  # fmt: skip
    assert json.loads(encoded) == {
        "start": "/w==",
        "batchSize": 5,
        "mode": "TRAVERSAL_MODE_REVERSE",
        "minSequenceNumber": str(1 << 60),
    }


def test_what_nobody_knows_is_skipped() -> None:
    in_json = b'{"key": "YQ==", "newer": {"x": [1]}}'
    assert Codec.JSON.decode(in_json, query_pb2.GetRequest, 100).key == b"a"
    in_binary = b"\x0a\x01a\xfa\x01\x02hi"
    assert Codec.PROTO.decode(in_binary, query_pb2.GetRequest, 100).key == b"a"


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        (Codec.PROTO, b"\x0a\x05a"),
        (Codec.PROTO, b"\xff" * 12),
        (Codec.JSON, b""),
        (Codec.JSON, b"[]"),
        (Codec.JSON, b"nothing"),
        (Codec.JSON, b"\xff\xfe"),
        (Codec.JSON, b'{"key": "not base64!"}'),
        (Codec.JSON, b'{"key": "!!!"}'),
        (Codec.JSON, b'{"key": "YQ==YQ=="}'),
        (Codec.JSON, b'{"key": "YQ==\\n"}'),
        (Codec.JSON, b'{"key": "Y"}'),
        (Codec.JSON, b'{"key": "YQ==", "key": "Yg=="}'),
        (Codec.JSON, b'{"minSequenceNumber": "-1"}'),
        (Codec.JSON, b'{"minSequenceNumber": ' + b"9" * 5000 + b"}"),
        (Codec.JSON, b'{"minSequenceNumber": NaN}'),
    ],
)
def test_what_is_no_message_is_an_invalid_argument(codec: Codec, data: bytes) -> None:
    with pytest.raises(CallError, match=r"is no store\.query\.v1\.GetRequest") as caught:
        codec.decode(data, query_pb2.GetRequest, 100)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("pair", ['{"key": "user/1!"}', '{"key": "", "value": "*"}'])
def test_bytes_that_are_not_base64_are_refused_wherever_they_stand(pair: str) -> None:
    with pytest.raises(CallError, match="is not base64"):
        Codec.JSON.decode(f'{{"kvs": [{{}}, {pair}]}}'.encode(), ingest_pb2.PutRequest, 100)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (query_pb2.RangeRequest, '{"mode": "REVERSE"}'),
        (query_pb2.ReduceRequest, '{"params": {"reducers": [{"op": "SUM"}]}}'),
        (compact_pb2.PruneRequest, '{"policies": [{"keys": {"order_by": {"encoding": "u64"}}}]}'),
    ],
)
def test_a_name_of_a_value_that_nobody_knows_is_not_taken_for_the_first(
    kind: type[Message], data: str
) -> None:
    with pytest.raises(CallError, match=r"is none of [A-Z0-9_, ]+$"):
        Codec.JSON.decode(data.encode(), kind, 100)


@pytest.mark.parametrize("mode", ['"TRAVERSAL_MODE_REVERSE"', "1", '"1"'])
def test_values_have_names_and_numbers(mode: str) -> None:
    data = f'{{"mode": {mode}}}'.encode()
    decoded = Codec.JSON.decode(data, query_pb2.RangeRequest, 100)
    assert decoded.mode == query_pb2.TRAVERSAL_MODE_REVERSE


@pytest.mark.parametrize("key", ["+/8=", "+/8", "-_8=", "-_8", "-_8=\\u003d"])
def test_bytes_are_base64_of_either_alphabet_padded_or_not(key: str) -> None:
    data = f'{{"key": "{key}"}}'.encode()
    assert Codec.JSON.decode(data, query_pb2.GetRequest, 100).key == b"\xfb\xff"


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.DESCRIPTOR.full_name)
def test_deep_json_is_refused(kind: type[Message]) -> None:
    deep = b'{"unknown":' * 50_000 + b"1" + b"}" * 50_000
    with pytest.raises(CallError, match="is no"):
        Codec.JSON.decode(deep, kind, 1_000_000)


def test_deep_expressions_are_refused() -> None:
    params = b'{"params": {"groupBy": [' + b'{"lower":' * 900 + b"{}" + b"}" * 900 + b"]}}"
    with pytest.raises(CallError, match="is no"):
        Codec.JSON.decode(params, query_pb2.ReduceRequest, 1_000_000)


def test_more_parts_than_allowed_are_refused_before_they_are_made() -> None:
    for codec in Codec:
        many = codec.encode(ingest_pb2.PutRequest(kvs=[{}] * 101))
        with pytest.raises(CallError, match="at most 100 parts") as caught:
            codec.decode(many, ingest_pb2.PutRequest, 100)
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
    few = Codec.PROTO.encode(ingest_pb2.PutRequest(kvs=[{"key": b"12345678"}] * 100))
    assert len(Codec.PROTO.decode(few, ingest_pb2.PutRequest, 100).kvs) == 100


def test_only_large_messages_are_heavy() -> None:
    assert [codec.is_heavy(100_000) for codec in Codec] == [False, True]
    assert [codec.is_heavy(10_000_000) for codec in Codec] == [True, True]


def test_fields_are_counted_by_their_heads() -> None:
    message = query_pb2.RangeRequest(start=b"a" * 300, end=b"b", limit=300, batch_size=1)
    assert count_fields(message.SerializeToString(), 100) == 4
    fixed = b"\x09" + b"\0" * 8 + b"\x0d" + b"\0" * 4
    assert count_fields(fixed, 100) == 2
    assert count_fields(b"\x08\x01" * 50, 10) == 11
    assert count_fields(b"\x0b" * 50, 10) == 1
    assert count_fields(b"\x08", 10) == 1


@given(st.sampled_from(REQUESTS), st.binary(max_size=60))
def test_no_bytes_escape_the_binary_codec(kind: type[Message], data: bytes) -> None:
    count_fields(data, 10)
    with suppress(CallError):
        message = Codec.PROTO.decode(data, kind, 1000)
        assert kind.FromString(Codec.PROTO.encode(message)) == message


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["YQ==", "1", "TRAVERSAL_MODE_REVERSE", "1e400", "Infinity", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.sampled_from(REQUESTS), values)
@example(stream_pb2.SubscribeRequest, {"matchKeys": [{"payloadRegex": "\ud800"}]})
@example(query_pb2.GetRequest, {"key": "\ud800"})
def test_no_json_escapes_the_other(kind: type[Message], value: Any) -> None:
    with suppress(CallError):
        message = Codec.JSON.decode(json.dumps(value).encode(), kind, 1000)
        assert Codec.JSON.decode(Codec.JSON.encode(message), kind, 1000) == message


@given(st.sampled_from(REQUESTS), st.binary(max_size=40))
def test_no_bytes_escape_the_json_codec(kind: type[Message], data: bytes) -> None:
    with suppress(CallError):
        Codec.JSON.decode(data, kind, 1000)
