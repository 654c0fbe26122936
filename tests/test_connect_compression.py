"""Compression: what comes back is what was sent, and nothing becomes larger than allowed."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress
from itertools import chain

import pytest
from backports import zstd
from hypothesis import example, given
from hypothesis import strategies as st

from exo_stream.protocol.connect.compression import (
    ENCODINGS,
    SLICE_BYTES,
    accepted_encoding,
    compressed,
    decompressed,
    known_encoding,
)
from exo_stream.protocol.connect.failure import CallError, Code

MIB = 1 << 20


def shrink(encoding: str, data: bytes) -> bytes:
    return b"".join(compressed(encoding, data))


def grow(encoding: str, data: bytes, bytes_max: int = 16 * MIB) -> bytes:
    return b"".join(decompressed(encoding, data, bytes_max))


def elsewhere(encoding: str, data: bytes) -> bytes:
    """As another program compresses."""
    return gzip.compress(data) if encoding == "gzip" else zstd.compress(data, 19)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(st.binary(max_size=200))
@example(b"")
@example(bytes(range(256)) * 5000)
@example(b"\0" * SLICE_BYTES)
@example(b"\0" * (5 * SLICE_BYTES + 1))
def test_what_is_compressed_comes_back(encoding: str, data: bytes) -> None:
    assert grow(encoding, shrink(encoding, data)) == data
    assert grow(encoding, elsewhere(encoding, data)) == data


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_left_at_the_bound(encoding: str) -> None:
    bomb = elsewhere(encoding, b"\0" * (8 * MIB))
    held = 0
    with pytest.raises(CallError, match="at most 1048576 bytes") as caught:
        for piece in decompressed(encoding, bomb, MIB):
            held += len(piece)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert held <= MIB
    assert len(grow(encoding, bomb, 8 * MIB)) == 8 * MIB


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_message_that_ends_early_is_refused(encoding: str) -> None:
    whole = shrink(encoding, b"hello " * 1000)
    for end in (0, 1, len(whole) // 2, len(whole) - 1):
        with pytest.raises(CallError, match=f"ends in its {encoding}") as caught:
            grow(encoding, whole[:end])
        assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_nothing_may_follow_a_message(encoding: str) -> None:
    whole = shrink(encoding, b"hello")
    for more in (b"x", whole, b"\0" * 100_000):
        with pytest.raises(CallError, match=f"more follows the message's {encoding}"):
            grow(encoding, whole + more)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_not_compressed_is_refused(encoding: str) -> None:
    with pytest.raises(CallError, match=f"is no {encoding}") as caught:
        grow(encoding, b"hello, this is nothing of the kind")
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_zstd_frame_that_wants_a_huge_window_is_refused() -> None:
    options = {int(zstd.CompressionParameter.window_log): 27}
    greedy = zstd.ZstdCompressor(options=options)
    data = greedy.compress(b"x" * 1000) + greedy.flush()
    with pytest.raises(CallError, match="is no zstd"):
        grow("zstd", data)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(st.binary(max_size=100), st.integers(0, 100), st.binary(min_size=1, max_size=4))
def test_no_damage_escapes(encoding: str, data: bytes, at: int, patch: bytes) -> None:
    whole = shrink(encoding, data)
    damaged = whole[:at] + patch + whole[at + len(patch) :]
    for bad in (damaged, data, whole[:at]):
        with suppress(CallError):
            assert len(grow(encoding, bad, 1000)) <= 1000


def test_large_messages_are_worked_on_in_slices() -> None:
    data = zlib.compress(b"", 0) + bytes(3 * SLICE_BYTES)
    for encoding in ENCODINGS:
        assert len(list(compressed(encoding, data))) == 5
        sizes = [len(piece) for piece in decompressed(encoding, shrink(encoding, data), MIB)]
        assert max(sizes) <= SLICE_BYTES


@pytest.mark.parametrize(
    ("accepts", "encoding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("br", "identity"),
        ("zstd, gzip", "zstd"),
        ("gzip,br", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("gzip;q=0, zstd;q=0.000", "identity"),
        ("gzip; q=0, zstd", "zstd"),
        (";;,,;q=", "identity"),
    ],
)
def test_the_first_known_encoding_that_is_accepted_is_taken(
    accepts: str | None, encoding: str
) -> None:
    assert accepted_encoding(accepts) == encoding


def test_an_unknown_encoding_is_unimplemented_and_the_known_are_named() -> None:
    assert [known_encoding(name) for name in (None, "", "identity", "gzip", "zstd")] == [
        *["identity"] * 3,
        *ENCODINGS,
    ]
    for name in ("br", "gzip, zstd", "GZIP"):
        with pytest.raises(CallError, match="only gzip and zstd") as caught:
            known_encoding(name)
        assert caught.value.code is Code.UNIMPLEMENTED


@given(st.text())
def test_any_list_of_encodings_can_be_read(accepts: str) -> None:
    assert accepted_encoding(accepts) in chain(ENCODINGS, ["identity"])
