"""Calls of the store's own API that many tests make."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from exo_stream.limits import Limits
from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.generated import ingest_pb2 as ingest
from exo_stream.protocol.connect.generated import query_pb2 as query
from tests.connect_caller import Caller, served
from tests.worlds import in_memory

PUT = "store.ingest.v1.Service/Put"
GET = "store.query.v1.Service/Get"
GET_MANY = "store.query.v1.Service/GetMany"
RANGE = "store.query.v1.Service/Range"
REDUCE = "store.query.v1.Service/Reduce"
SUBSCRIBE = "store.stream.v1.Service/Subscribe"
BATCH = "store.stream.v1.Service/Get"
PRUNE = "store.compact.v1.Service/Prune"


@asynccontextmanager
async def calling(
    codec: Codec = Codec.PROTO, encoding: str = "", limits: Limits | None = None, **headers: str
) -> AsyncIterator[Caller]:
    """A caller of a store in memory."""
    async with in_memory()(limits=limits) as platform, served(platform) as (_, dial):
        yield Caller(dial, codec, encoding=encoding, **headers)


async def put(caller: Caller, *pairs: tuple[bytes, bytes]) -> int:
    """Put the pairs; answer the sequence number."""
    message = ingest.PutRequest(kvs=[{"key": key, "value": value} for key, value in pairs])
    answer, _ = await caller.unary(PUT, message, ingest.PutResponse)
    return answer.sequence_number


async def get(caller: Caller, key: bytes, min_sequence: int | None = None) -> bytes | None:
    """The key's value, None if it is absent."""
    message = query.GetRequest(key=key, min_sequence_number=min_sequence)
    answer, _ = await caller.unary(GET, message, query.GetResponse)
    return answer.value if answer.HasField("value") else None


def detail(text: str) -> tuple[int, int]:
    """The sequence number and the bytes read that a detail tells."""
    message = query.Detail.FromString(b64decode(text + "=="))
    return message.sequence_number, message.read_stats["read_bytes"]
