"""The store's own API behind the verbs of our handles, so that one suite can run against each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from exo_stream.errors import (
    BatchEvictedError,
    InvalidRequestError,
    NotVisibleYetError,
)
from exo_stream.keys import MatchKey
from exo_stream.model import Batch, Entry, Keyspace
from exo_stream.policies.policy import DropAll, GreaterThan, KeepLatest, KeysScope, Policy
from exo_stream.protocol.connect.failure import CallError, Code
from exo_stream.protocol.connect.generated import common_pb2 as common
from exo_stream.protocol.connect.generated import compact_pb2 as compact
from exo_stream.protocol.connect.generated import ingest_pb2 as ingest
from exo_stream.protocol.connect.generated import query_pb2 as query
from exo_stream.protocol.connect.generated import stream_pb2 as stream
from exo_stream.protocol.connect.reductions import KIND_OF_FIELD
from exo_stream.reduce.constraints import Check, IntRange
from exo_stream.reduce.expressions import Expression, Field, KeyField, ValueField
from exo_stream.reduce.request import ReduceGroup, ReduceRequest, ReduceResult
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.selectors import ExactValue, ValueFilter, ValuePrefix
from tests.connect_caller import Caller, Frames, info_of
from tests.store_calls import BATCH, GET, GET_MANY, PRUNE, PUT, RANGE, REDUCE, SUBSCRIBE


def reraise(error: CallError) -> NoReturn:
    """Raise what a handle would."""
    if error.code is Code.INVALID_ARGUMENT:
        raise InvalidRequestError(error.message) from None
    metadata = dict(info_of(error).metadata)
    if error.code is Code.ABORTED:
        current, required = (
            metadata[f"{name}_sequence_number"] for name in ("current", "required")
        )
        raise NotVisibleYetError(int(current), int(required)) from None
    assert error.code is Code.OUT_OF_RANGE, error
    raise BatchEvictedError(int(metadata.get("oldest_retained", 0))) from None


class ConnectStore:
    """What a program that speaks the store's own API can do."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def put_batch(self, kvs: Iterable[tuple[bytes, bytes]]) -> int:
        message = ingest.PutRequest(kvs=[{"key": key, "value": value} for key, value in kvs])
        answer: ingest.PutResponse = await self._unary(PUT, message, ingest.PutResponse)
        return answer.sequence_number

    async def get(self, key: bytes, *, min_sequence: int = 0, wait: bool = False) -> bytes | None:
        assert not wait, "the server never waits"
        message = query.GetRequest(key=key, min_sequence_number=min_sequence)
        answer: query.GetResponse = await self._unary(GET, message, query.GetResponse)
        return answer.value if answer.HasField("value") else None

    async def get_many(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes | None]]:
        message = query.GetManyRequest(keys=keys, batch_size=3)
        frames = await self._all(GET_MANY, message, query.GetManyFrame)
        return [
            (entry.key, entry.value if entry.HasField("value") else None)
            for frame in frames
            for entry in frame.results
        ]

    async def range_scan(
        self, start: bytes = b"", end: bytes = b"", limit: int = 1000, forward: bool = True
    ) -> list[tuple[bytes, bytes]]:
        message = query.RangeRequest(
            start=start, end=end, limit=limit, batch_size=2,
            mode=query.TRAVERSAL_MODE_FORWARD if forward else query.TRAVERSAL_MODE_REVERSE,
        )  # fmt: skip
        frames = await self._all(RANGE, message, query.RangeFrame)
        return [(row.key, row.value) for frame in frames for row in frame.results]

    async def get_batch(self, sequence: int) -> Batch | None:
        message = stream.GetRequest(sequence_number=sequence)
        try:
            answer, _ = await self._caller.unary(BATCH, message, stream.GetResponse)
        except CallError as error:
            if error.code is Code.NOT_FOUND and info_of(error).reason == "BATCH_NOT_FOUND":
                return None
            reraise(error)
        return _batch(answer)

    async def prune(self, policies: Sequence[Policy]) -> None:
        message = compact.PruneRequest(policies=[_policy(policy) for policy in policies])
        await self._unary(PRUNE, message, compact.PruneResponse)

    async def reduce(
        self, request: ReduceRequest, start: bytes = b"", end: bytes = b""
    ) -> ReduceResult:
        message = query.ReduceRequest(start=start, end=end, params=_params(request))
        answer: query.ReduceResponse = await self._unary(REDUCE, message, query.ReduceResponse)
        return _result(answer)

    def subscribe(
        self,
        *,
        match: Sequence[MatchKey],
        values: Sequence[ValueFilter] = (),
        from_sequence: int = 0,
        start: Literal["now"] | None = None,
    ) -> ConnectFeed:
        assert from_sequence or start == "now"
        message = stream.SubscribeRequest(
            match_keys=[_match_key(one) for one in match],
            value_filters=[_value_filter(one) for one in values],
            since_sequence_number=from_sequence,
        )
        return ConnectFeed(self._caller.stream(SUBSCRIBE, message))

    async def _unary(self, method: str, message: Any, kind: Any) -> Any:
        try:
            answer, _ = await self._caller.unary(method, message, kind)
        except CallError as error:
            reraise(error)
        return answer

    async def _all(self, method: str, message: Any, kind: Any) -> list[Any]:
        try:
            async with self._caller.stream(method, message) as frames:
                found: list[Any] = await frames.all(kind)
                return found
        except CallError as error:
            reraise(error)


