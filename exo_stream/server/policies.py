"""Prunes and retention, as one connection asks for them."""

from __future__ import annotations

from typing import assert_never

import trio

from exo_stream.platform import Platform
from exo_stream.policies.document import decode_policies, decode_retention, encode_retention
from exo_stream.policies.retention import RetentionState
from exo_stream.protocol.fields import TEXT_LENGTH_MAX
from exo_stream.protocol.policies import (
    GetRetention,
    PoliciesPruned,
    PolicyReply,
    PolicyRequest,
    PrunePolicies,
    Retention,
    SetRetention,
)


async def answered(platform: Platform, request: PolicyRequest) -> PolicyReply:
    """The answer to a request about policies; raises what the platform raises."""
    await trio.lowlevel.checkpoint_if_cancelled()
    match request:
        case PrunePolicies():
            policies = decode_policies(request.document)
            result = await platform.prune(policies, dry_run=request.dry_run)
            return PoliciesPruned(request.id, result.policies, result.sequences)
        case SetRetention():
            state = await platform.set_retention(decode_retention(request.document))
            return _described(request.id, state)
        case GetRetention():
            return _described(request.id, await platform.retention())
        case _:
            assert_never(request)


def _described(id_: int, state: RetentionState) -> Retention:
    return Retention(
        id_,
        encode_retention(state.stored),
        encode_retention(state.in_force),
        state.source,
        None if state.problem is None else state.problem[:TEXT_LENGTH_MAX],
        state.oldest_retained,
    )
