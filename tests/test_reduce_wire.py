"""Reduces on the wire: scalars there and back, and answers within the bounds of a message."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import cbor2
import pytest
import trio
from trio.testing import MockClock

from exo_stream.errors import LimitExceededError, RemoteProtocolError
from exo_stream.limits import KIB, MIB, Limits
from exo_stream.protocol import codec, scalars
from exo_stream.reduce.expressions import ValueField
from exo_stream.reduce.request import (
    ReduceGroup,
    ReduceOp,
    Reducer,
    ReduceRequest,
    ReduceResult,
)
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.reduce.stored_row import Cell, CellTag, encode_row
from exo_stream.storage.engine import Reader, Reducing
from exo_stream.storage.memory_engine import MemoryEngine
from tests.network import connected_over, networked
from tests.worlds import in_memory

TEXT = ValueField(0, Kind.UTF8)
COUNT = ReduceRequest((Reducer(ReduceOp.COUNT_ALL),))


@pytest.mark.parametrize(
    "scalar",
    [
        1,
        [0],
        ["int64", 1],
        [11, 1],
        [0, 1 << 63],
        [0, True],
        [2, 1],
        [3, 0],
        [4, b"a"],
        [5, 1 << 31],
        [8, 1],
        [8, bytes(15)],
        [10, bytes(16)],
        [9, b"x" * 256],
    ],
)
def test_what_is_no_scalar_is_refused(scalar: Any) -> None:
    for results, groups in (([scalar], []), ([], [[[scalar], []]]), ([], [[[], [scalar]]])):
        frame = cbor2.dumps([["reduced", 1, 2, 3, results, groups]])
        with pytest.raises(RemoteProtocolError):
            codec.decode(frame, bytes_max=MIB)


@pytest.mark.parametrize(
    ("results", "groups"), [(None, []), ({}, []), ([], None), ([], [[]]), ([], [[[]]]), ([], [1])]
)
def test_what_are_no_groups_is_refused(results: Any, groups: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.decode(cbor2.dumps([["reduced", 1, 2, 3, results, groups]]), bytes_max=MIB)


def test_scalars_are_written_without_tags_whatever_their_size() -> None:
    least = Scalar(Kind.DECIMAL256, -(1 << 255))
    written = scalars.GROUPS.write((ReduceGroup((least, None), ()),))

    assert written == [[[[10, b"\x80" + bytes(31)], None], []]]


@pytest.mark.slow
async def test_an_answer_that_is_larger_than_a_message_is_refused(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(message_bytes_max=64 * KIB)
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        async with connected_over(network) as client:
            await platform.put_batch(
                [(b"%d" % n, encode_row([Cell(CellTag.UTF8, f"é{n}"), None])) for n in range(3_000)]
            )
            longest = (Reducer(ReduceOp.MIN_FIELD, TEXT), Reducer(ReduceOp.SUM_FIELD, NEVER))
            with pytest.raises(LimitExceededError) as caught:
                await client.reduce(ReduceRequest(longest, (TEXT,)))
            assert caught.value.limit == "message_bytes_max"

            few = await client.reduce(ReduceRequest(longest, (TEXT,), limit=2))
            assert [group.results[1] for group in few.groups] == [None, None]
            assert len(few.groups) == 2


NEVER = ValueField(1, Kind.INT64, nullable=True)


class Gated:
    """A reduce that is not planned before its gate is opened."""

    def __init__(self, reducing: Reducing, gate: trio.Event) -> None:
        self._reducing = reducing
        self._gate = gate

    def plan(self) -> bool:
        return self._gate.is_set() and self._reducing.plan()

    def run(self, reader: Reader) -> ReduceResult | None:
        return self._reducing.run(reader)


async def test_a_client_has_one_reduce_at_a_time_and_all_clients_a_few(
    autojump_clock: MockClock,
) -> None:
    """Each may hold many megabytes of groups; gets that come after them do not wait for them."""
    engine: Any = MemoryEngine()
    gate = trio.Event()
    opened: list[Gated] = []
    whole = engine.open_reduce

    def open_reduce(*args: Any) -> Gated:
        opened.append(Gated(whole(*args), gate))
        return opened[-1]

    engine.open_reduce = open_reduce
    limits = Limits(reductions_max=2)
    async with in_memory(engine)(limits=limits) as platform, networked(platform) as network:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected_over(network)) for _ in range(3)]
            async with trio.open_nursery() as nursery:
                for number, client in enumerate(clients, start=1):
                    for _ in range(5):
                        nursery.start_soon(client.reduce, COUNT)
                    while len(opened) < min(number, limits.reductions_max):  # noqa: ASYNC110  nobody announces it
                        await trio.lowlevel.checkpoint()
                    assert await client.get(b"k") is None
                assert len(opened) == limits.reductions_max
                gate.set()

    assert len(opened) == 15