class ConnectFeed:
    """The batches of a Subscribe."""

    def __init__(self, stream_: AbstractAsyncContextManager[Frames]) -> None:
        self._stream = stream_
        self._frames: Frames | None = None

    async def __aenter__(self) -> Self:
        self._frames = await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stream.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - it only closes

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        assert self._frames is not None
        try:
            frame = await self._frames.next(stream.SubscribeResponse)
        except CallError as error:
            reraise(error)
        if frame is None:
            raise StopAsyncIteration
        return _batch(frame)


def _batch(message: stream.GetResponse | stream.SubscribeResponse) -> Batch:
    entries = tuple(Entry(Keyspace.STORE, kv.key, kv.value) for kv in message.entries)
    return Batch(message.sequence_number, 0, entries, "")


def _match_key(match_key: MatchKey) -> common.MatchKey:
    return common.MatchKey(
        reserved_bits=match_key.reserved_bits,
        prefix=match_key.prefix,
        payload_regex=match_key.payload_regex,
    )


def _value_filter(one: ValueFilter) -> common.BytesFilter:
    if isinstance(one, ExactValue):
        return common.BytesFilter(exact=one.value)
    if isinstance(one, ValuePrefix):
        return common.BytesFilter(prefix=one.prefix)
    return common.BytesFilter(regex=one.regex)


def _policy(policy: Policy) -> compact.Policy:
    match policy.retain:
        case KeepLatest(count):
            retain = compact.PolicyRetain(keep_latest={"count": count})
        case GreaterThan(threshold):
            retain = compact.PolicyRetain(greater_than={"threshold": threshold})
        case DropAll():
            retain = compact.PolicyRetain(drop_all={})
        case other:
            retain = compact.PolicyRetain(greater_than_or_equal={"threshold": other.threshold})
    if not isinstance(policy.scope, KeysScope):
        return compact.Policy(sequence={}, retain=retain)
    scope = compact.KeysScope(match_key=_match_key(policy.scope.match_key))
    scope.group_by.capture_groups.extend(policy.scope.group_by)
    if policy.scope.order_by is not None:
        scope.order_by.capture_group = policy.scope.order_by.capture_group
        scope.order_by.encoding = compact.PolicyOrderEncoding.Name(policy.scope.order_by.encoding)  # type: ignore[assignment]  # the stub knows numbers only, the message names too
    return compact.Policy(keys=scope, retain=retain)


def _params(request: ReduceRequest) -> query.ReduceParams:
    params = query.ReduceParams()
    for reducer in request.reducers:
        spec = params.reducers.add(op=query.RangeReduceOp.Name(reducer.op.value))
        if reducer.expr is not None:
            spec.expr.CopyFrom(_expression(reducer.expr))
    params.group_by.extend(map(_expression, request.group_by))
    if request.filter is not None:
        params.filter.contradiction = request.filter.contradiction
        params.filter.checks.extend(map(_check, request.filter.checks))
    return params


def _expression(expression: Expression) -> query.KvExpr:
    assert isinstance(expression, KeyField | ValueField), "enough for the scenarios"
    return query.KvExpr(field=_field(expression))


def _field(of: Field) -> query.KvFieldRef:
    kind = of.kind.value
    if isinstance(of, KeyField):
        return query.KvFieldRef(key={"bit_offset": of.bit_offset, "kind": kind})
    assert isinstance(of, ValueField), "enough for the scenarios"
    return query.KvFieldRef(value={"index": of.index, "kind": kind, "nullable": of.nullable})


def _check(check: Check) -> query.KvPredicateCheck:
    assert isinstance(check.constraint, IntRange), "enough for the scenarios"
    bounds = query.KvPredicateConstraint.IntRange(
        min=check.constraint.minimum, max=check.constraint.maximum
    )
    return query.KvPredicateCheck(field=_field(check.field), constraint={"int_range": bounds})


def _result(answer: query.ReduceResponse) -> ReduceResult:
    groups = [
        ReduceGroup(_group_values(group), tuple(map(_reduced, group.results)))
        for group in answer.groups
    ]
    return ReduceResult(tuple(map(_reduced, answer.results)), tuple(groups))


def _group_values(group: query.RangeReduceGroup) -> tuple[Scalar | None, ...]:
    values = iter(group.group_values)
    return tuple(
        _scalar(next(values)) if present else None for present in group.group_values_present
    )


def _reduced(result: query.RangeReduceResult) -> Scalar | None:
    return _scalar(result.value) if result.HasField("value") else None


def _scalar(message: query.KvReducedValue) -> Scalar:
    name = message.WhichOneof("value")
    assert name is not None
    kind: Kind = KIND_OF_FIELD[name]
    return Scalar(kind, getattr(message, name))
