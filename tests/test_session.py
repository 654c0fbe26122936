"""The conversation, spoken between two sessions back to back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exo_stream.errors import LocalProtocolError, RemoteProtocolError
from exo_stream.limits import Limits
from exo_stream.protocol import codec
from exo_stream.protocol import messages as m
from exo_stream.protocol.session import REPLIES, TRANSITIONS, Role, Session, State
from tests.wire_examples import BATCH, CURSOR, FROM_CLIENT, FROM_SERVER, LOG_ID

HELLO = m.Hello((1,), "tests")
WELCOME = m.Welcome(1, LOG_ID, 9, 1)


class Pair:
    """Two sessions; what one says the other hears."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.client = Session(Role.CLIENT, limits or Limits())
        self.server = Session(Role.SERVER, limits or Limits())

    def client_says(self, *messages: m.Message) -> list[m.Message]:
        return self.server.receive(self.client.send(*messages))

    def server_says(self, *messages: m.Message) -> list[m.Message]:
        return self.client.receive(self.server.send(*messages))

    def assert_agreed(self) -> None:
        assert self.client.state is self.server.state
        assert self.client.requests == self.server.requests
        assert self.client.subscriptions == self.server.subscriptions


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.client_says(HELLO)
    pair.server_says(WELCOME)
    return pair


def test_greeting() -> None:
    pair = Pair()

    assert pair.client_says(HELLO) == [HELLO]
    assert pair.server.state is State.GREETED
    assert pair.server_says(WELCOME) == [WELCOME]
    assert pair.client.state is State.OPEN
    pair.assert_agreed()


def test_a_refused_greeting_ends_it() -> None:
    pair = Pair()
    pair.client_says(HELLO)

    pair.server_says(m.Failure(0, "unsupported", "version 1 only", False))

    assert pair.client.state is State.CLOSED
    pair.assert_agreed()


def test_nothing_may_be_said_before_its_time() -> None:
    pair = Pair()

    with pytest.raises(LocalProtocolError, match="get"):
        pair.client.send(m.Get(1, b"k"))
    with pytest.raises(LocalProtocolError):
        pair.server.send(WELCOME)
    with pytest.raises(RemoteProtocolError, match="the client may not say get"):
        pair.server.receive(codec.encode([m.Get(1, b"k")]))


def test_each_side_keeps_to_its_own_messages(pair: Pair) -> None:
    with pytest.raises(LocalProtocolError):
        pair.client.send(m.Written(1, 1))
    with pytest.raises(RemoteProtocolError):
        pair.client.receive(codec.encode([m.Get(1, b"k")]))


def test_many_requests_in_one_frame_are_answered_in_any_order(pair: Pair) -> None:
    asked = (m.Write(1, ((b"k", b"v"),)), m.Get(2, b"k"), m.GetBatch(5, 1))
    assert pair.client_says(*asked) == list(asked)

    pair.server_says(m.Found(5, BATCH))
    pair.server_says(m.Value(2, 9, 1, b"v"), m.Written(1, 10))

    assert not pair.client.requests
    pair.assert_agreed()


EXAMPLES = {type(message): message for message in FROM_CLIENT + FROM_SERVER}


@pytest.mark.parametrize("request_kind", REPLIES)
@pytest.mark.parametrize(
    "reply_kind", dict.fromkeys(kind for kinds in REPLIES.values() for kind in kinds)
)
def test_only_its_own_answer_answers_a_request(
    pair: Pair, request_kind: type[m.Request], reply_kind: type[m.Message]
) -> None:
    request = EXAMPLES[request_kind]
    assert isinstance(request, m.Request)
    pair.client_says(request)
    example: Any = EXAMPLES[reply_kind]
    reply = codec.encode([replace(example, id=request.id)])

    if reply_kind in REPLIES[request_kind]:
        assert pair.client.receive(reply)
    else:
        with pytest.raises(RemoteProtocolError, match="does not answer"):
            pair.client.receive(reply)


def test_an_answer_comes_once(pair: Pair) -> None:
    pair.client_says(m.Get(1, b"k"))
    pair.server_says(m.Value(1, 9, 0, None))

    with pytest.raises(LocalProtocolError, match="under id 1"):
        pair.server.send(m.Value(1, 9, 0, None))
    with pytest.raises(LocalProtocolError, match="no subscription 1"):
        pair.server.send(m.Failure(1, "conflict", "", False))


def test_a_failure_answers_anything(pair: Pair) -> None:
    pair.client_says(m.Get(1, b"k"), m.Subscribe(2))

    pair.server_says(m.Failure(1, "overloaded", "", True), m.Failure(2, "batch_evicted", "", False))

    assert not pair.client.requests
    assert not pair.client.subscriptions
    pair.assert_agreed()


def test_a_large_batch_answers_in_parts(pair: Pair) -> None:
    pair.client_says(m.GetBatch(1, 7))

    pair.server_says(m.Part(1, m.PartBody(6, 0, b"abc")))
    assert pair.client.requests == {1: m.GetBatch}
    pair.server_says(m.Part(1, m.PartBody(6, 3, b"def")))

    assert not pair.client.requests
    pair.assert_agreed()


