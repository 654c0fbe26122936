"""The frame scanner: the same pieces however the bytes arrive, and every violation by its code."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.protocol.scanner import (
    CLOSE,
    PING,
    FrameScanner,
    Piece,
    ViolationError,
    close_frame,
)

MASK = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, bits: int = 0) -> bytes:
    """A masked frame as a client sends it; what is masked does not matter here."""
    first = (0x80 if final else 0) | bits | opcode
    length = len(payload)
    if length < 126:
        head = bytes((first, 0x80 | length))
    elif length < 1 << 16:
        head = bytes((first, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + MASK + payload


def scan(*arriving: bytes, message_bytes_max: int = 1 << 20) -> tuple[list[Piece], int | None]:
    """All pieces, and the code of the violation at their end."""
    scanner = FrameScanner(message_bytes_max=message_bytes_max)
    pieces: list[Piece] = []
    try:
        for data in arriving:
            scanner.feed(data)
            while (piece := scanner.next_piece()) is not None:
                pieces.append(piece)
    except ViolationError as violation:
        with pytest.raises(ViolationError):
            scanner.next_piece()
        return pieces, violation.code
    return pieces, None


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_message_is_one_piece_when_it_is_all_there(size: int) -> None:
    data = frame(2, os.urandom(size))
    assert scan(data) == ([Piece(data, 2, size)], None)


def test_several_frames_come_one_at_a_time() -> None:
    frames = [frame(1, b"a"), frame(PING, b"b"), frame(2, b"c", final=False), frame(0, b"d")]
    pieces, code = scan(b"".join(frames))
    assert ([piece.data for piece in pieces], code) == (frames, None)
    assert [piece.payload for piece in pieces] == [1, 0, 1, 1]


@given(
    st.lists(
        st.sampled_from(
            [
                frame(1, b"hello"),
                frame(2, b"x" * 300),
                frame(PING, b"p" * 125),
                frame(2, final=False) + frame(0, b"yz"),
                frame(2, b"w" * 70_000),
            ]
        ),
        max_size=5,
    ),
    st.lists(st.integers(1, 500), max_size=50),
)
def test_how_the_bytes_are_cut_does_not_matter(frames: list[bytes], cuts: list[int]) -> None:
    data = b"".join(frames)
    arriving, at = [], 0
    for cut in cuts:
        arriving.append(data[at : at + cut])
        at += cut
    pieces, code = scan(*arriving, data[at:])
    assert b"".join(piece.data for piece in pieces) == data
    assert code is None
    assert sum(piece.payload for piece in pieces) == sum(p.payload for p in scan(data)[0])


def test_a_control_frame_is_never_cut() -> None:
    ping = frame(PING, b"abc")
    assert scan(ping[:1], ping[1:4], ping[4:-1], ping[-1:])[0] == [Piece(ping, PING, 0)]


def test_behind_a_close_frame_there_is_nothing() -> None:
    close = frame(CLOSE, b"\x03\xe8")
    assert scan(close + b"\xff" * 10) == ([Piece(close, CLOSE, 0)], None)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(2, bits=0x40), 1002, id="a reserved bit"),
        pytest.param(frame(2, bits=0x20), 1002, id="another reserved bit"),
        pytest.param(frame(3), 1002, id="a reserved opcode"),
        pytest.param(frame(0xF), 1002, id="a reserved control opcode"),
        pytest.param(b"\x82\x01a", 1002, id="unmasked"),
        pytest.param(frame(PING, final=False), 1002, id="a ping in pieces"),
        pytest.param(frame(PING, b"x" * 126), 1002, id="a long ping"),
        pytest.param(frame(0, b"a"), 1002, id="a fragment without a message"),
        pytest.param(frame(2, final=False) + frame(2), 1002, id="a message in a message"),
        pytest.param(b"\x82\xfe\x00\x7d", 1002, id="a length in too many bytes"),
        pytest.param(b"\x82\xff" + (65_535).to_bytes(8, "big"), 1002, id="in far too many"),
        pytest.param(b"\x82\xff" + (1 << 63).to_bytes(8, "big"), 1002, id="a negative length"),
        pytest.param(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + MASK, 1009, id="a huge length"),
        pytest.param(frame(2, b"x" * 1001), 1009, id="a large message"),
        pytest.param(
            frame(2, b"x" * 500, final=False) + frame(0, b"x" * 500), 1009, id="in two pieces"
        ),
        pytest.param(
            frame(2, final=False) + frame(0, final=False) * 20, 1009, id="many empty fragments"
        ),
    ],
)
def test_a_violation_is_found_behind_what_was_in_order(data: bytes, code: int) -> None:
    before = frame(1, b"in order")
    pieces, found = scan(before + data, message_bytes_max=1000)
    assert (pieces[0].data, found) == (before, code)


def test_it_knows_whether_something_has_begun() -> None:
    scanner = FrameScanner(message_bytes_max=1000)
    assert scanner.is_between_messages
    for data, between, ended in [
        (frame(2, b"ab")[:3], False, 0),
        (frame(2, b"ab")[3:], True, 1),
        (frame(2, b"ab", final=False), False, 1),
        (frame(PING), False, 1),
        (frame(0), True, 2),
        (frame(PING), True, 3),
    ]:
        scanner.feed(data)
        while scanner.next_piece() is not None:
            pass
        assert (scanner.is_between_messages, scanner.ended) == (between, ended)


def test_a_close_frame_keeps_its_reason_whole_but_short() -> None:
    assert close_frame(1000) == b"\x88\x02\x03\xe8"
    long = close_frame(4400, "ä" * 100)
    assert len(long) == 2 + 2 + 122  # 123 bytes would cut the last letter in two
    assert long[4:].decode() == "ä" * 61
