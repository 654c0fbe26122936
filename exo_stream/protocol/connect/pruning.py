"""What a Prune asks for, from its messages: policies, not yet checked as a whole."""

from __future__ import annotations

from typing import assert_never

from exo_stream.policies import policy as p
from exo_stream.protocol.connect.generated import compact_pb2 as pb
from exo_stream.protocol.connect.selection import match_key


def policies(message: pb.PruneRequest) -> tuple[p.Policy, ...]:
    """The policies of a request. Raises InvalidPolicyError where a part of one is missing."""
    return tuple(
        p.Policy(
            _scope(one, f"policies[{index}]"), _retain(one.retain, f"policies[{index}].retain")
        )
        for index, one in enumerate(message.policies)
    )


def _scope(message: pb.Policy, field: str) -> p.KeysScope | p.SequenceScope:
    match message.WhichOneof("scope"):
        case "keys":
            return _keys(message.keys, f"{field}.keys")
        case "sequence":
            return p.SequenceScope()
        case None:
            raise p.InvalidPolicyError(f"{field}.scope", "a scope is needed: keys or sequence")
        case unreachable:
            assert_never(unreachable)


def _keys(message: pb.KeysScope, field: str) -> p.KeysScope:
    if not message.HasField("match_key"):
        raise p.InvalidPolicyError(f"{field}.match_key", "a match key is needed")
    order_by = None
    if message.HasField("order_by"):
        order_by = _order_by(message.order_by, f"{field}.order_by")
    return p.KeysScope(
        match_key(message.match_key), tuple(message.group_by.capture_groups), order_by
    )


def _order_by(message: pb.PolicyOrderBy, field: str) -> p.OrderBy:
    try:
        encoding = p.OrderEncoding(message.encoding)
    except ValueError:
        raise p.InvalidPolicyError(
            f"{field}.encoding", f"{message.encoding} is no order encoding"
        ) from None
    return p.OrderBy(message.capture_group, encoding)


def _retain(message: pb.PolicyRetain, field: str) -> p.Retain:
    match message.WhichOneof("kind"):
        case "keep_latest":
            return p.KeepLatest(message.keep_latest.count)
        case "greater_than":
            return p.GreaterThan(message.greater_than.threshold)
        case "greater_than_or_equal":
            return p.GreaterThanOrEqual(message.greater_than_or_equal.threshold)
        case "drop_all":
            return p.DropAll()
        case None:
            raise p.InvalidPolicyError(field, "a rule is needed: what to keep")
        case unreachable:
            assert_never(unreachable)
