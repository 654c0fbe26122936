"""The rules of streams without a platform: offsets, messages, records, accesses, decisions."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.errors import InvalidRequestError, RemoteProtocolError
from exo_stream.limits import Limits
from exo_stream.model import Keyspace
from exo_stream.protocol import codec
from exo_stream.selectors import Selector, StreamSelector
from exo_stream.stream_errors import (
    InvalidOffsetError,
)
from exo_stream.streams import checks
from exo_stream.streams.accesses import SLACK_SECONDS_MAX, Accesses, slack
from exo_stream.streams.messages import SPAN_BYTES, Stored, decode, encode, span, unpacked
from exo_stream.streams.offset import NOW, POSITION_MAX, START, Offset, offset_of
from exo_stream.streams.record import (
    SECOND,
    Origin,
    Record,
    decode_record,
)
from exo_stream.streams.values import StreamConfig, StreamProducer

MESSAGES = st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=6)


# --- offsets ---------------------------------------------------------------------------------


def test_offsets_are_written_so_that_text_sorts_as_they_do() -> None:
    positions = [0, 1, 9, 10, 10**15, POSITION_MAX]
    tokens = [str(Offset.at(position)) for position in positions]
    assert tokens == sorted(tokens)
    assert tokens[0] == "0000000000000000_0000000000000000"
    assert [Offset.parse(token).position for token in tokens] == positions


def test_the_sentinels_are_the_start_and_the_tail() -> None:
    assert Offset.parse("-1") == Offset.start() == START
    assert Offset.parse("now") == Offset.now() == NOW
    assert (str(NOW), NOW.is_now, START.is_now) == ("now", True, False)
    assert (NOW.within(7), START.within(7), Offset.at(9).within(7)) == (7, 0, 7)
    assert Offset.parse("9" * 16 + "_" + "9" * 16).within(7) == 7
    assert offset_of(START) is START


@pytest.mark.parametrize(
    "token",
    ["", "0", "0,1", "0 1", "-2", "NOW", "0" * 33, "0" * 16 + "_" + "0" * 15]
    + ["0" * 16 + "_" + "0" * 16 + tail for tail in ("\n", "\x00", " ", "0", "/..")]
    + ["\u0660" * 16 + "_" + "0" * 16],
    ids=repr,
)
def test_nothing_else_is_an_offset(token: str) -> None:
    with pytest.raises(InvalidOffsetError):
        Offset.parse(token)


def test_a_number_is_no_offset() -> None:
    with pytest.raises(InvalidOffsetError):
        offset_of(5)  # type: ignore[arg-type]  # that is the point


# --- messages --------------------------------------------------------------------------------


@given(MESSAGES, st.integers(0, 1_000))
def test_messages_come_back_as_they_were(messages: list[bytes], start: int) -> None:
    size = sum(map(len, messages))
    value = encode(messages, committed_at=7, through=50)
    stored = decode(start + size, value)
    assert [data for _, data in stored.messages()] == messages
    assert (stored.start, stored.end, stored.count) == (start, start + size, len(messages))
    assert (stored.committed_at, stored.through) == (7, 50)
    assert stored.joined == b",".join(messages)
    assert span(start + size, value[:SPAN_BYTES], len(value)) == (start, len(messages), 50)
    twin = unpacked(stored.end, 7, 50, stored.packed_lengths(), stored.joined)
    assert list(twin.messages()) == list(stored.messages())


def text_of(stored: Stored | None) -> bytes:
    return b"".join(data for _, data in stored.messages()) if stored else b""


@given(MESSAGES, st.data())
def test_a_part_of_some_messages_is_that_part(messages: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(messages)
    stored = decode(100 + len(whole), encode(messages, committed_at=0, through=9))
    at = data.draw(st.integers(0, len(whole) - 1))

    after = stored.after(100 + at, divisible=True)
    assert (text_of(after), after.start, after.through) == (whole[at:], 100 + at, 9)
    until = stored.until(100 + at, divisible=True)
    assert text_of(until) == whole[:at]
    assert until is None or (until.end, until.start) == (100 + at, 100)

    behind = stored.after(100 + at, divisible=False)
    assert whole.endswith(text_of(behind))
    assert behind.start <= 100 + at < behind.start + len(next(iter(behind.messages()))[1])
    before = stored.until(100 + at, divisible=False)
    assert whole.startswith(text_of(before))
    assert before is None or before.end <= 100 + at
    page = stored.page(at + 1, divisible=True, text=False)
    assert text_of(page) == whole[: at + 1]


@given(st.text(min_size=1, max_size=20), st.integers(1, 80))
def test_a_page_of_text_can_be_decoded(text: str, bytes_max: int) -> None:
    data = text.encode()
    stored = decode(len(data), encode([data], committed_at=0, through=1))
    page = text_of(stored.page(bytes_max, divisible=True, text=True))
    assert data.startswith(page)
    # A single character that is larger is cut rather than nothing told.
    if bytes_max >= 4 or len(page) == len(data):
        assert text.startswith(page.decode())
    assert page


def test_what_is_no_text_is_cut_where_it_is() -> None:
    data = b"ab" + b"\x80" * 9
    stored = decode(len(data), encode([data], committed_at=0, through=1))
    assert text_of(stored.page(6, divisible=True, text=True)) == data[:6]
    stored = decode(4, encode([b"\xe2\x82\xac!"], committed_at=0, through=1))
    assert text_of(stored.page(2, divisible=True, text=True)) == b"\xe2\x82"


# --- records and accesses --------------------------------------------------------------------


def record_of(incarnation: int = 5, **fields: Any) -> Record:
    config = fields.pop("config", StreamConfig("text/plain", ttl_seconds=80))
    record = Record(incarnation, config, 10, 2, False, False, 1, 2, 3)
    return record._replace(last_start=5, **fields)


@pytest.mark.parametrize("origin", [None, Origin("s", 3, 4, 5)])
def test_a_record_comes_back_as_it_was(origin: Origin | None) -> None:
    record = record_of(origin=origin, last_seq="é", references=2)
    assert decode_record(record.encode()) == record
    assert len(record.encode()) < 150


def test_a_read_is_written_down_only_when_what_is_written_is_old() -> None:
    record, accesses = record_of(touched_at=0), Accesses(0)
    assert slack(record) == 10 * SECOND
    assert not accesses.touch(record, 10 * SECOND)
    assert accesses.expires_at(record) == 90 * SECOND
    assert accesses.touch(record, 10 * SECOND + 1)
    assert len(accesses) == 0  # what is written counts
    assert accesses.expires_at(record) == 80 * SECOND


def test_after_an_opening_a_stream_lives_for_the_slack_more() -> None:
    record = record_of(touched_at=0)
    accesses = Accesses(1)
    assert accesses.expires_at(record) == 90 * SECOND
    assert accesses.expired(record, 90 * SECOND)
    assert not accesses.expired(record, 90 * SECOND - 1)
    assert accesses.earliest_expiry(record, 5 * SECOND) == 85 * SECOND
    assert not accesses.touch(record, 9 * SECOND)
    assert accesses.expires_at(record) == 89 * SECOND
    accesses.forget(5)
    assert accesses.expires_at(record) == 90 * SECOND


def test_no_more_accesses_are_kept_in_memory_than_that() -> None:
    accesses = Accesses(0, remembered_max=2)
    records = [record_of(number, touched_at=0) for number in range(3)]
    for second, record in enumerate(records, start=1):
        assert not accesses.touch(record, second * SECOND)
    assert len(accesses) == 2
    assert accesses.expires_at(records[0]) == 90 * SECOND  # later than its access asks for
    assert accesses.expires_at(records[1]) == 82 * SECOND


def test_who_never_expires_is_not_kept_in_memory() -> None:
    accesses = Accesses(0)
    forever, at_once = (
        record_of(config=StreamConfig()),
        record_of(config=StreamConfig("x", None, 9)),
    )
    assert not accesses.touch(forever, 100 * SECOND)
    assert accesses.expires_at(forever) is None
    assert not accesses.expired(forever, 1 << 62)
    assert accesses.earliest_expiry(forever, 5) is None
    assert accesses.earliest_expiry(at_once, 5) == 9
    assert len(accesses) == 0
    long = record_of(config=StreamConfig("x", 10**9))
    assert slack(long) == SLACK_SECONDS_MAX * SECOND


SURROGATE = "\ud800"
FIVE: Any = 5
TEXT: Any = "p"


@pytest.mark.parametrize(
    "check",
    [
        lambda: checks.check_name(FIVE),
        lambda: checks.check_name(SURROGATE),
        lambda: checks.checked_config(TEXT),
        lambda: checks.check_content_type(FIVE),
        lambda: checks.check_content_type(" "),
        lambda: checks.checked_messages([b"x"] * 3, Limits(stream_append_messages_max=2)),
        lambda: checks.checked_messages([FIVE], Limits()),
        lambda: checks.check_seq(FIVE),
        lambda: checks.check_seq(SURROGATE),
        lambda: checks.check_seq(""),
        lambda: checks.check_seq("x" * 1_025),
        lambda: checks.check_producer(TEXT, Limits()),
        lambda: checks.check_producer(StreamProducer(FIVE, 0, 0), Limits()),
        lambda: checks.check_producer(StreamProducer(SURROGATE, 0, 0), Limits()),
        lambda: checks.check_producer(StreamProducer("p", 0, 1 << 60), Limits()),
        lambda: checks.check_producer(StreamProducer("", 0, 0), Limits()),
        lambda: checks.check_text("a prefix", FIVE),
        lambda: checks.check_number("a number", True),
    ],
    ids=range(18),
)
def test_what_cannot_be_is_refused_with_a_sentence(check: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"^\w.* "):
        check()


def test_what_can_be_is_let_through() -> None:
    checks.check_seq(None)
    assert checks.checked_messages((), Limits()) == ()
    config = StreamConfig("a/b", retention_seconds=10**18, retention_bytes=10**30)
    clamped = checks.checked_config(config)
    assert (clamped.retention_seconds, clamped.retention_bytes) == (10**10, (1 << 63) - 1)
    assert checks.chosen_selector(b"p", None, None, None, None) == Selector(b"p")
    assert checks.chosen_selector(b"", None, None, "s", None) == StreamSelector("s")
    assert checks.chosen_selector(b"", None, None, None, None, events=True) == Selector(
        keyspace=Keyspace.EVENT
    )
    with pytest.raises(InvalidRequestError):
        checks.chosen_selector(b"p", None, None, None, None, events=True)
    assert checks.chosen_selector(b"", None, None, None, "") == StreamSelector("", is_prefix=True)
    with pytest.raises(InvalidRequestError):
        checks.chosen_selector(b"", None, None, "s", "t")


@pytest.mark.parametrize(
    "stored",
    [
        [[5, 0, 1, b"\x00\x00\x00", b"abc"]],
        [[5, 0, 1, b"", b""]],
        [[5, 0, 1, b"\x00\x00\x00\x00", b""]],
        [[5, 0, 1, b"\x00\x00\x00\x02", b"abc"]],
        [[1, 0, 1, b"\x00\x00\x00\x02", b"ab"]],
        [[5, 0, 1, b"\x00\x00\x00\x01" * 2, b"ab"]],
        [[5, 0, 1]],
        5,
    ],
    ids=range(8),
)
def test_messages_from_elsewhere_are_as_long_as_they_say(stored: Any) -> None:
    setup = ["a/b", None, None, False, None, None]
    wire = ["stream_read", 1, setup, 1, "0_0", "0_5", True, False, 1, stored]
    with pytest.raises(RemoteProtocolError):
        codec.decode(cbor2.dumps([wire]), bytes_max=10_000)
