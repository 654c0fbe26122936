"""Heads: as many items as a decoder would build, counted without building any."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exo_stream.errors import RemoteProtocolError
from exo_stream.protocol import codec
from exo_stream.protocol import messages as m
from exo_stream.protocol.heads import holds_more_than

SIZES = (0, 1, 23, 24, 255, 256, 65_535, 65_536)
NUMBERS = st.integers(-(1 << 64), (1 << 64) - 1)
STRINGS = st.builds(
    lambda size, byte: bytes([byte]) * size, st.sampled_from(SIZES), st.integers(0, 255)
)
LEAVES = NUMBERS | STRINGS | st.text() | st.booleans() | st.none() | st.floats()
TREES = st.recursive(
    LEAVES,
    lambda trees: st.lists(trees, max_size=30) | st.dictionaries(st.text(max_size=2), trees),
    max_leaves=100,
)


def items_in(tree: Any) -> int:
    if isinstance(tree, list):
        return 1 + sum(map(items_in, tree))
    if isinstance(tree, dict):
        return 1 + sum(1 + items_in(value) for value in tree.values())
    return 1


@settings(max_examples=30)
@given(TREES)
@example([[]] * 300)
@example([b"x" * size for size in SIZES])
def test_there_are_so_many_items_and_not_one_more(tree: Any) -> None:
    text, count = cbor2.dumps(tree), items_in(tree)
    assert holds_more_than(text, count - 1)
    assert not holds_more_than(text, count)
    assert not holds_more_than(text, len(text))


@given(st.binary(max_size=40), st.integers(0, 40))
def test_any_bytes_have_an_answer(text: bytes, items_max: int) -> None:
    assert holds_more_than(text, items_max) in {False, True}


def test_a_string_that_claims_more_than_there_is_ends_the_count() -> None:
    assert not holds_more_than(b"\x84\x5b" + b"\xff" * 8 + b"\x80" * 100, 5)


def flat(item: bytes, count: int) -> bytes:
    """A frame that asks for so many keys, which are none."""
    return b"\x81\x83\x68get_many\x01\x9a" + count.to_bytes(4, "big") + item * count


@pytest.mark.slow
@pytest.mark.parametrize("item", [b"\x80", b"\x81\x80", b"\x81\x81\x81\x81\x80", b"\x18\x20"])
def test_a_frame_of_more_items_than_a_message_may_have_is_refused_unbuilt(item: bytes) -> None:
    frame = flat(item, (16 << 20) // len(item) - 20)
    with pytest.raises(RemoteProtocolError, match="more than 6356992 items in a frame"):
        codec.decode(frame, bytes_max=16 << 20)


@pytest.mark.slow
def test_a_large_value_may_hold_whatever_it_likes() -> None:
    for byte in (b"\x80", b"\x81", b"\x00", b"\xff"):
        write = m.Write(1, puts=((b"k", byte * (10 << 20)), (b"l", byte * (5 << 20))))
        assert codec.decode(codec.encode([write]), bytes_max=16 << 20) == [write]


@pytest.mark.slow
def test_as_many_entries_as_a_batch_may_have_may_each_have_a_precondition() -> None:
    keys = [b"%06x" % number for number in range(1_000_000)]
    write = m.Write(1, puts=tuple([(key, b"") for key in keys]), require=dict.fromkeys(keys, 0))
    frame = codec.encode([write])
    assert len(frame) > codec.ITEMS_MAX
    assert codec.decode(frame, bytes_max=len(frame)) == [write]
