"""The heads of calls, and calls by GET."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.protocol.connect.call import Call, codec_of, get_call, post_call, timeout_of
from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.failure import CallError, Code
from exo_stream.protocol.http import Head


def head(query: str = "", **headers: str) -> Head:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Head("POST", "/path?" + query, "1.1", named)


def test_the_content_type_tells_the_codec() -> None:
    assert codec_of(head(content_type="application/proto"), streams=False) is Codec.PROTO
    json_type = "Application/JSON; charset=utf-8"
    assert codec_of(head(content_type=json_type), streams=False) is Codec.JSON
    assert codec_of(head(content_type="application/connect+json"), streams=True) is Codec.JSON
    for streams, other in ((True, "application/proto"), (False, "application/connect+proto"),
                           (False, "text/plain"), (True, "")):  # fmt: skip
        with pytest.raises(CallError, match="this method takes application/") as caught:
            codec_of(head(content_type=other), streams=streams)
        assert caught.value.status == 415


def test_a_unary_call_tells_its_compression_and_deadline() -> None:
    call = post_call(
        head(
            content_encoding="gzip",
            accept_encoding="br, zstd",
            connect_timeout_ms="1500",
            connect_protocol_version="1",
        ),
        Codec.JSON,
        streams=False,
    )
    assert call == Call(Codec.JSON, "gzip", "zstd", 1.5)
    assert call.codec.unary_type == "application/json"


def test_a_streaming_call_has_headers_of_its_own() -> None:
    heard = head(
        content_encoding="br", connect_content_encoding="zstd", connect_accept_encoding="gzip"
    )
    assert post_call(heard, Codec.PROTO, streams=True) == Call(Codec.PROTO, "zstd", "gzip")


def test_another_version_of_the_protocol_is_refused() -> None:
    with pytest.raises(CallError, match="must be 1") as caught:
        post_call(head(connect_protocol_version="2"), Codec.JSON, streams=False)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("text", ["", "-1", "1.5", "10000000000", "+1", "²", "1_0", "x"])
def test_a_deadline_is_a_number_of_at_most_ten_digits(text: str) -> None:
    with pytest.raises(CallError, match="at most 10 digits") as caught:
        timeout_of(head(connect_timeout_ms=text))
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_deadlines_are_milliseconds() -> None:
    assert timeout_of(head()) is None
    assert timeout_of(head(connect_timeout_ms="0")) == 0
    assert timeout_of(head(connect_timeout_ms="9999999999")) == 9_999_999.999


@given(st.binary(max_size=40))
def test_a_message_travels_in_a_query_in_many_ways(message: bytes) -> None:
    standard, safe = b64encode(message).decode(), urlsafe_b64encode(message).decode()
    for text in (standard, safe, standard.rstrip("="), safe.rstrip("=")):
        query = f"connect=v1&encoding=proto&base64=1&message={quote(text)}"
        assert get_call(head(query)) == (Call(Codec.PROTO, "identity", "identity"), message)
    query = f"message={quote(message)}&encoding=json&compression=gzip"
    assert get_call(head(query, accept_encoding="gzip", connect_timeout_ms="1")) == (
        Call(Codec.JSON, "gzip", "gzip", 0.001),
        message,
    )


@pytest.mark.parametrize(
    ("query", "says", "status"),
    [
        ("", "encoding must be", 415),
        ("message=&encoding=xml", "encoding must be", 415),
        ("encoding=json", "message is missing", 400),
        ("encoding=json&message=&connect=v2", "connect must be v1", 400),
        ("encoding=json&message=%21&base64=1", "no base64", 400),
        ("encoding=json&message=&compression=br", "only gzip and zstd", 501),
    ],
)
def test_a_get_that_cannot_be_served_is_told_why(query: str, says: str, status: int) -> None:
    with pytest.raises(CallError, match=says) as caught:
        get_call(head(query))
    assert caught.value.status == status


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_no_query_escapes(query: str) -> None:
    with suppress(CallError):
        get_call(head(query))
    with suppress(CallError):
        get_call(head("encoding=proto&message=" + query + "&base64=1"))
