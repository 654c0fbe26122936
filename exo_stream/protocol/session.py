"""The WebSocket conversation as a state machine: who may say what, and when.

Rule 1: everything that decides whether a message is legal lives in this file, in the tables.
Rule 2: this file does not know which side it is on; it checks both sides by the same tables.
So we cannot cheat and apply different rules to ourselves and to the peer. The tables are printed
in docs/protocol.md; a test compares.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from exo_stream.errors import LocalProtocolError, RemoteProtocolError
from exo_stream.limits import Limits
from exo_stream.protocol import canonical_messages as c
from exo_stream.protocol import codec
from exo_stream.protocol import projection_messages as pm
from exo_stream.protocol.messages import (
    Batches,
    CaughtUp,
    Delivery,
    Failure,
    FellBehind,
    Found,
    Get,
    GetBatch,
    GetMany,
    GoAway,
    Goodbye,
    Heartbeat,
    Hello,
    Info,
    Information,
    Message,
    Part,
    Ping,
    Pong,
    Progress,
    Prune,
    Pruned,
    Reply,
    Request,
    Rows,
    Scan,
    ScanClose,
    ScanNext,
    Snapshot,
    SnapshotBegin,
    SnapshotEnd,
    SnapshotNext,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Value,
    Values,
    Welcome,
    Write,
    Written,
)
from exo_stream.protocol.policies import (
    GetRetention,
    PoliciesPruned,
    PrunePolicies,
    Retention,
    SetRetention,
)
from exo_stream.protocol.reductions import Reduce, Reduced
from exo_stream.protocol.stream_messages import (
    AppendStream,
    CleanUpStreams,
    CreateStream,
    DeleteStream,
    ForkStream,
    HeadStream,
    ListStreams,
    ReadStream,
    StreamAppended,
    StreamCreated,
    StreamDeleted,
    StreamHead,
    StreamRead,
    StreamsCleanedUp,
    StreamsListed,
)


class Role(Enum):
    """Which side speaks."""

    CLIENT = "client"
    SERVER = "server"


class State(Enum):
    """How far a connection has come."""

    NEW = "new"
    GREETED = "greeted"
    OPEN = "open"
    CLOSED = "closed"


REPLIES: Final[dict[type[Request], tuple[type[Message], ...]]] = {
    Write: (Written,),
    Get: (Value,),
    GetMany: (Values,),
    Scan: (Rows,),
    ScanNext: (Rows,),
    Reduce: (Reduced,),
    GetBatch: (Found, Part),
    Info: (Information,),
    Prune: (Pruned,),
    PrunePolicies: (PoliciesPruned,),
    SetRetention: (Retention,),
    GetRetention: (Retention,),
    CreateStream: (StreamCreated,),
    ForkStream: (StreamCreated,),
    AppendStream: (StreamAppended,),
    ReadStream: (StreamRead,),
    HeadStream: (StreamHead,),
    DeleteStream: (StreamDeleted,),
    ListStreams: (StreamsListed,),
    CleanUpStreams: (StreamsCleanedUp,),
    c.OpenSnapshot: (c.SnapshotOpened,),
    c.ReadState: (c.StateValues,),
    c.ScanState: (c.StateRows,),
    c.ReadEvents: (c.EventsRead,),
    c.Commit: (c.Committed,),
    c.ReadMeta: (c.StoreMeta,),
    c.Seal: (c.Sealed,),
    c.Unseal: (c.Unsealed,),
    c.PauseWrites: (c.Paused,),
    c.ResumeWrites: (c.Resumed,),
    pm.ReadProjections: (pm.ProjectionsRead,),
    pm.ReadDeadLetters: (pm.DeadLettersRead,),
    pm.ReplayDeadLetters: (pm.DeadLettersReplayed,),
    Subscribe: (Subscribed,),
}
"""What answers what; a ``Failure`` answers anything."""

DELIVERIES: Final[tuple[type[Message], ...]] = (
    *(SnapshotBegin, Snapshot, SnapshotEnd),
    *(Batches, Part, CaughtUp, FellBehind, Progress, Heartbeat),
)
"""What a subscription brings once it is ``Subscribed``."""

TRANSITIONS: Final[dict[State, dict[tuple[Role, type[Message]], State]]] = {
    State.NEW: {
        (Role.CLIENT, Hello): State.GREETED,
    },
    State.GREETED: {
        (Role.SERVER, Welcome): State.OPEN,
        (Role.SERVER, Failure): State.CLOSED,
    },
    State.OPEN: {
        **{(Role.CLIENT, kind): State.OPEN for kind in REPLIES},
        (Role.CLIENT, ScanClose): State.OPEN,
        (Role.CLIENT, Unsubscribe): State.OPEN,
        (Role.CLIENT, SnapshotNext): State.OPEN,
        (Role.CLIENT, Ping): State.OPEN,
        (Role.CLIENT, Pong): State.OPEN,
        (Role.CLIENT, Goodbye): State.CLOSED,
        **{(Role.SERVER, kind): State.OPEN for kinds in REPLIES.values() for kind in kinds},
        **{(Role.SERVER, kind): State.OPEN for kind in DELIVERIES},
        (Role.SERVER, Failure): State.OPEN,
        (Role.SERVER, Unsubscribed): State.OPEN,
        (Role.SERVER, Ping): State.OPEN,
        (Role.SERVER, Pong): State.OPEN,
        (Role.SERVER, GoAway): State.OPEN,
    },
    State.CLOSED: {},
}


class Session:
    """One connection, seen from ``role``. Feed it frames; ask it for frames; it does no I/O.

    ``requests`` are the ids that wait for an answer, ``subscriptions`` those that are live.
    """

    def __init__(self, role: Role, limits: Limits) -> None:
        self.role = role
        self.state = State.NEW
        self.requests: dict[int, type[Request]] = {}
        self.subscriptions: set[int] = set()
        self._last_id = 0
        self._limits = limits

    def send(self, *messages: Message) -> bytes:
        """The frame that says this, or LocalProtocolError if we may not say it now."""
        for message in messages:
            self._advance(self.role, message)
        return codec.encode(messages)

    def receive(self, frame: bytes) -> list[Message]:
        """What the peer said, or RemoteProtocolError if it may not say that now.

        What has become meaningless while it travelled is left out: the end of a subscription
        that had ended already.
        """
        peer = Role.SERVER if self.role is Role.CLIENT else Role.CLIENT
        heard = codec.decode(frame, bytes_max=self._limits.message_bytes_max)
        try:
            return [message for message in heard if self._advance(peer, message)]
        except LocalProtocolError as error:
            raise RemoteProtocolError(str(error)) from None

    def _advance(self, speaker: Role, message: Message) -> bool:
        after = TRANSITIONS[self.state].get((speaker, type(message)))
        if after is None:
            raise LocalProtocolError(
                f"the {speaker.value} may not say {codec.name_of(type(message))} "
                f"while the connection is {self.state.value}"
            )
        means_something = True
        if isinstance(message, Request):
            self._begin(message)
        elif isinstance(message, Reply | Delivery):
            self._answer(message)
        elif isinstance(message, Failure):
            self._fail(message.id)
        elif isinstance(message, Unsubscribe | SnapshotNext):
            means_something = self._is_live(message.id)
        elif isinstance(message, Unsubscribed):
            self._end(message.id)
        self.state = after
        return means_something

    def _begin(self, request: Request) -> None:
        if request.id <= self._last_id:
            raise LocalProtocolError(f"id {request.id} after {self._last_id}: ids only grow")
        waiting = len(self.requests)
        if waiting >= self._limits.requests_max:
            raise LocalProtocolError(f"more than {waiting} requests wait for an answer")
        self._last_id = request.id
        self.requests[request.id] = type(request)

    def _answer(self, message: Reply | Delivery) -> None:
        asked = self.requests.get(message.id)
        if asked is None:
            if message.id not in self.subscriptions or not isinstance(message, DELIVERIES):
                self._complain(message)
            return
        if not isinstance(message, REPLIES[asked]):
            self._complain(message)
        if not isinstance(message, Part) or message.body.is_last:
            del self.requests[message.id]
        if asked is Subscribe:
            self.subscriptions.add(message.id)

    def _fail(self, id_: int) -> None:
        if self.state is State.GREETED:
            return
        if self.requests.pop(id_, None) is None:
            self._end(id_)

    def _is_live(self, id_: int) -> bool:
        """Whether ``id_`` is a subscription; one that was is no mistake, a future one is."""
        if id_ > self._last_id:
            raise LocalProtocolError(f"there is no subscription {id_}")
        return id_ in self.subscriptions or self.requests.get(id_) is Subscribe

    def _end(self, id_: int) -> None:
        if id_ not in self.subscriptions:
            raise LocalProtocolError(f"there is no subscription {id_}")
        self.subscriptions.remove(id_)

    def _complain(self, message: Reply | Delivery) -> None:
        name = codec.name_of(type(message))
        raise LocalProtocolError(f"{name} does not answer anything under id {message.id}")
