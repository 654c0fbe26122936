"""The store's own API: every documented error, with its code, reason, domain and details."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from exo_stream.limits import Limits
from exo_stream.protocol.connect.failure import CallError, Code
from exo_stream.protocol.connect.generated import compact_pb2 as compact
from exo_stream.protocol.connect.generated import ingest_pb2 as ingest
from exo_stream.protocol.connect.generated import query_pb2 as query
from exo_stream.protocol.connect.generated import stream_pb2 as stream
from exo_stream.protocol.connect.generated.error_details_pb2 import BadRequest, RetryInfo
from exo_stream.reduce.stored_row import Cell, CellTag, encode_row
from tests.connect_caller import Caller, info_of, served
from tests.store_calls import (
    BATCH,
    GET,
    GET_MANY,
    PRUNE,
    PUT,
    RANGE,
    REDUCE,
    SUBSCRIBE,
    calling,
    get,
    put,
)
from tests.worlds import in_memory


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with calling() as caller:
        yield caller


KEY = {"key": b"x" * 255}


class Expected(NamedTuple):
    """What the details of a broken rule say."""

    reason: str
    domain: str
    field: str
    metadata: dict[str, str] = {}  # noqa: RUF012 - never changed


KEY_LENGTH = {"max_key_len": "254"}
INVALID = [
    (PUT, ingest.PutRequest(), Expected("INVALID_BATCH", "store.ingest", "kvs")),
    (
        PUT,
        ingest.PutRequest(kvs=[{"key": b"x" * 254}, KEY]),
        Expected("INVALID_KEY_LENGTH", "store.ingest", "kvs[1].key", KEY_LENGTH),
    ),
    (
        PUT,
        ingest.PutRequest(kvs=[{}, {"value": b"x" * 11}]),
        Expected("INVALID_VALUE_LENGTH", "store.ingest", "kvs[1].value", {"max_value_len": "10"}),
    ),
    (
        PUT,
        ingest.PutRequest(kvs=[{"key": b"x" * 200}] * 10),
        Expected("INVALID_BATCH", "store.ingest", "kvs"),
    ),
    (
        GET,
        query.GetRequest(key=b"x" * 255),
        Expected("INVALID_KEY_LENGTH", "store.query", "key", KEY_LENGTH),
    ),
    (
        REDUCE,
        query.ReduceRequest(start=b"x" * 255),
        Expected("INVALID_KEY_LENGTH", "store.query", "start", KEY_LENGTH),
    ),
    (
        REDUCE,
        query.ReduceRequest(end=b"x" * 255),
        Expected("INVALID_KEY_LENGTH", "store.query", "end", KEY_LENGTH),
    ),
    (
        REDUCE,
        query.ReduceRequest(),
        Expected("INVALID_REDUCE_PARAMS", "store.query", "params"),
    ),
    (
        REDUCE,
        query.ReduceRequest(params={"reducers": [{"op": 2}]}),
        Expected("INVALID_REDUCE_PARAMS", "store.query", "params.reducers[0].expr"),
    ),
    (
        REDUCE,
        query.ReduceRequest(params={"reducers": [{"expr": {"literal": {"int64_value": 1}}}]}),
        Expected("INVALID_REDUCE_PARAMS", "store.query", "params.reducers[0].expr"),
    ),
    (
        REDUCE,
        query.ReduceRequest(params={"reducers": [{"op": 9}]}),
        Expected("INVALID_REDUCE_PARAMS", "store.query", "params.reducers[0].op"),
    ),
    (
        PRUNE,
        compact.PruneRequest(),
        Expected("INVALID_PRUNE_REQUEST", "store.compact", "policies"),
    ),
    (
        PRUNE,
        compact.PruneRequest(policies=[{"sequence": {}, "retain": {"keep_latest": {}}}]),
        Expected("INVALID_PRUNE_REQUEST", "store.compact", "policies[0].retain.keep_latest.count"),
    ),
    (
        PRUNE,
        compact.PruneRequest(policies=[{"sequence": {}}]),
        Expected("INVALID_PRUNE_REQUEST", "store.compact", "policies[0].retain"),
    ),
    (
        PRUNE,
        compact.PruneRequest(
            policies=[
                {
                    "keys": {"match_key": {"reserved_bits": 17, "payload_regex": "a"}},
                    "retain": {"drop_all": {}},
                }
            ]
        ),
        Expected("INVALID_PRUNE_REQUEST", "store.compact", "policies[0].keys.match_key"),
    ),
]
STREAMED = [
    (GET_MANY, query.GetManyRequest(batch_size=1), "INVALID_BATCH", "keys"),
    (GET_MANY, query.GetManyRequest(keys=[b"a"]), "INVALID_BATCH_SIZE", "batch_size"),
    (
        GET_MANY,
        query.GetManyRequest(keys=[b"a", b"x" * 255], batch_size=1),
        "INVALID_KEY_LENGTH",
        "keys[1]",
    ),
    (RANGE, query.RangeRequest(), "INVALID_BATCH_SIZE", "batch_size"),
    (RANGE, query.RangeRequest(start=b"x" * 255, batch_size=1), "INVALID_KEY_LENGTH", "start"),
    (RANGE, query.RangeRequest(end=b"x" * 255, batch_size=1), "INVALID_KEY_LENGTH", "end"),
    (
        RANGE,
        query.RangeRequest(batch_size=1, mode=99),  # type: ignore[arg-type]  # as it may come
        "INVALID_TRAVERSAL_MODE",
        "mode",
    ),
]


def check_invalid(error: CallError, expected: Expected) -> None:
    [bad] = [one for one in error.details if isinstance(one, BadRequest)]
    [violation] = bad.field_violations
    info = info_of(error)
    assert error.code is Code.INVALID_ARGUMENT
    assert (info.reason, info.domain) == (expected.reason, expected.domain)
    assert violation.field == expected.field
    assert violation.description
    assert dict(info.metadata) == {**expected.metadata, "description": violation.description}


@pytest.mark.parametrize(("method", "message", "expected"), INVALID, ids=str)
async def test_a_broken_rule_names_its_field_and_its_reason(
    method: str, message: ingest.PutRequest, expected: Expected
) -> None:
    async with calling(limits=Limits(value_bytes_max=10, batch_bytes_max=1000)) as caller:
        with pytest.raises(CallError) as caught:
            await caller.unary(method, message, ingest.PutResponse)
    assert caught.value.status == 400
    check_invalid(caught.value, expected)


@pytest.mark.parametrize(("method", "message", "reason", "field"), STREAMED, ids=str)
async def test_a_broken_rule_of_a_stream_is_told_at_its_end(
    caller: Caller, method: str, message: query.RangeRequest, reason: str, field: str
) -> None:
    async with caller.stream(method, message) as frames:
        with pytest.raises(CallError) as caught:
            await frames.next(query.RangeFrame)
    metadata = {"max_key_len": "254"} if reason == "INVALID_KEY_LENGTH" else {}
    check_invalid(caught.value, Expected(reason, "store.query", field, metadata))


@pytest.mark.parametrize(
    "message",
    [
        stream.SubscribeRequest(),
        stream.SubscribeRequest(match_keys=[{"payload_regex": "a"}] * 17),
        stream.SubscribeRequest(match_keys=[{"payload_regex": " "}]),
        stream.SubscribeRequest(match_keys=[{"payload_regex": "(?=a)"}]),
        stream.SubscribeRequest(match_keys=[{"payload_regex": "a", "reserved_bits": 17}]),
        stream.SubscribeRequest(match_keys=[{"payload_regex": "a", "prefix": 1}]),
        stream.SubscribeRequest(match_keys=[{"payload_regex": "a"}], value_filters=[{}]),
        stream.SubscribeRequest(
            match_keys=[{"payload_regex": "a"}], value_filters=[{"regex": "a"}] * 17
        ),
        stream.SubscribeRequest(match_keys=[{"payload_regex": "a"}], value_filters=[{"regex": ""}]),
    ],
    ids=str,
)
async def test_a_subscription_that_selects_wrongly_is_told_so_in_words(
    caller: Caller, message: stream.SubscribeRequest
) -> None:
    async with caller.stream(SUBSCRIBE, message) as frames:
        with pytest.raises(CallError) as caught:
            await frames.next(stream.SubscribeResponse)
    assert (caught.value.code, caught.value.details) == (Code.INVALID_ARGUMENT, ())


async def test_a_sequence_that_is_not_visible_is_refused_at_once(caller: Caller) -> None:
    await put(caller, (b"a", b"1"))
    errors: list[CallError] = []
    with pytest.raises(CallError) as caught:
        await get(caller, b"a", min_sequence=9)
    errors.append(caught.value)
    assert caught.value.status == 409
    reduce = query.ReduceRequest(params={"reducers": [{}]}, min_sequence_number=9)
    with pytest.raises(CallError) as caught:
        await caller.unary(REDUCE, reduce, query.ReduceResponse)
    errors.append(caught.value)
    for method, message in (
        (RANGE, query.RangeRequest(batch_size=1, min_sequence_number=9)),
        (GET_MANY, query.GetManyRequest(keys=[b"a"], batch_size=1, min_sequence_number=9)),
    ):
        async with caller.stream(method, message) as frames:
            with pytest.raises(CallError) as caught:
                await frames.next(query.RangeFrame)
        errors.append(caught.value)
        message.min_sequence_number = 1
        async with caller.stream(method, message) as frames:
            assert [row.value for row in (await frames.all(query.RangeFrame))[0].results] == [b"1"]
    for error in errors:
        assert error.code is Code.ABORTED
        assert info_of(error).reason == "CONSISTENCY_NOT_READY"
        assert dict(info_of(error).metadata) == {
            "required_sequence_number": "9",
            "current_sequence_number": "1",
        }
        assert RetryInfo(retry_delay={"seconds": 1}) in error.details
        assert query.Detail(sequence_number=1) in error.details


async def test_the_shape_of_a_request_is_judged_before_its_sequence(caller: Caller) -> None:
    with pytest.raises(CallError) as caught:
        await get(caller, b"x" * 255, min_sequence=9)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_batch_that_is_gone_or_not_there_yet(caller: Caller) -> None:
    async def missing(sequence: int) -> CallError:
        with pytest.raises(CallError) as caught:
            message = stream.GetRequest(sequence_number=sequence)
            await caller.unary(BATCH, message, stream.GetResponse)
        return caught.value

    assert dict(info_of(await missing(0)).metadata) == {}
    for n in range(3):
        await put(caller, (b"k", b"%d" % n))
    keep = {"sequence": {}, "retain": {"keep_latest": {"count": 1}}}
    await caller.unary(PRUNE, compact.PruneRequest(policies=[keep]), compact.PruneResponse)

    gone, beyond = await missing(2), await missing(4)
    assert (gone.code, gone.status, info_of(gone).reason) == (
        Code.OUT_OF_RANGE,
        400,
        "BATCH_EVICTED",
    )
    assert dict(info_of(gone).metadata) == {"oldest_retained": "3"}
    assert (beyond.code, beyond.status, info_of(beyond).reason) == (
        Code.NOT_FOUND,
        404,
        "BATCH_NOT_FOUND",
    )
    assert info_of(gone).domain == info_of(beyond).domain == "store.stream"


async def test_an_evicted_cursor_is_refused_with_the_oldest(caller: Caller) -> None:
    for n in range(3):
        await put(caller, (b"k", b"%d" % n))
    keep = {"sequence": {}, "retain": {"keep_latest": {"count": 1}}}
    await caller.unary(PRUNE, compact.PruneRequest(policies=[keep]), compact.PruneResponse)
    message = stream.SubscribeRequest(match_keys=[{"payload_regex": "k"}], since_sequence_number=1)
    async with caller.stream(SUBSCRIBE, message) as frames:
        with pytest.raises(CallError) as caught:
            await frames.next(stream.SubscribeResponse)
    assert caught.value.code is Code.OUT_OF_RANGE
    assert dict(info_of(caught.value).metadata) == {"oldest_retained": "3"}


async def test_what_writes_is_refused_while_writes_are_paused_and_reads_go_on() -> None:
    async with in_memory()() as platform, served(platform) as (_, dial):
        caller = Caller(dial)
        assert await put(caller, (b"a", b"1")) == 1
        await platform.pause_ingestion()
        drop = {"keys": {"match_key": {"payload_regex": "a"}}, "retain": {"drop_all": {}}}
        prune = compact.PruneRequest(policies=[drop])
        for refused in (
            put(caller, (b"b", b"")),
            caller.unary(PRUNE, prune, compact.PruneResponse),
        ):
            with pytest.raises(CallError) as caught:
                await refused
            assert caught.value.code is Code.UNAVAILABLE
            assert info_of(caught.value).reason == "WORKER_NOT_READY"
        assert await get(caller, b"a") == b"1"
        platform.resume_ingestion()
        assert await put(caller, (b"b", b"")) == 2


async def test_a_sum_that_overflows_is_the_fault_of_the_request(caller: Caller) -> None:
    row = encode_row([Cell(CellTag.I64, 2**63 - 1)])
    await put(caller, (b"a", row), (b"b", row))
    field = {"value": {"index": 0, "kind": "KV_FIELD_KIND_INT64"}}
    total = {"op": "RANGE_REDUCE_OP_SUM_FIELD", "expr": {"field": field}}
    with pytest.raises(CallError) as caught:
        await caller.unary(
            REDUCE, query.ReduceRequest(params={"reducers": [total]}), query.ReduceResponse
        )
    error = caught.value
    assert (error.code, info_of(error).reason) == (Code.INVALID_ARGUMENT, "INVALID_REDUCE_PARAMS")