def test_ids_only_grow(pair: Pair) -> None:
    pair.client_says(m.Get(5, b"k"))
    pair.server_says(m.Value(5, 9, 0, None))

    for id_ in (5, 4, 0):
        with pytest.raises(LocalProtocolError, match="ids only grow"):
            pair.client.send(m.Get(id_, b"k"))
    with pytest.raises(RemoteProtocolError, match="ids only grow"):
        pair.server.receive(codec.encode([m.Get(3, b"k")]))


def test_requests_in_flight_are_bounded() -> None:
    pair = Pair(Limits(requests_max=2))
    pair.client_says(HELLO)
    pair.server_says(WELCOME)
    pair.client_says(m.Get(1, b"k"), m.Get(2, b"k"))

    with pytest.raises(RemoteProtocolError, match="more than 2"):
        pair.server.receive(codec.encode([m.Get(3, b"k")]))


def test_a_frame_is_bounded() -> None:
    session = Session(Role.SERVER, Limits(message_bytes_max=100))

    with pytest.raises(RemoteProtocolError, match="100"):
        session.receive(codec.encode([m.Hello((1,), "x" * 200)]))


def test_a_subscription_lives_until_it_is_ended(pair: Pair) -> None:
    pair.client_says(m.Subscribe(1))
    with pytest.raises(LocalProtocolError):
        pair.server.send(m.Batches(1, (BATCH,)))
    pair.server_says(m.Subscribed(1, CURSOR))
    pair.server_says(m.Batches(1, (BATCH,)), m.CaughtUp(1, CURSOR), m.Heartbeat(1, 9))
    assert pair.client.subscriptions == {1}

    assert pair.client_says(m.Unsubscribe(1)) == [m.Unsubscribe(1)]
    pair.server_says(m.Batches(1, (BATCH,)), m.Unsubscribed(1))

    assert not pair.client.subscriptions
    pair.assert_agreed()
    with pytest.raises(LocalProtocolError):
        pair.server.send(m.Batches(1, (BATCH,)))


def test_a_subscription_takes_no_answers_of_requests(pair: Pair) -> None:
    pair.client_says(m.Subscribe(1))
    pair.server_says(m.Subscribed(1, CURSOR))

    for message in (m.Written(1, 1), m.Subscribed(1, CURSOR)):
        with pytest.raises(LocalProtocolError, match="does not answer"):
            pair.server.send(message)


def test_an_unsubscribe_that_crossed_an_error_is_left_out(pair: Pair) -> None:
    pair.client_says(m.Subscribe(1), m.Subscribe(2))
    pair.server_says(m.Subscribed(1, CURSOR), m.Subscribed(2, CURSOR))
    frame = pair.client.send(m.Unsubscribe(1), m.SnapshotNext(1), m.Unsubscribe(2))
    pair.server_says(m.Failure(1, "batch_evicted", "", False))

    assert pair.server.receive(frame) == [m.Unsubscribe(2)]
    pair.server_says(m.Unsubscribed(2))
    pair.assert_agreed()


def test_a_subscription_may_be_ended_before_it_is_answered(pair: Pair) -> None:
    assert pair.client_says(m.Subscribe(1), m.Unsubscribe(1)) == [m.Subscribe(1), m.Unsubscribe(1)]

    pair.server_says(m.Subscribed(1, CURSOR), m.Unsubscribed(1))

    pair.assert_agreed()


def test_what_was_never_begun_cannot_be_ended(pair: Pair) -> None:
    with pytest.raises(LocalProtocolError):
        pair.client.send(m.Unsubscribe(1))
    with pytest.raises(RemoteProtocolError):
        pair.server.receive(codec.encode([m.SnapshotNext(1)]))
    with pytest.raises(LocalProtocolError):
        pair.server.send(m.Unsubscribed(1))


def test_either_side_may_ping(pair: Pair) -> None:
    assert pair.client_says(m.Ping(1)) == [m.Ping(1)]
    assert pair.server_says(m.Pong(1), m.Ping(2)) == [m.Pong(1), m.Ping(2)]
    assert pair.client_says(m.Pong(2)) == [m.Pong(2)]


def test_after_goaway_what_waits_is_still_answered_and_goodbye_is_the_end(pair: Pair) -> None:
    pair.client_says(m.Get(1, b"k"), m.ScanClose(1))
    pair.server_says(m.GoAway(5, "the server stops"))
    pair.server_says(m.Value(1, 9, 0, None))

    pair.client_says(m.Goodbye())

    assert pair.server.state is State.CLOSED
    with pytest.raises(LocalProtocolError):
        pair.server.send(m.GoAway(0, ""))
    pair.assert_agreed()


def test_every_message_has_a_place_in_the_table() -> None:
    spoken = {kind for moves in TRANSITIONS.values() for _, kind in moves}

    assert spoken == set(EXAMPLES)
