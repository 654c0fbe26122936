"""Reduces, as one connection asks for them."""

from __future__ import annotations

import trio

from exo_stream.errors import LimitExceededError
from exo_stream.platform import Platform
from exo_stream.protocol.reductions import Reduce, Reduced
from exo_stream.reduce.document import decode_request
from exo_stream.reduce.request import ReduceResult
from exo_stream.reduce.scalar import Scalar

_SCALAR_BYTES = 34
"""What a scalar takes on the wire beside a text or bytes, at most: it may be a decimal."""


async def reduced(platform: Platform, request: Reduce) -> tuple[Reduced, int]:
    """The answer and its size in bytes, about; raises what the platform raises.

    The sequence that it asks for has been waited for.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    asked = decode_request(request.document)
    result = await platform.reduce(asked, request.start, request.end)
    size = _size(result)
    bound = platform.limits.message_bytes_max
    if size > bound:
        raise LimitExceededError("message_bytes_max", bound, size)
    stats = result.read_stats
    answer = Reduced(request.id, result.sequence, stats.read_bytes, result.results, result.groups)
    return answer, size


def _size(result: ReduceResult) -> int:
    size = sum(map(_scalar_size, result.results))
    for group in result.groups:
        size += sum(map(_scalar_size, group.group_values)) + sum(map(_scalar_size, group.results))
    return size


def _scalar_size(scalar: Scalar | None) -> int:
    if scalar is None:
        return 1
    value = scalar.value
    if isinstance(value, str):
        return _SCALAR_BYTES + len(value.encode())
    return _SCALAR_BYTES + (len(value) if isinstance(value, bytes) else 0)
