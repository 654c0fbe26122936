"""What a method answers: one message, or messages pulled one step at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import trio
from google.protobuf.message import Message

from exo_stream.errors import OverloadedError
from exo_stream.protocol.connect.call import Call
from exo_stream.protocol.http import Headers
from exo_stream.server.budget import Share
from exo_stream.server.request import BodyWriter, Request

_PATIENCE_SECONDS: Final = 10
"""For so long an answer waits for memory. Those that wait may hold what the others wait for."""

M = TypeVar("M", bound=Message)
Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class Piece:
    """One message to be sent: built where it is encoded, for a large one takes long.

    ``cost`` is about what it has in bytes.
    """

    build: Callable[[], Message]
    cost: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a unary method, and headers of its own."""

    piece: Piece
    headers: Headers = ()


class Pieces(Protocol):
    """The answer of a streaming method. ``endless`` ones are ended when the server stops."""

    endless: bool

    async def next(self, share: Share) -> Sequence[Piece] | None:
        """Some more messages, none yet, or None at the end.

        What they hold is taken into ``share``, which is given back once they are sent.
        """

    @property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """What is told at the end of the stream."""

    def offer_seat(self, call: Call, writer: BodyWriter) -> None:
        """Let the fan-out write to ``writer`` while there is nothing to be pulled."""

    def close(self) -> None:
        """Let go of what it holds."""


async def wait_room(share: Share, size: int) -> None:
    """Hold ``size`` bytes for an answer. Raises OverloadedError if there is no room for long."""
    with trio.move_on_after(_PATIENCE_SECONDS):
        await share.wait_take(size)
        return
    raise OverloadedError("there is no room for an answer; try again later")


@dataclass(frozen=True, slots=True)
class Method(Generic[M, Q]):
    """One method: ``check`` makes of its message what ``answer`` or ``stream`` serve.

    ``check`` is pure and may be run in a thread. It raises CallError or InvalidRequestError.
    ``is_safe`` methods may be called by GET; ``is_long`` ones end when their caller leaves; what
    ``keeps_request`` ones ask is about as large as their message, as long as they are served.
    """

    kind: type[M]
    check: Callable[[M], Q]
    domain: str
    bytes_max: int
    answer: Callable[[Q], Awaitable[Reply]] | None = None
    stream: Callable[[Q, Request], Pieces] | None = None
    is_safe: bool = False
    is_long: bool = False
    keeps_request: bool = False
    inline_bytes_max: int = 65_536
    """A larger message is read in a thread: its parts may be tiny, and take long."""
    is_much: Callable[[M], bool] | None = None
    """Whether a message that is no larger asks for so much that it is checked in a thread."""
    reserve: int = 0
    """Bytes that are held before it is answered, for what is read then."""

    @property
    def streams(self) -> bool:
        """Whether its answer is a stream."""
        return self.stream is not None


AnyMethod = Method[Any, Any]
"""One of those that a path leads to: what it reads is what it checks and answers itself."""
