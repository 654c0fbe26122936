"""Envelopes: one request message from any pieces of a body, and the end of a stream."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.protocol.connect.envelope import (
    COMPRESSED,
    END_STREAM,
    Envelope,
    OneEnvelope,
    end_stream,
    enveloped,
)
from exo_stream.protocol.connect.failure import CallError, Code


def read(*pieces: bytes, bytes_max: int = 100) -> Envelope:
    reader = OneEnvelope(bytes_max)
    for piece in pieces:
        reader.feed(piece)
    return reader.finish()


@pytest.mark.parametrize("flags", [0, COMPRESSED])
def test_a_message_is_read_from_its_envelope(flags: int) -> None:
    assert read(enveloped(b"hello", flags)) == Envelope(flags, b"hello")
    assert enveloped(b"hello", flags) == bytes([flags, 0, 0, 0, 5]) + b"hello"
    assert read(enveloped(b"", flags)) == Envelope(flags, b"")


@given(data=st.binary(max_size=60), cuts=st.lists(st.integers(0, 65)))
def test_it_does_not_matter_how_a_body_is_cut(data: bytes, cuts: list[int]) -> None:
    body = enveloped(data)
    edges = [0, *sorted(cut for cut in cuts if cut <= len(body)), len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges)]

    assert read(*pieces) == Envelope(0, data)


@pytest.mark.parametrize("cut", range(10))
def test_a_truncated_envelope_is_an_invalid_argument(cut: int) -> None:
    with pytest.raises(CallError, match="ends in an envelope") as caught:
        read(enveloped(b"hello")[:cut])
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_second_message_is_refused() -> None:
    with pytest.raises(CallError, match="more than one message"):
        read(enveloped(b"hello") + b"\x00")
    with pytest.raises(CallError, match="ends in an envelope"):
        read(enveloped(b"") + enveloped(b""))


def test_a_request_has_no_end_of_stream() -> None:
    with pytest.raises(CallError, match="flags 0x02") as caught:
        read(enveloped(b"{}", END_STREAM))
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_message_that_is_too_large_is_refused_by_its_head() -> None:
    reader = OneEnvelope(100)
    with pytest.raises(CallError, match="at most 100 bytes, this one has 101") as caught:
        reader.feed(bytes([0, 0, 0, 0, 101]))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


def test_the_end_of_a_stream_tells_error_and_metadata() -> None:
    assert end_stream(None, {}) == enveloped(b"{}", END_STREAM)
    end = end_stream(CallError(Code.ABORTED, "later"), {"x-a": ["1", "2"]})
    assert end[0] == END_STREAM
    assert json.loads(end[5:]) == {
        "error": {"code": "aborted", "message": "later"},
        "metadata": {"x-a": ["1", "2"]},
    }


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_whatever_comes_is_a_message_or_an_error_with_a_code(pieces: list[bytes]) -> None:
    with suppress(CallError):
        assert len(read(*pieces).data) <= 100
