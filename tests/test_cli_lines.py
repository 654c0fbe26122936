"""Lines from bytes, and keys for lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.cli.lines import LineSplitter, from_field, keyed, numbered
from exo_stream.errors import InvalidRequestError, LimitExceededError


@given(st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b""))),
       st.lists(st.integers(1, 5)))  # fmt: skip
def test_lines_are_the_same_however_their_bytes_arrive(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join([line + b"\n" for line in lines])
    splitter, found, at = LineSplitter(100), list[bytes](), 0
    for cut in [*cuts, len(data) or 1]:
        found += splitter.feed(data[at : at + cut])
        at += cut
    assert found + splitter.finish() == lines


def test_a_last_line_without_an_end_counts() -> None:
    splitter = LineSplitter(100)
    assert splitter.feed(b"one\r\n\ntwo") == [b"one", b""]
    assert splitter.finish() == [b"two"]
    assert splitter.finish() == []


@pytest.mark.parametrize("chunk", [b"12345", b"12345\n", b"1\n12345\n1", b"1\n12345"])
def test_a_line_that_is_too_long_is_refused(chunk: bytes) -> None:
    with pytest.raises(LimitExceededError):
        LineSplitter(4).feed(chunk)


def test_a_line_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    splitter = LineSplitter(4)
    splitter.feed(b"1234")
    with pytest.raises(LimitExceededError):
        splitter.feed(b"5")


def test_numbered_keys_are_in_the_order_of_the_lines() -> None:
    pairs, trouble = keyed([b"x"] * 11, numbered(b"p/", "run"), after=0)
    assert trouble is None
    assert [key for key, _ in pairs] == sorted(key for key, _ in pairs)
    assert pairs[0] == (b"p/run-0000000001", b"x")


def test_a_field_can_be_the_key() -> None:
    lines = [b'{"id": 7, "x": 1}', b'{"id": "seven"}']
    pairs, trouble = keyed(lines, from_field(b"p/", "id"), after=0)
    assert trouble is None
    assert pairs == [(b"p/7", lines[0]), (b"p/seven", lines[1])]


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[1]", b"{}", b'{"id": null}', b'{"id": true}', b'{"id": 1.5}', b"\xff",
     b'{"id": "\\ud800"}', b"[" * 100_000],
    ids=range(10),
)  # fmt: skip
def test_a_line_without_a_key_is_named_and_those_before_it_stand(line: bytes) -> None:
    good = b'{"id": 1}'
    pairs, trouble = keyed([good, line, good], from_field(b"", "id"), after=40)
    assert pairs == [(b"1", good)]
    assert isinstance(trouble, InvalidRequestError)
    assert "line 42" in str(trouble)
