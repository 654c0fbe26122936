"""One request of a caller, from the moment it is made until its one answer is there."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import outcome
import trio

from exo_stream.client.numbering import Numbering
from exo_stream.errors import ExoStreamError
from exo_stream.producers import Producer
from exo_stream.protocol.frames import Assembly
from exo_stream.protocol.messages import Reply, Request


class Retry(Enum):
    """What becomes of a call whose connection is lost before its answer came."""

    NUMBERED = "sent again under the same number"
    READ = "sent again"
    ONCE = "failed, its outcome unknown: sent again, it might take effect twice"
    NEVER = "failed: what it asked about is gone with the connection"


class Call:
    """A request without an id yet: ``build(id, producer)`` makes it when it is sent.

    A ``NUMBERED`` call gets its producer's number when it is first sent, and keeps it; without
    one, to a server that does not know producers, it is sent once.
    ``connection`` is the number of the connection it was last sent on, for a ``NEVER`` call the
    only one it is good for; ``losses`` says how many were lost before they answered it;
    ``numbering`` is what gave the producer's number, and is told when the call is settled.
    """

    __slots__ = (
        "_done",
        "_outcome",
        "abandoned",
        "assembly",
        "build",
        "connection",
        "losses",
        "numbering",
        "producer",
        "retry",
        "sent",
        "size",
    )

    def __init__(
        self,
        build: Callable[[int, Producer | None], Request],
        *,
        retry: Retry = Retry.READ,
        producer: Producer | None = None,
        size: int = 0,
        connection: int = 0,
    ) -> None:
        self.build = build
        self.retry = retry
        self.producer = producer
        self.size = size
        self.connection = connection
        self.sent = False
        self.abandoned = False
        self.losses = 0
        self.assembly: Assembly | None = None
        self.numbering: Numbering | None = None
        self._outcome: outcome.Outcome[Reply] | None = None
        self._done = trio.Event()

    @property
    def settled(self) -> bool:
        """Whether the answer is there."""
        return self._outcome is not None

    @property
    def reply(self) -> Reply | None:
        """The answer if it is there, and is none of an error."""
        return self._outcome.value if isinstance(self._outcome, outcome.Value) else None

    @property
    def needs_number(self) -> bool:
        """Whether it waits for a producer's number of ours."""
        return self.retry is Retry.NUMBERED and self.producer is None

    def number(self, numbering: Numbering) -> None:
        """Take a number, once and for all."""
        assert self.producer is None
        self.numbering = numbering
        self.producer = numbering.take()

    def release(self) -> None:
        """It will not be sent again, and nobody waits for its answer."""
        if self.numbering is not None and self.producer is not None:
            self.numbering.settle(self.producer)

    def set(self, reply: Reply) -> None:
        """Answer."""
        self._settle(outcome.Value(reply))

    def fail(self, error: ExoStreamError) -> None:
        """Answer with an error, an object of its own: raising one changes it."""
        self._settle(outcome.Error(error))

    async def wait(self) -> Reply:
        """The answer, or the error raised."""
        await self._done.wait()
        assert self._outcome is not None
        return self._outcome.unwrap()

    def _settle(self, result: outcome.Outcome[Reply]) -> None:
        assert self._outcome is None, "answered twice"
        self._outcome = result
        self.release()
        self._done.set()
