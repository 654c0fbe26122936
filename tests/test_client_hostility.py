"""Whatever a server says, a client's caller gets an answer or an error of ours, in bounded time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from exo_stream.client import connect
from exo_stream.client.patience import Patience
from exo_stream.errors import ExoStreamError
from exo_stream.protocol import codec
from exo_stream.protocol import messages as m
from tests.network import URL, Network, Puppet, puppets
from tests.wire_examples import FROM_CLIENT, FROM_SERVER


def with_id(message: Any, id_: int) -> m.Message:
    changed: m.Message = replace(message, id=id_) if hasattr(message, "id") else message
    return changed


anything = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.builds(with_id, st.sampled_from(FROM_SERVER + FROM_CLIENT), st.integers(0, 4)),
        min_size=1,
        max_size=3,
    ).map(codec.encode),
    st.lists(
        st.builds(with_id, st.sampled_from(FROM_SERVER), st.integers(1, 3)), min_size=1, max_size=2
    ).map(codec.encode),
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(anything, max_size=12))
def test_nothing_a_server_says_escapes_as_another_error(frames: list[bytes]) -> None:
    async def babble(puppet: Puppet) -> None:
        await puppet.greet()
        for frame in frames:
            await puppet.websocket.send_message(frame)
            await trio.sleep(0.1)
        await trio.sleep(5)

    async def get(client: Any) -> None:
        try:
            await client.get(b"k")
        except ExoStreamError:
            pass

    async def put(client: Any) -> None:
        try:
            await client.put_batch([(b"k", b"v")])
        except ExoStreamError:
            pass

    async def follow(client: Any) -> None:
        try:
            async with client.subscribe(snapshot=True) as feed:
                async for _ in feed.messages():
                    pass
        except ExoStreamError:
            pass

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            network = Network(nursery, puppets(babble))
            with trio.fail_after(3_600):
                async with connect(
                    URL, dial=network.dial, patience=Patience(attempts_max=3)
                ) as client:
                    async with trio.open_nursery() as callers:
                        for call in (get, put, follow):
                            callers.start_soon(call, client)
                        await trio.sleep(1_000)
                        callers.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
