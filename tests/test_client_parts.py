"""The parts of the client that do no I/O: addresses, patience, numbers, the inbox, the checks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream import feed
from exo_stream.client import request_checks
from exo_stream.client.address import Address, parse_url
from exo_stream.client.inbox import Inbox
from exo_stream.client.numbering import Numbering
from exo_stream.client.patience import Patience
from exo_stream.errors import InvalidRequestError, RemoteProtocolError
from exo_stream.model import Batch, Cursor, Entry
from exo_stream.payload import encode_entries
from exo_stream.producers import WINDOW, Producer
from exo_stream.protocol import frames
from exo_stream.protocol import messages as m
from exo_stream.starts import After, FromSnapshot, Last, Oldest, Start
from tests.wire_examples import LOG_ID


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://127.0.0.1:4437/v1/ws", Address("127.0.0.1", 4437, "/v1/ws", is_secure=False)),
        ("ws://localhost", Address("localhost", 4437, "/v1/ws", is_secure=False)),
        ("ws://localhost/", Address("localhost", 4437, "/v1/ws", is_secure=False)),
        ("wss://example.org:443/x?y=1", Address("example.org", 443, "/x?y=1", is_secure=True)),
        ("ws://[::1]:80/a", Address("::1", 80, "/a", is_secure=False)),
    ],
)
def test_what_a_url_means(url: str, address: Address) -> None:
    assert parse_url(url) == address
    assert parse_url(str(address)) == address


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:4437", "http://localhost:4437", "ws://", "ws://:80", "ws://h:port"),
        *("ws://h:99999", "ws://user@h", "ws://h/#x", "ws://h/a b", "ws://höst", "ws://h\n"),
        "ws://[::1",
    ],
)
def test_what_is_no_url_of_a_server(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="a server is named like ws://"):
        parse_url(url)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_pauses_are_jittered_grow_and_are_bounded(attempt: int, chance: float) -> None:
    patience = Patience(pause_seconds_min=0.1, pause_seconds_max=5)

    pause = patience.pause_seconds(attempt, chance)

    assert 0 <= pause <= min(5, 0.1 * 2.0 ** min(attempt, 32))
    assert patience.pause_seconds(attempt, 1.0) <= patience.pause_seconds(attempt + 1, 1.0)


def test_numbers_are_never_further_apart_than_the_server_remembers() -> None:
    numbering = Numbering(b"id")
    numbers = [numbering.take() for _ in range(WINDOW)]
    assert [number.seq for number in numbers] == list(range(WINDOW))
    assert set(numbers[:1]) == {Producer(b"id", 0, 0)}
    assert numbering.is_exhausted

    for number in numbers[1:]:
        numbering.settle(number)
    assert numbering.is_exhausted
    numbering.settle(numbers[0])

    assert not numbering.is_exhausted
    assert numbering.take().seq == WINDOW


def at(sequence: int) -> Cursor:
    return Cursor(LOG_ID, sequence)


def delivered(*sequences: int) -> m.Batches:
    entries = (Entry(0, b"k", b"v"),)
    return m.Batches(1, tuple(m.DeliveredBatch(s, 0, entries) for s in sequences))


def inbox_at(sequence: int) -> Inbox:
    inbox = Inbox(Oldest(), batch_bytes_max=10_000)
    inbox.subscribed(at(sequence))
    return inbox


def taken(inbox: Inbox) -> list[feed.FeedMessage]:
    return [inbox.pop() for _ in range(len(inbox))]


def is_resumed_by(inbox: Inbox, start: Start) -> bool:
    return inbox.resume == start


def test_what_was_received_is_kept_over_a_loss_and_resumed_behind() -> None:
    inbox = inbox_at(4)
    assert inbox.resume == After(at(4))

    inbox.push(delivered(5, 7), 100)
    inbox.lost()

    assert inbox.resume == After(at(7))
    first, second = taken(inbox)
    assert isinstance(first, Batch)
    assert first.cursor == at(5)
    assert isinstance(second, Batch)
    assert inbox.held_bytes == 0


def test_a_relative_start_is_resolved_once() -> None:
    inbox = Inbox(Last(3), batch_bytes_max=1)
    inbox.lost()
    assert is_resumed_by(inbox, Last(3))

    inbox.subscribed(at(9))
    inbox.lost()

    assert is_resumed_by(inbox, After(at(9)))


def test_positions_move_where_it_resumes() -> None:
    inbox = inbox_at(4)

    inbox.push(m.FellBehind(1, at(4), 9), 50)
    inbox.push(m.Progress(1, at(8)), 50)
    assert inbox.resume == After(at(8))
    inbox.push(m.CaughtUp(1, at(9)), 50)
    inbox.push(m.Heartbeat(1, 12), 50)

    assert inbox.resume == After(at(9))
    assert taken(inbox) == [
        feed.FellBehind(at(4), 9),
        feed.Progress(at(8)),
        feed.CaughtUp(at(9)),
        feed.Heartbeat(12),
    ]


def test_a_snapshot_that_is_not_whole_begins_again_and_a_whole_one_does_not() -> None:
    rows = (Entry(0, b"a", b"1"),)
    inbox = Inbox(FromSnapshot(), batch_bytes_max=1)
    inbox.subscribed(at(5))
    inbox.push(m.SnapshotBegin(1, 5), 50)
    inbox.push(m.Snapshot(1, rows), 50)
    inbox.lost()
    assert is_resumed_by(inbox, FromSnapshot())
    assert not len(inbox)
    assert inbox.held_bytes == 0

    inbox.subscribed(at(8))
    inbox.push(m.SnapshotBegin(2, 8), 50)
    inbox.push(m.Snapshot(2, rows), 50)
    inbox.push(m.SnapshotEnd(2, at(8)), 50)
    inbox.lost()

    assert inbox.resume == After(at(8))
    assert taken(inbox) == [
        feed.SnapshotBegin(8),
        feed.SnapshotPage(8, rows),
        feed.SnapshotEnd(at(8)),
    ]


def parts_of(sequence: int, size: int) -> list[m.Part]:
    payload = encode_entries([Entry(0, b"k", b"v" * size)])
    body = frames.batches_body([(sequence, 0, payload)])
    return [
        m.Part(1, m.PartBody(len(body), offset, body[offset : offset + 100]))
        for offset in range(0, len(body), 100)
    ]


def test_a_large_batch_is_handed_over_whole() -> None:
    inbox = inbox_at(4)
    for part in parts_of(5, 1_000):
        assert not len(inbox)
        inbox.push(part, 150)

    [batch] = taken(inbox)

    assert isinstance(batch, Batch)
    assert batch.entries == (Entry(0, b"k", b"v" * 1_000),)
    assert inbox.resume == After(at(5))


def test_half_a_batch_is_forgotten_with_its_connection() -> None:
    inbox = inbox_at(4)
    inbox.push(parts_of(5, 1_000)[0], 150)
    inbox.lost()
    assert inbox.resume == After(at(4))

    inbox.push(delivered(5), 100)

    assert len(taken(inbox)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param([delivered(4)], id="a batch again"),
        pytest.param([delivered(6, 5)], id="batches out of order"),
        pytest.param([m.CaughtUp(1, at(3))], id="backwards"),
        pytest.param([m.Progress(1, Cursor("f" * 32, 9))], id="another log"),
        pytest.param([m.Snapshot(1, ())], id="a page without a beginning"),
        pytest.param([parts_of(5, 1_000)[0], delivered(6)], id="batches in the middle of one"),
        pytest.param([parts_of(5, 1_000)[1]], id="a part without its first"),
        pytest.param(parts_of(5, 20_000)[:1], id="a batch larger than announced"),
    ],
)
def test_what_cannot_follow_is_refused(wrong: list[m.Delivery]) -> None:
    inbox = inbox_at(4)

    with pytest.raises(RemoteProtocolError):
        for message in wrong:
            inbox.push(message, 10)


def test_an_inbox_takes_no_answers() -> None:
    with pytest.raises(AssertionError):
        inbox_at(4).push(m.Subscribed(1, at(9)), 10)


CHECKS: list[tuple[Any, Any]] = [
    (request_checks.checked_puts, [("k", b"v")]),
    (request_checks.checked_puts, [(b"k", None)]),
    (request_checks.checked_puts, [(b"k",)]),
    (request_checks.checked_puts, 7),
    (request_checks.checked_keys, b"k"),
    (request_checks.checked_keys, "k"),
    (request_checks.checked_keys, ["k"]),
    (request_checks.checked_keys, 7),
    (request_checks.checked_keys, [b"k" * 255]),
    (request_checks.checked_requirements, [b"k"]),
    (request_checks.checked_requirements, {"k": 1}),
    (request_checks.checked_requirements, {b"k": "maybe"}),
    (request_checks.checked_requirements, {b"k": -1}),
    (request_checks.checked_count, True),
    (request_checks.checked_count, -1),
    (request_checks.checked_count, 1 << 64),
    (request_checks.checked_count, 1.0),
]


@pytest.mark.parametrize(
    ("check", "wrong"), CHECKS, ids=[f"{check.__name__} {wrong!r:.20}" for check, wrong in CHECKS]
)
def test_what_would_break_the_protocol_is_refused_before_it_travels(check: Any, wrong: Any) -> None:
    with pytest.raises(InvalidRequestError):
        check(wrong)


def test_requirements_may_be_words_or_versions_or_none() -> None:
    require = {b"a": "absent", b"b": "present", b"c": 7}

    assert request_checks.checked_requirements(require) == require  # type: ignore[arg-type]  # mypy takes the words for any text
    assert request_checks.checked_requirements(None) == {}
