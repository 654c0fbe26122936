"""store.ingest.v1: writing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from exo_stream.errors import LimitExceededError
from exo_stream.limits import STORE_KEY_BYTES_MAX, Limits
from exo_stream.platform import Platform
from exo_stream.protocol.connect.failure import CallError, invalid
from exo_stream.protocol.connect.generated.ingest_pb2 import PutRequest, PutResponse
from exo_stream.server.port import Port
from exo_stream.server.store_api.answering import AnyMethod, Method, Piece, Reply
from exo_stream.server.store_api.failures import INGEST, not_ready
from exo_stream.writes import StoreWrite, checked_write

_INLINE_BYTES_MAX: Final = 1 << 20
_INLINE_PAIRS_MAX: Final = 5_000
"""So many pairs are checked in a few milliseconds."""


def checked_put(limits: Limits, message: PutRequest) -> StoreWrite:
    """The batch that a Put asks for. Raises CallError, which names the first wrong field."""
    if not message.kvs:
        raise invalid("INVALID_BATCH", INGEST, "kvs", "a batch needs at least one pair")
    try:
        return checked_write(limits, puts=[(kv.key, kv.value) for kv in message.kvs])
    except LimitExceededError as error:
        raise _too_large(message, error) from None


def _too_large(message: PutRequest, error: LimitExceededError) -> CallError:
    match error.limit:
        case "key_bytes_max":
            at = next(i for i, kv in enumerate(message.kvs) if len(kv.key) > error.bound)
            metadata = {"max_key_len": str(STORE_KEY_BYTES_MAX)}
            return invalid("INVALID_KEY_LENGTH", INGEST, f"kvs[{at}].key", str(error), metadata)
        case "value_bytes_max":
            at = next(i for i, kv in enumerate(message.kvs) if len(kv.value) > error.bound)
            metadata = {"max_value_len": str(error.bound)}
            return invalid("INVALID_VALUE_LENGTH", INGEST, f"kvs[{at}].value", str(error), metadata)
        case _:
            return invalid("INVALID_BATCH", INGEST, "kvs", str(error))


class Ingest:
    """Answers the ingest service."""

    def __init__(self, platform: Platform, port: Port) -> None:
        self._platform = platform
        self._port = port

    def methods(self) -> Mapping[str, AnyMethod]:
        """What it answers, by path."""
        limits = self._port.limits
        return {
            "/store.ingest.v1.Service/Put": Method(
                PutRequest,
                partial(checked_put, limits),
                INGEST,
                limits.connect_put_bytes_max,
                answer=self.put,
                keeps_request=True,
                inline_bytes_max=_INLINE_BYTES_MAX,
                is_much=lambda message: len(message.kvs) > _INLINE_PAIRS_MAX,
            )
        }

    async def put(self, write: StoreWrite) -> Reply:
        """Its sequence number, once it is durable."""
        if self._port.draining:
            raise not_ready()
        [result] = await self._platform.write_many([write])
        sequence = result.unwrap()
        return Reply(Piece(lambda: PutResponse(sequence_number=sequence), 0))
