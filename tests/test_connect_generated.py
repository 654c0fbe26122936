"""The generated messages: those that protoc makes of proto/ today, in a pool of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor

from exo_stream.protocol.connect.generated import (
    common_pb2,
    compact_pb2,
    error_details_pb2,
    ingest_pb2,
    query_pb2,
    stream_pb2,
)
from exo_stream.protocol.connect.pool import POOL

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "exo_stream" / "protocol" / "connect" / "generated"


@pytest.mark.slow  # a process is started
def test_making_them_again_changes_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "protos", tmp_path], check=True)

    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for path in GENERATED.glob("*_pb2.py*")}
    assert made == kept


def test_other_definitions_of_the_same_names_may_be_loaded() -> None:
    assert ingest_pb2.PutRequest.DESCRIPTOR.file.pool is POOL
    for message in (ingest_pb2.PutRequest, error_details_pb2.ErrorInfo):
        with pytest.raises(KeyError):
            descriptor_pool.Default().FindMessageTypeByName(message.DESCRIPTOR.full_name)


def all_messages() -> Iterator[Descriptor]:
    modules = (common_pb2, compact_pb2, error_details_pb2, ingest_pb2, query_pb2, stream_pb2)
    waiting = [
        message
        for module in modules
        for message in module.DESCRIPTOR.message_types_by_name.values()
    ]
    while waiting:
        message = waiting.pop()
        yield message
        waiting += list(message.nested_types)


def test_numbers_and_names_are_those_of_the_store() -> None:
    assert {
        f"{message.full_name}.{field.name}": field.number
        for message in all_messages()
        for field in message.fields
    }.items() >= FIELDS.items()


def test_alternatives_and_values_of_enumerations_are_numbered_as_those_of_the_store() -> None:
    for name, numbers in ALTERNATIVES.items():
        message, _, oneof = name.rpartition(".")
        found = POOL.FindMessageTypeByName(message).oneofs_by_name[oneof].fields
        assert {field.name: field.number for field in found} == numbers, name
    for name, values in VALUES.items():
        members = POOL.FindEnumTypeByName(name).values
        assert [value.name.lower() for value in members] == values, name
        assert [value.number for value in members] == list(range(len(values))), name


def test_what_may_be_left_out_can_be_told_from_nothing() -> None:
    optional = {
        f"{message.full_name}.{field.name}"
        for message in all_messages()
        for field in message.fields
        if field.containing_oneof and field.containing_oneof.name == f"_{field.name}"
    }
    assert optional >= {
        "store.query.v1.GetRequest.min_sequence_number",
        "store.query.v1.GetManyRequest.min_sequence_number",
        "store.query.v1.RangeRequest.min_sequence_number",
        "store.query.v1.RangeRequest.limit",
        "store.query.v1.ReduceRequest.min_sequence_number",
        "store.query.v1.GetResponse.value",
        "store.query.v1.GetManyEntry.value",
        "store.stream.v1.SubscribeRequest.since_sequence_number",
        "store.query.v1.KvPredicateConstraint.IntRange.min",
        "store.query.v1.KvPredicateConstraint.IntRange.max",
    }


def numbered(first: int, names: str) -> dict[str, int]:
    return {name: number for number, name in enumerate(names.split(), start=first)}


def values_of(prefix: str, names: str) -> list[str]:
    return [f"{prefix}_{name}" for name in names.split()]


QUERY = "store.query.v1"
ALTERNATIVES = {
    f"{QUERY}.KvReducedValue.value": numbered(
        1,
        "int64_value uint64_value float64_value boolean_value utf8_value date32_value"
        " date64_value timestamp_value decimal128_value fixed_size_binary_value decimal256_value",
    ),
    f"{QUERY}.KvExpr.expr": numbered(1, "field literal add sub mul div lower date_trunc_day"),
    f"{QUERY}.KvPredicateConstraint.constraint": numbered(
        1,
        "string_eq bool_eq fixed_size_binary_eq int_range uint64_range float_range"
        " decimal128_range is_null is_not_null string_in int_in uint64_in fixed_size_binary_in"
        " decimal256_range",
    ),
    f"{QUERY}.KvFieldRef.field": numbered(1, "key z_order_key value"),
    "store.common.v1.BytesFilter.kind": numbered(1, "exact prefix regex"),
    "store.compact.v1.Policy.scope": numbered(1, "keys sequence"),
    "store.compact.v1.PolicyRetain.kind": numbered(
        1, "keep_latest greater_than greater_than_or_equal drop_all"
    ),
}
VALUES = {
    f"{QUERY}.TraversalMode": values_of("traversal_mode", "forward reverse"),
    f"{QUERY}.RangeReduceOp": values_of(
        "range_reduce_op", "count_all count_field sum_field min_field max_field"
    ),
    f"{QUERY}.KvFieldKind": values_of(
        "kv_field_kind",
        "int64 uint64 float64 boolean utf8 date32 date64 timestamp decimal128 fixed_size_binary"
        " decimal256",
    ),
    "store.compact.v1.PolicyOrderEncoding": values_of(
        "policy_order_encoding", "bytes_asc u64_be i64_be"
    ),
}


FIELDS = {
    "store.common.v1.KvEntry.key": 1,
    "store.common.v1.KvEntry.value": 2,
    "store.common.v1.MatchKey.reserved_bits": 1,
    "store.common.v1.MatchKey.prefix": 2,
    "store.common.v1.MatchKey.payload_regex": 3,
    "store.common.v1.BytesFilter.exact": 1,
    "store.common.v1.BytesFilter.prefix": 2,
    "store.common.v1.BytesFilter.regex": 3,
    "store.ingest.v1.PutRequest.kvs": 1,
    "store.ingest.v1.PutResponse.sequence_number": 1,
    "store.query.v1.Detail.sequence_number": 1,
    "store.query.v1.Detail.read_stats": 2,
    "store.query.v1.GetRequest.key": 1,
    "store.query.v1.GetRequest.min_sequence_number": 2,
    "store.query.v1.GetResponse.value": 2,
    "store.query.v1.GetManyRequest.keys": 1,
    "store.query.v1.GetManyRequest.min_sequence_number": 2,
    "store.query.v1.GetManyRequest.batch_size": 3,
    "store.query.v1.GetManyFrame.results": 1,
    "store.query.v1.RangeRequest.start": 1,
    "store.query.v1.RangeRequest.end": 2,
    "store.query.v1.RangeRequest.limit": 3,
    "store.query.v1.RangeRequest.batch_size": 4,
    "store.query.v1.RangeRequest.mode": 5,
    "store.query.v1.RangeRequest.min_sequence_number": 6,
    "store.query.v1.RangeFrame.results": 1,
    "store.query.v1.ReduceRequest.start": 1,
    "store.query.v1.ReduceRequest.end": 2,
    "store.query.v1.ReduceRequest.params": 3,
    "store.query.v1.ReduceRequest.min_sequence_number": 4,
    "store.query.v1.ReduceResponse.results": 1,
    "store.query.v1.ReduceResponse.groups": 2,
    "store.stream.v1.SubscribeRequest.match_keys": 1,
    "store.stream.v1.SubscribeRequest.value_filters": 2,
    "store.stream.v1.SubscribeRequest.since_sequence_number": 3,
    "store.stream.v1.SubscribeResponse.sequence_number": 1,
    "store.stream.v1.SubscribeResponse.entries": 2,
    "store.stream.v1.GetRequest.sequence_number": 1,
    "store.stream.v1.GetResponse.sequence_number": 1,
    "store.stream.v1.GetResponse.entries": 2,
    "store.compact.v1.PruneRequest.policies": 1,
    "store.compact.v1.Policy.keys": 1,
    "store.compact.v1.Policy.sequence": 2,
    "store.compact.v1.Policy.retain": 3,
    "store.compact.v1.KeysScope.match_key": 1,
    "store.compact.v1.KeysScope.group_by": 2,
    "store.compact.v1.KeysScope.order_by": 3,
    "store.compact.v1.PolicyGroupBy.capture_groups": 1,
    "store.compact.v1.PolicyOrderBy.capture_group": 1,
    "store.compact.v1.PolicyOrderBy.encoding": 2,
    "store.compact.v1.PolicyRetain.keep_latest": 1,
    "store.compact.v1.PolicyRetain.greater_than": 2,
    "store.compact.v1.PolicyRetain.greater_than_or_equal": 3,
    "store.compact.v1.PolicyRetain.drop_all": 4,
    "store.query.v1.RangeReduceGroup.group_values": 1,
    "store.query.v1.RangeReduceGroup.group_values_present": 2,
    "store.query.v1.RangeReduceGroup.results": 3,
    "store.query.v1.KvFieldRef.KeyField.bit_offset": 1,
    "store.query.v1.KvFieldRef.KeyField.kind": 2,
    "store.query.v1.KvFieldRef.KeyField.fixed_size_binary_len": 3,
    "store.query.v1.KvFieldRef.ZOrderKeyField.bit_offset": 1,
    "store.query.v1.KvFieldRef.ZOrderKeyField.field_position": 2,
    "store.query.v1.KvFieldRef.ZOrderKeyField.field_widths": 3,
    "store.query.v1.KvFieldRef.ZOrderKeyField.kind": 4,
    "store.query.v1.KvFieldRef.ZOrderKeyField.fixed_size_binary_len": 5,
    "store.query.v1.KvFieldRef.ValueField.index": 1,
    "store.query.v1.KvFieldRef.ValueField.kind": 2,
    "store.query.v1.KvFieldRef.ValueField.nullable": 3,
    "store.query.v1.KvFieldRef.ValueField.fixed_size_binary_len": 4,
    "store.query.v1.KvExpr.BinaryExpr.left": 1,
    "store.query.v1.KvExpr.BinaryExpr.right": 2,
    "google.rpc.ErrorInfo.reason": 1,
    "google.rpc.ErrorInfo.domain": 2,
    "google.rpc.ErrorInfo.metadata": 3,
    "google.rpc.RetryInfo.retry_delay": 1,
    "google.rpc.BadRequest.field_violations": 1,
    "google.rpc.BadRequest.FieldViolation.field": 1,
    "google.rpc.BadRequest.FieldViolation.description": 2,
}
