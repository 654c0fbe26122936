"""Shared frames: encoded once, cut to size, and put together again."""

from __future__ import annotations

import itertools

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo_stream.errors import RemoteProtocolError
from exo_stream.model import SEQUENCE_MAX, Entry
from exo_stream.payload import encode_entries
from exo_stream.protocol import codec, frames
from exo_stream.protocol.frames import Assembly, EncodedItem, SharedBody
from exo_stream.protocol.messages import Batches, DeliveredBatch, Part, PartBody

entries = st.lists(
    st.builds(Entry, st.just(0), st.binary(max_size=40), st.none() | st.binary(max_size=300)),
    max_size=6,
).map(tuple)
batches = st.lists(
    st.builds(DeliveredBatch, st.integers(0, SEQUENCE_MAX), st.integers(0, SEQUENCE_MAX), entries),
    max_size=6,
)


def items(of: list[DeliveredBatch]) -> list[EncodedItem]:
    return [(b.sequence, b.committed_at, encode_entries(b.entries)) for b in of]


def received(frame: bytes, assembly: Assembly) -> tuple[DeliveredBatch, ...]:
    [message] = codec.decode(frame, bytes_max=1 << 20)
    if isinstance(message, Batches):
        assert assembly.is_empty
        return message.batches
    assert isinstance(message, Part)
    whole = assembly.add(message.body)
    return () if whole is None else codec.decode_batches(whole)


@given(batches)
def test_a_head_and_a_shared_body_are_a_frame_like_any_other(sent: list[DeliveredBatch]) -> None:
    shared = SharedBody("batches", frames.batches_body(items(sent)), None)

    assert shared.head(9) + shared.body == codec.encode([Batches(9, tuple(sent))])


@pytest.mark.slow
@settings(deadline=None)
@given(batches, st.integers(100, 2_000), st.integers(0, SEQUENCE_MAX))
def test_frames_keep_their_bound_and_lose_nothing(
    sent: list[DeliveredBatch], frame_bytes_max: int, subscription_id: int
) -> None:
    assembly = Assembly(1 << 20)
    got: list[DeliveredBatch] = []
    for body in frames.split(items(sent), frame_bytes_max):
        frame = body.head(subscription_id) + body.body
        assert len(frame) <= frame_bytes_max
        assert body.websocket_head(subscription_id) == frames.websocket_head(
            len(frame)
        ) + body.head(subscription_id)
        got += received(frame, assembly)
        if body.finished is not None:
            assert got[-1].sequence == body.finished

    assert got == sent
    assert assembly.is_empty


def test_small_batches_share_a_frame_and_a_large_one_travels_in_parts() -> None:
    small = encode_entries([Entry(0, b"k", b"v")])
    large = encode_entries([Entry(0, b"k", b"v" * 2_000)])

    bodies = frames.split([(1, 0, small), (2, 0, small), (3, 0, large), (4, 0, small)], 1_000)

    assert [(body.name, body.finished) for body in bodies] == [
        ("batches", 2),
        ("part", None),
        ("part", None),
        ("part", 3),
        ("batches", 4),
    ]
    [part] = codec.decode(bodies[1].head(7) + bodies[1].body, bytes_max=1 << 20)
    assert isinstance(part, Part)
    assert part.id == 7


@given(st.lists(st.integers(0, 9)), st.integers(0, 20))
def test_runs_are_as_long_as_their_bound_allows_and_lose_nothing(
    costs: list[int], cost_max: int
) -> None:
    made = list(frames.runs(costs, int, cost_max))

    assert [cost for run in made for cost in run] == costs
    assert all(len(run) == 1 or sum(run) <= cost_max for run in made)
    assert all(sum(run) + following[0] > cost_max for run, following in itertools.pairwise(made))


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536, 1 << 32])
def test_a_websocket_head_says_how_long_the_frame_is(length: int) -> None:
    head = frames.websocket_head(length)

    assert head[0] == 0x82
    match head[1]:
        case 126:
            assert int.from_bytes(head[2:], "big") == length
            assert len(head) == 4
        case 127:
            assert int.from_bytes(head[2:], "big") == length
            assert len(head) == 10
        case short:
            assert short == length


@pytest.mark.parametrize("number", [0, 23, 24, 255, 256, 65_535, 65_536, 1 << 32, SEQUENCE_MAX])
def test_a_cbor_head_is_the_shortest(number: int) -> None:
    assert frames.cbor_head(0, number) == cbor2.dumps(number)


def part(total: int, offset: int, chunk: bytes) -> PartBody:
    return PartBody(total, offset, chunk)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([part(6, 3, b"def")], id="no beginning"),
        pytest.param([part(9, 0, b"abc"), part(9, 6, b"ghi")], id="a hole"),
        pytest.param([part(6, 0, b"abc"), part(7, 3, b"def")], id="another total"),
        pytest.param([part(6, 0, b"abc"), part(6, 3, b"")], id="nothing in it"),
        pytest.param([part(4, 0, b"abc"), part(4, 3, b"de")], id="too much"),
        pytest.param([part(101, 0, b"abc")], id="larger than announced"),
    ],
)
def test_a_part_that_does_not_follow_is_refused(parts: list[PartBody]) -> None:
    assembly = Assembly(100)

    with pytest.raises(RemoteProtocolError):
        for one in parts:
            assembly.add(one)


def test_a_first_part_begins_anew() -> None:
    assembly = Assembly(100)

    assert assembly.add(part(6, 0, b"xyz")) is None
    assert not assembly.is_empty
    assert assembly.add(part(4, 0, b"ab")) is None
    assert assembly.add(part(4, 2, b"cd")) == b"abcd"
    assert assembly.is_empty
