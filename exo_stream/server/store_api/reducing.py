"""store.query.v1 Reduce: aggregates over a range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exo_stream.platform import Platform
from exo_stream.protocol.connect.failure import CallError, invalid
from exo_stream.protocol.connect.generated.query_pb2 import ReduceRequest as ReduceMessage
from exo_stream.protocol.connect.reductions import reduce_request, reduce_response
from exo_stream.reduce.checks import check_request
from exo_stream.reduce.request import ReduceRequest, ReduceResult
from exo_stream.reduce.scalar import InvalidReduceError
from exo_stream.server.port import Port
from exo_stream.server.store_api.answering import AnyMethod, Method, Piece, Reply
from exo_stream.server.store_api.failures import QUERY
from exo_stream.server.store_api.query import DETAIL_HEADER, check_key, detail_value

_VALUE_BYTES = 64
"""What a value of an answer takes, about."""


@dataclass(frozen=True, slots=True)
class Question:
    """A reduce, and the range it is of."""

    request: ReduceRequest
    start: bytes
    end: bytes
    min_sequence: int


def checked_reduce(message: ReduceMessage) -> Question:
    """What is asked, if it can be carried out. Raises CallError, which names the wrong field."""
    check_key(message.start, "start")
    check_key(message.end, "end")
    try:
        request = reduce_request(message.params)
        check_request(request)
    except InvalidReduceError as error:
        raise invalid_reduce(error) from None
    return Question(request, message.start, message.end, message.min_sequence_number)


def invalid_reduce(error: InvalidReduceError) -> CallError:
    """The error of a reduce that breaks a rule; its field is below ``params``."""
    field = error.field if error.field.startswith("params") else f"params.{error.field}"
    return invalid("INVALID_REDUCE_PARAMS", QUERY, field, error.problem)


class Reducing:
    """Answers Reduce."""

    def __init__(self, platform: Platform, port: Port) -> None:
        self._platform = platform
        self._port = port

    def methods(self) -> Mapping[str, AnyMethod]:
        """What it answers, by path."""
        size = self._port.limits.connect_request_bytes_max
        return {
            "/store.query.v1.Service/Reduce": Method(
                ReduceMessage,
                checked_reduce,
                QUERY,
                size,
                answer=self.reduce,
                is_safe=True,
                is_long=True,
            )
        }

    async def reduce(self, asked: Question) -> Reply:
        """The results, or the groups."""
        try:
            result = await self._platform.reduce(
                asked.request,
                asked.start,
                asked.end,
                min_sequence=asked.min_sequence,
                wait=False,
            )
        except InvalidReduceError as error:
            raise invalid_reduce(error) from None
        detail = detail_value(result.sequence, result.read_stats.read_bytes)
        piece = Piece(lambda: reduce_response(result), _cost(result))
        return Reply(piece, ((DETAIL_HEADER, detail),))


def _cost(result: ReduceResult) -> int:
    width = max((len(g.group_values) + len(g.results) for g in result.groups), default=0)
    return _VALUE_BYTES * (len(result.results) + width * len(result.groups))
