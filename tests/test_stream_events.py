"""Events, cursors, tags, times and problems of streams, as values."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.errors import (
    ExoStreamError,
    InvalidRequestError,
    LimitExceededError,
    OutcomeUnknownError,
    OverloadedError,
    ProducerFencedError,
    ProducerGapError,
    StoreFullError,
)
from exo_stream.protocol.http import RefusedError
from exo_stream.protocol.streams.cursors import EPOCH_SECONDS, cursor
from exo_stream.protocol.streams.etags import is_known
from exo_stream.protocol.streams.events import (
    control_event,
    data_event,
    encoding_of,
    incomplete,
)
from exo_stream.protocol.streams.instants import instant, rfc_3339
from exo_stream.protocol.streams.problems import problem, refusal_of, refused, renamed
from exo_stream.stream_errors import (
    OffsetConflictError,
    OffsetEvictedError,
    StreamClosedError,
    StreamNotFoundError,
    StreamSeqConflictError,
)

ZERO = "0000000000000000_0000000000000000"


def test_types_travel_as_text_as_json_or_in_base64() -> None:
    assert encoding_of("text/html") == "text"
    assert encoding_of("application/json") == "json"
    assert encoding_of("application/ld+json") == "base64"


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (b"line1\nline2", b"event: data\ndata:line1\ndata:line2\n\n"),
        (b"a\r\nb\rc\n", b"event: data\ndata:a\ndata:b\ndata:c\ndata:\n\n"),
        (
            b"x\n\nevent: control\ndata:{}\n\n",
            b"event: data\ndata:x\ndata:\ndata:event: control\ndata:data:{}\ndata:\ndata:\n\n",
        ),
        (b" a\n  b\n ", b"event: data\ndata:  a\ndata:   b\ndata:  \n\n"),
        (b"a\xffb", "event: data\ndata:a\ufffdb\n\n".encode()),
    ],
)
def test_no_text_gets_out_of_its_event(data: bytes, event: bytes) -> None:
    assert data_event("text", data) == event


def test_bytes_travel_in_base64_and_json_as_it_is() -> None:
    event = data_event("base64", bytes(range(256)))
    assert b64decode(event.removeprefix(b"event: data\ndata:").strip()) == bytes(range(256))
    assert data_event("json", b"[1,\n2]") == b"event: data\ndata:[1,\ndata:2]\n\n"
    assert data_event("json", b"[1]", id_="a%20b") == b"event: data\nid:a%20b\ndata:[1]\n\n"


def test_a_control_event_is_one_line_of_json() -> None:
    def control(*, is_up_to_date: bool, is_closed: bool, stream: str = "") -> object:
        event = control_event(
            ZERO, "7", is_up_to_date=is_up_to_date, is_closed=is_closed, stream=stream
        )
        head, line, *rest = event.split(b"\n")
        assert (head, rest) == (b"event: control", [b"", b""])
        return json.loads(line.removeprefix(b"data:"))

    offset = {"streamNextOffset": ZERO}
    assert control(is_up_to_date=False, is_closed=False) == offset | {"streamCursor": "7"}
    assert control(is_up_to_date=True, is_closed=False) == offset | {
        "streamCursor": "7",
        "upToDate": True,
    }
    assert control(is_up_to_date=True, is_closed=True, stream='"a"') == offset | {
        "stream": "a",
        "upToDate": True,
        "streamClosed": True,
    }


@given(st.text(min_size=1), st.integers(min_value=0, max_value=3))
def test_the_beginning_of_a_character_is_found_at_the_end(text: str, cut: int) -> None:
    data = text.encode()
    data = data[: max(0, len(data) - cut)]
    held = incomplete(data)
    whole = data[: len(data) - held]
    assert whole.decode() == text[: len(whole.decode())]
    assert held <= 3


def test_what_cannot_become_a_character_is_not_waited_for() -> None:
    assert [incomplete(data) for data in (b"", b"\x80\x80\x80\x80", b"a\x80", b"\xc3\xa9")] == [
        0
    ] * 4


NOW = (EPOCH_SECONDS + 45) * 1_000_000


@pytest.mark.parametrize(
    ("asked", "jitter", "answer"),
    [
        (None, 0.0, "2"),
        ("1", 0.0, "2"),
        ("2", 0.0, "3"),
        ("2", 0.999999, "182"),
        ("10", 0.0, "11"),
        ("x", 0.0, "2"),
        ("1" * 19, 0.0, "2"),
        ("-1", 0.0, "2"),
        ("\u0663", 0.0, "2"),
        ("3\n", 0.0, "2"),
    ],
)
def test_a_cursor_is_later_than_the_client_s(asked: str | None, jitter: float, answer: str) -> None:
    assert cursor(NOW, asked, jitter) == answer


def test_a_tag_is_known_in_any_list_that_has_it() -> None:
    tag = '"1:0:5"'
    known = [tag, f'"x", {tag}', f"W/{tag}", "*", f" {tag} "]
    assert all(is_known(header, tag) for header in known)
    assert not any(is_known(header, tag) for header in (None, "", '"1:0:5:c"', "1:0:5"))


MICROSECONDS = st.integers(min_value=-62_135_596_800_000_000, max_value=253_402_300_799_999_999)


@given(MICROSECONDS)
def test_an_instant_is_what_the_calendar_says(micros: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    text = rfc_3339(micros)
    assert datetime.fromisoformat(text) == moment
    assert instant(text) == micros
    assert instant(moment.isoformat()) == micros


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.5z", 500_000),
        ("1970-01-01T00:00:00.1234567Z", 123_456),
        ("1970-01-01T01:30:00+01:30", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
        ("2000-02-29T00:00:00Z", 951_782_400_000_000),
    ],
)
def test_an_instant_may_be_written_in_several_ways(text: str, micros: int) -> None:
    assert instant(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2030-01-01", "2030-01-01T00:00:00", "2030-01-01 00:00:00Z"),
        *("1900-02-29T00:00:00Z", "2030-13-01T00:00:00Z", "2030-00-01T00:00:00Z"),
        *("2030-04-31T00:00:00Z", "0000-01-01T00:00:00Z", "2030-01-00T00:00:00Z"),
        *("2030-01-01T24:00:00Z", "2030-01-01T00:60:00Z", "2030-01-01T00:00:61Z"),
        *("2030-01-01T00:00:00+24:00", "2030-01-01T00:00:00+00:60", "2030-01-01T00:00:00Z\n"),
    ],
)
def test_what_is_no_instant_is_none(text: str) -> None:
    assert instant(text) is None


def test_times_are_written_with_the_digits_they_need() -> None:
    assert rfc_3339(1_500_000) == "1970-01-01T00:00:01.500Z"
    assert rfc_3339(1_000_001) == "1970-01-01T00:00:01.000001Z"


@pytest.mark.parametrize(
    ("error", "status", "code", "headers"),
    [
        (StreamNotFoundError("a"), 404, "NOT_FOUND", {}),
        (
            StreamClosedError(ZERO),
            409,
            "STREAM_CLOSED",
            {"stream-next-offset": ZERO, "stream-closed": "true"},
        ),
        (StreamSeqConflictError(ZERO, "b"), 409, "SEQUENCE_CONFLICT", {"stream-next-offset": ZERO}),
        (OffsetConflictError(ZERO), 409, "OFFSET_CONFLICT", {"stream-next-offset": ZERO}),
        (OffsetEvictedError(ZERO), 410, "GONE", {"stream-oldest-offset": ZERO}),
        (ProducerFencedError(3), 403, "PRODUCER_EPOCH_FENCED", {"producer-epoch": "3"}),
        (
            ProducerGapError(1, 5),
            409,
            "SEQUENCE_CONFLICT",
            {"producer-expected-seq": "1", "producer-received-seq": "5"},
        ),
        (InvalidRequestError("x"), 400, "BAD_REQUEST", {}),
        (LimitExceededError("x", 1, 2), 413, "PAYLOAD_TOO_LARGE", {}),
        (OverloadedError("x"), 503, "UNAVAILABLE", {"retry-after": "1"}),
        (OutcomeUnknownError("x"), 503, "UNAVAILABLE", {"retry-after": "1"}),
        (StoreFullError("x"), 507, "INSUFFICIENT_STORAGE", {"retry-after": "1"}),
    ],
)
def test_an_error_is_told_with_its_status_and_what_helps(
    error: ExoStreamError, status: int, code: str, headers: dict[str, str]
) -> None:
    refusal = refusal_of(error)
    response = problem(refusal, "/v1/stream/a", (("x", "y"),))
    told = json.loads(response.body)
    assert (response.status, told["status"], told["code"]) == (status, status, code)
    assert told["instance"] == "/v1/stream/a"
    assert dict(response.headers) == headers | {
        "content-type": "application/problem+json",
        "cache-control": "no-store",
        "x": "y",
    }


def test_what_is_refused_below_gets_a_name_of_this_face() -> None:
    assert renamed(RefusedError(408, "invalid_request", "late")).code == "REQUEST_TIMEOUT"
    assert renamed(RefusedError(431, "limit_exceeded", "flood")).code == "BAD_REQUEST"
    ours = refused("EMPTY_BODY", "nothing")
    assert renamed(ours) is ours
