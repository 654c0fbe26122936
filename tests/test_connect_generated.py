"""The generated messages: those that protoc makes of proto/ today, in a pool of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

from exo_stream.protocol.connect.generated import error_details_pb2, ingest_pb2
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


def test_numbers_and_names_are_those_of_the_store() -> None:
    assert {
        f"{message.full_name}.{field.name}": field.number
        for name in POOL_FILES
        for message in POOL.FindFileByName(name).message_types_by_name.values()
        for field in message.fields
    }.items() >= FIELDS.items()


POOL_FILES = [f"store/{name}/v1/{name}.proto" for name in
              ("common", "ingest", "query", "stream", "compact")]  # fmt: skip

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
}
