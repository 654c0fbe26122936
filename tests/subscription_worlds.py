"""Streams and a subscription in a table, for tests of what is decided about them."""

from __future__ import annotations

import json
from typing import Any

from exo_stream.decision import Answer, Decision, Need, Refuse, Write
from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace
from exo_stream.payload import is_of_one_face
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.appending import Append, append
from exo_stream.streams.creation import Create, create
from exo_stream.streams.messages import decode, read_key
from exo_stream.streams.subscriptions import making
from exo_stream.streams.subscriptions.looking import Denied, subscription_of
from exo_stream.streams.subscriptions.record import (
    Link,
    Subscription,
    SubscriptionConfig,
)
from exo_stream.streams.subscriptions.step import Ack, Attempt, State
from exo_stream.streams.subscriptions.waking import Report, Waking
from exo_stream.streams.values import StreamConfig
from tests.test_producers import Table

SECOND = 1_000_000
ID = "crew"
LEASE = 2 * SECOND


class World:
    """Streams and one subscription in a table; decisions are carried out as ingest does."""

    def __init__(self, kind: Any = "webhook", **config: Any) -> None:
        self.table = Table()
        self.accesses = Accesses(0)
        self.limits = Limits()
        self.waking = Waking(self.accesses, self.limits)
        self.now = 100 * SECOND
        self.wakes = 0
        target = "https://example.com/" if kind == "webhook" else "wakes"
        defaults: dict[str, Any] = {"pattern": "events/*", "streams": (), "description": None}
        self.config = SubscriptionConfig(
            kind, target=target, lease_ttl_ms=2_000, **{**defaults, **config}
        )

    def do(self, decide: Decision[Any]) -> Any:
        """The answer, evaluated once with everything cold: it asks for all that it reads."""
        asked: set[bytes] = set()
        self.table.cold = {key[1:] for key in self.table.found} - asked
        while True:
            verdict = decide(self.table, self.now)
            if not isinstance(verdict, Need):
                break
            keys = {key for _, key in verdict.keys}
            assert verdict.ranges or keys & self.table.cold, "it asks for what it has"
            self.table.cold -= keys
            self.table.ranges_are_cold = False
        match verdict:
            case Write(entries, answer):
                assert is_of_one_face([Entry(*entry) for entry in entries])
                self.table.write(entries)
                return answer
            case Answer(answer):
                return answer
            case Refuse(error):
                raise error

    def attempt(self, *names: str) -> Attempt:
        self.wakes += 1
        return Attempt(ID, names, f"w_{self.wakes}", 0.0)

    def make(self, *links: tuple[str, Link], id_: str = ID) -> Any:
        self.table.ranges_are_cold = True
        return self.do(making.make(id_, self.config, "http://h", links))

    def stream(self, name: str, *messages: bytes, **config: Any) -> None:
        kept = StreamConfig("application/json", **config)
        self.do(create(Create(name, kept, list(messages)), self.accesses))

    def append(self, name: str, message: bytes = b"1") -> None:
        self.do(append(Append(name, [message]), self.accesses, self.limits))

    def advance(self, *names: str) -> State:
        state = self.do(self.waking.advance(self.attempt(*names)))
        assert isinstance(state, State)
        return state

    def report(self, state: State, *acks: tuple[str, int], done: bool = False, **other: Any) -> Any:
        report = Report(
            other.get("scope", state.scope),
            other.get("generation", state.scope.generation),
            other.get("wake_id", state.wake.id if state.wake else ""),
            [Ack(*ack) for ack in acks],
            done,
        )
        kind = other.get("kind", self.config.kind)
        names = [name for name, _ in acks] + list(other.get("names", ()))
        return self.do(self.waking.report(self.attempt(*names), kind, report))

    @property
    def known(self) -> Subscription:
        self.table.cold = set()
        found = subscription_of(self.table, ID)
        assert isinstance(found, Subscription)
        return found

    def events(self) -> list[Any]:
        """What the wake stream has been told."""
        self.table.cold = set()
        found = []
        for row in self.table.found.values():
            if row.key[0] == Keyspace.STREAM_DATA and row.value is not None:
                _, end = read_key(row.key[1:])
                found += [json.loads(data) for _, data in decode(end, row.value).messages()]
        return [event for event in found if isinstance(event, dict) and event.get("type") == "wake"]


def ready(kind: Any = "webhook", **config: Any) -> World:
    """A subscription, and a stream that was born after it, with one message."""
    world = World(kind, **config)
    world.stream("wakes")
    assert world.make().is_new
    world.stream("events/a", b"1")
    return world


def code_of(answer: Any) -> str:
    assert isinstance(answer, Denied), answer
    return answer.code
