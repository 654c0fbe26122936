"""store.compact.v1: pruning."""

from __future__ import annotations

from collections.abc import Mapping

from exo_stream.platform import Platform
from exo_stream.policies.policy import InvalidPolicyError, Policy
from exo_stream.protocol.connect.failure import invalid
from exo_stream.protocol.connect.generated.compact_pb2 import PruneRequest, PruneResponse
from exo_stream.protocol.connect.pruning import policies
from exo_stream.server.port import Port
from exo_stream.server.store_api.answering import AnyMethod, Method, Piece, Reply
from exo_stream.server.store_api.failures import COMPACT

REASON = "INVALID_PRUNE_REQUEST"


def checked_prune(message: PruneRequest) -> tuple[Policy, ...]:
    """The policies that are asked for. Raises CallError for what can be none."""
    try:
        return policies(message)
    except InvalidPolicyError as error:
        raise invalid(REASON, COMPACT, error.field, error.problem) from None


class Compact:
    """Answers the compact service."""

    def __init__(self, platform: Platform, port: Port) -> None:
        self._platform = platform
        self._port = port

    def methods(self) -> Mapping[str, AnyMethod]:
        """What it answers, by path."""
        size = self._port.limits.connect_request_bytes_max
        return {
            "/store.compact.v1.Service/Prune": Method(
                PruneRequest, checked_prune, COMPACT, size, answer=self.prune
            )
        }

    async def prune(self, asked: tuple[Policy, ...]) -> Reply:
        """Nothing, once the policies have been carried out."""
        try:
            await self._platform.prune(asked)
        except InvalidPolicyError as error:
            raise invalid(REASON, COMPACT, error.field, error.problem) from None
        return Reply(Piece(PruneResponse, 0))
