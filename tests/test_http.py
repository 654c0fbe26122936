"""HTTP as values: what a head tells, what is refused, and that nothing can be injected."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream import errors, stream_errors
from exo_stream.errors import ExoStreamError, LocalProtocolError, OverloadedError
from exo_stream.protocol.http import (
    END_OF_BODY,
    STATUS_OF_CODE,
    EndOfBody,
    Event,
    Head,
    Headers,
    RefusedError,
    RequestParser,
    Response,
    _length,
    framing,
    problem_of,
    render,
    render_head,
)
from exo_stream.protocol.upgrade import render_upgrade

HOST = b"Host: localhost\r\n"


def parse(*arriving: bytes) -> list[Event | int]:
    """The events, and the status of the refusal at their end."""
    parser = RequestParser(head_bytes_max=1000, headers_max=5)
    assert parser.idle
    found: list[Event | int] = []
    try:
        for data in arriving:
            parser.feed(data)
            while (event := parser.next_event()) is not None:
                found.append(event)
    except RefusedError as refused:
        assert not parser.idle
        parser.feed(b"more")
        with pytest.raises(RefusedError):
            parser.next_event()
        found.append(refused.status)
    return found


def test_a_target_is_split_at_its_first_question_mark() -> None:
    head = Head("GET", "/a%20b?c?d", "1.1", (("a", "1"), ("b", "x, y"), ("a", "2")))
    assert (head.path, head.query) == ("/a%20b", "c?d")
    assert (head.header("a"), head.header("c")) == ("1, 2", None)
    assert (head.tokens("b"), head.tokens("c")) == (["x", "y"], [])
    assert not head.has_body
    assert replace(head, length=None).has_body


@pytest.mark.parametrize(
    ("target", "origin_form"),
    [
        (b"/a?b", "/a?b"),
        (b"http://localhost/a?b", "/a?b"),
        (b"http://localhost", "/"),
        (b"*", "*"),
    ],
)
def test_the_target_is_given_as_a_path(target: bytes, origin_form: str) -> None:
    head, end = parse(b"OPTIONS " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert isinstance(head, Head)
    assert head.target == origin_form
    assert end is END_OF_BODY


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET http://other/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET https://localhost/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"CONNECT localhost:1 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /\xe4 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: \xe4\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 5 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 1000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 1000, 431),
        (b"\r\n" * 1000, 431),
    ],
)
def test_a_head_that_is_none_is_refused(data: bytes, status: int) -> None:
    assert parse(data) == [status]


@pytest.mark.parametrize("begun", [b"0\r\nName: ", b"0\r\nName", b"1;extension=", b"0000"])
def test_what_becomes_no_event_is_no_longer_than_a_head(begun: bytes) -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert parse(head + begun, *[b"0" * 100] * 11)[1:] == [431]
    pieces = [b"64\r\n" + b"0" * 100 + b"\r\n"] * 20
    assert parse(head, *pieces, b"0\r\n\r\n")[1:] == [*[b"0" * 100] * 20, END_OF_BODY]


def test_a_part_of_the_next_request_behind_this_one_is_not_idleness() -> None:
    parser = RequestParser(head_bytes_max=1000, headers_max=5)
    parser.feed(b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET /ne")
    assert isinstance(parser.next_event(), Head)
    assert parser.next_event() == END_OF_BODY
    assert not parser.idle
    parser.feed(b"xt HTTP/1.1\r\n" + HOST + b"\r\n")
    assert isinstance(parser.next_event(), Head)
    assert parser.next_event() == END_OF_BODY
    assert parser.idle


def test_trailers_count_as_headers() -> None:
    data = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    assert parse(data + b"A: b\r\n" * 9 + b"\r\n")[-1] == 431


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_any_bytes_give_events_or_a_refusal(arriving: list[bytes]) -> None:
    for event in parse(*arriving):
        assert isinstance(event, Head | bytes | EndOfBody | int)


@given(st.lists(st.integers(1, 40), max_size=12))
def test_how_a_request_is_cut_does_not_matter(cuts: list[int]) -> None:
    data = b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
    arriving, at = [], 0
    for cut in cuts:
        arriving.append(data[at : at + cut])
        at += cut
    head, *pieces, end = parse(*arriving, data[at:])
    assert isinstance(head, Head)
    assert (head.length, end) == (5, END_OF_BODY)
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == b"hello"


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\x00", "\u00e4"])
def test_a_header_cannot_break_out_of_its_line(value: str) -> None:
    with pytest.raises(LocalProtocolError):
        render_head(200, [("a", value)])
    with pytest.raises(LocalProtocolError):
        render_head(200, [(value, "a")])


def test_a_response_may_replace_a_security_header() -> None:
    data = render(Response(200, (("cache-control", "max-age=1"),), b"x"))
    assert data.count(b"cache-control") == 1
    assert data.endswith(b"\r\n\r\nx")


def test_where_a_body_ends() -> None:
    assert framing(204, 0, "1.1") == ()
    assert framing(200, 3, "1.1") == (("content-length", "3"),)
    assert framing(200, None, "1.1") == (("transfer-encoding", "chunked"),)
    assert framing(200, None, "1.0") == ()


def test_every_error_of_a_caller_has_a_status() -> None:
    ours = {"local_protocol_error", "remote_protocol_error", "corruption"}
    of_files = {"file_in_use", "foreign_file"}
    kinds = [
        kind
        for kind in (*vars(errors).values(), *vars(stream_errors).values())
        if isinstance(kind, type)
        and issubclass(kind, ExoStreamError)
        and kind is not ExoStreamError
    ]
    assert {kind.code for kind in kinds} - ours - of_files <= STATUS_OF_CODE.keys()
    assert problem_of(LocalProtocolError("a bug")).status == 500


def test_a_retryable_problem_says_when() -> None:
    answer = problem_of(OverloadedError("later"))
    assert (answer.status, dict(answer.headers)["retry-after"]) == (503, "1")
    assert json.loads(answer.body)["code"] == "overloaded"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((("content-length", "1"), ("transfer-encoding", "chunked")), 400),
        ((("content-length", "1"), ("content-length", "1")), 400),
        ((("content-length", "+1"),), 400),
        ((("transfer-encoding", "gzip, chunked"),), 501),
    ],
)
def test_we_do_not_rely_on_llhttp_for_what_is_ambiguous(headers: Headers, status: int) -> None:
    with pytest.raises(RefusedError) as refused:
        _length(headers)
    assert refused.value.status == status


def test_we_do_not_rely_on_llhttp_for_an_ascii_target() -> None:
    parser = RequestParser(head_bytes_max=1000, headers_max=5)
    parser.on_message_begin()
    parser.on_url("/ä".encode())
    with pytest.raises(RefusedError):
        parser.on_headers_complete()


def test_a_handshake_is_passed_on_without_what_nobody_needs() -> None:
    head = Head("GET", "/v1/ws", "1.1", (("sec-websocket-key", "k"), ("cookie", "c")))
    assert "Protocol: a" in render_upgrade(head, "a").decode()
    plain = render_upgrade(head, None).decode()
    assert "Sec-WebSocket-Key: k" in plain
    assert "Protocol" not in plain
    assert "cookie" not in plain
