"""What a Prune asks for, from its messages: policies, not yet checked as a whole."""

from __future__ import annotations

from typing import assert_never

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
    Retain,
    SequenceScope,
)
from exo_stream.protocol.connect.generated import compact_pb2 as pb
from exo_stream.protocol.connect.selection import match_key


def policies(message: pb.PruneRequest) -> tuple[Policy, ...]:
    """The policies of a request. Raises InvalidPolicyError where a part of one is missing."""
    return tuple(
        Policy(_scope(one, f"policies[{index}]"), _retain(one.retain, f"policies[{index}].retain"))
        for index, one in enumerate(message.policies)
    )


def _scope(message: pb.Policy, field: str) -> KeysScope | SequenceScope:
    match message.WhichOneof("scope"):
        case "keys":
            return _keys(message.keys, f"{field}.keys")
        case "sequence":
            return SequenceScope()
        case None:
            raise InvalidPolicyError(f"{field}.scope", "a scope is needed: keys or sequence")
        case unreachable:
            assert_never(unreachable)


def _keys(message: pb.KeysScope, field: str) -> KeysScope:
    if not message.HasField("match_key"):
        raise InvalidPolicyError(f"{field}.match_key", "a match key is needed")
    order_by = None
    if message.HasField("order_by"):
        order_by = _order_by(message.order_by, f"{field}.order_by")
    return KeysScope(match_key(message.match_key), tuple(message.group_by.capture_groups), order_by)


def _order_by(message: pb.PolicyOrderBy, field: str) -> OrderBy:
    try:
        encoding = OrderEncoding(message.encoding)
    except ValueError:
        raise InvalidPolicyError(
            f"{field}.encoding", f"{message.encoding} is no order encoding"
        ) from None
    return OrderBy(message.capture_group, encoding)


def _retain(message: pb.PolicyRetain, field: str) -> Retain:
    match message.WhichOneof("kind"):
        case "keep_latest":
            return KeepLatest(message.keep_latest.count)
        case "greater_than":
            return GreaterThan(message.greater_than.threshold)
        case "greater_than_or_equal":
            return GreaterThanOrEqual(message.greater_than_or_equal.threshold)
        case "drop_all":
            return DropAll()
        case None:
            raise InvalidPolicyError(field, "a rule is needed: what to keep")
        case unreachable:
            assert_never(unreachable)
