"""Whatever is done to streams on a real file, reopened again and again: it is as the model says."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exo_stream.errors import ExoStreamError
from exo_stream.limits import Limits
from exo_stream.stream_errors import StreamNotFoundError
from exo_stream.streams.offset import Offset
from exo_stream.streams.values import StreamConfig, StreamProducer
from exo_stream.testing import FakeClock
from tests.stream_model import Model
from tests.stream_worlds import World, check_streams
from tests.worlds import on_file

NAMES = st.sampled_from(["a", "a/b", "c", "d"])
TYPES = st.sampled_from(["text/plain", "application/x"])
MESSAGES = st.lists(st.sampled_from([b"x", b"yes", b"longer"]), min_size=1, max_size=3)
CONFIGS = st.builds(
    StreamConfig,
    content_type=TYPES,
    ttl_seconds=st.sampled_from([None, None, 80]),
    closed=st.sampled_from([False, False, True]),
)
SHARE = st.integers(0, 4)
"""An offset, in quarters of a stream."""

STEPS = st.one_of(
    st.tuples(st.just("create"), NAMES, CONFIGS, st.one_of(st.just([]), MESSAGES)),
    st.tuples(st.just("fork"), NAMES, NAMES, SHARE, st.one_of(st.just([]), MESSAGES)),
    st.tuples(
        st.just("append"),
        NAMES,
        MESSAGES,
        st.one_of(st.none(), TYPES),
        st.sampled_from([None, None, "1", "10", "2"]),
        st.one_of(st.none(), st.none(), SHARE),
        st.sampled_from([False, False, True]),
    ),
    st.tuples(
        st.just("produce"),
        NAMES,
        st.one_of(st.just([]), MESSAGES),
        st.builds(
            StreamProducer,
            st.sampled_from(["p", "q"]),
            st.integers(0, 1),
            st.integers(0, 2),
        ),
        st.one_of(st.none(), TYPES),
    ),
    st.tuples(st.just("close"), NAMES),
    st.tuples(st.just("delete"), NAMES),
    st.tuples(st.just("read"), NAMES),
    st.tuples(st.just("head"), NAMES),
    st.tuples(st.just("wait"), st.sampled_from([1, 9, 85, 200])),
    st.tuples(st.just("upkeep")),
    st.tuples(st.just("reopen")),
)


async def told(answer: Awaitable[tuple[Any, ...]]) -> Any:
    """The answer, or the class of the error."""
    try:
        return await answer
    except ExoStreamError as error:
        return type(error)


class Run:
    """A file and its model, through one sequence of steps."""

    def __init__(self, world: World, model: Model) -> None:
        self.world = world
        self.model = model
        self.streams = world.streams

    async def settle(self, name: str) -> None:
        """Find out what became of a stream that may have expired; before, it may not have."""
        stream = self.model.streams.get(name)
        if stream is None or stream.deleted:
            return
        there = await self.streams.exists(name)
        if self.model.is_doubtful(name):
            if not there:
                self.model.end(name)
        else:
            assert there, name

    async def step(self, what: str, *asked: Any) -> None:
        # All of them: an expired fork is what its expired source is kept for.
        for name in [*self.model.streams]:
            await self.settle(name)
        real, expected = await getattr(self, what)(*asked)
        assert real == expected, (what, asked)

    async def create(self, name: str, config: StreamConfig, messages: list[bytes]) -> Any:
        async def real() -> tuple[Any, ...]:
            made = await self.streams.create_stream_with_data(name, config, messages)
            return made.created, made.next_offset.position, made.closed

        return await told(real()), self.model.create(name, config, messages)

    async def fork(self, name: str, source: str, share: int, messages: list[bytes]) -> Any:
        origin = self.model.streams.get(source)
        offset = origin.tail * share // 4 if origin else 0

        async def real() -> tuple[Any, ...]:
            made = await self.streams.create_fork(
                name, source, offset=Offset.at(offset), messages=messages
            )
            return made.created, made.next_offset.position, made.closed

        return await told(real()), self.model.fork(name, source, offset, messages)

    async def append(
        self,
        name: str,
        messages: list[bytes],
        content_type: str | None,
        *options: Any,
    ) -> Any:
        seq, share, close = options
        stream = self.model.streams.get(name)
        expected = None if share is None else (stream.tail if stream else 0) * share // 4

        async def real() -> tuple[Any, ...]:
            result = await self.streams.batch_append(
                name,
                messages,
                content_type,
                seq=seq,
                expected_offset=None if expected is None else Offset.at(expected),
                close=close,
            )
            return result.start_offset.position, result.next_offset.position, result.closed

        return await told(real()), self.model.append(
            name, messages, content_type=content_type, seq=seq, expected=expected, close=close
        )

    async def produce(
        self, name: str, messages: list[bytes], producer: StreamProducer, content_type: str | None
    ) -> Any:
        close = not messages

        async def real() -> tuple[Any, ...]:
            r = await self.streams.append_with_producer(
                name, messages, content_type, producer, close=close
            )
            return r.duplicate, r.epoch, r.seq, r.next_offset.position, r.closed

        return await told(real()), self.model.produce(
            name, messages, producer, content_type=content_type, close=close
        )

    async def close(self, name: str) -> Any:
        async def real() -> tuple[Any, ...]:
            r = await self.streams.close_stream(name)
            return r.start_offset.position, r.next_offset.position, r.closed

        return await told(real()), self.model.close(name)

    async def delete(self, name: str) -> Any:
        async def real() -> tuple[Any, ...]:
            await self.streams.delete(name)
            return ()

        result = await told(real()), self.model.delete(name)
        await self.world.upkeep()  # which lets go up the chain
        return result

    async def read(self, name: str) -> Any:
        async def real() -> tuple[Any, ...]:
            data = await self.world.text(name)
            head = await self.streams.head(name)
            return data, head.next_offset.position, head.closed

        return await told(real()), self.model.read(name, is_access=True)

    async def head(self, name: str) -> Any:
        async def real() -> tuple[Any, ...]:
            head = await self.streams.head(name)
            assert head.total_bytes == head.next_offset.position
            stream = self.model.streams[name]
            return stream.data, head.next_offset.position, head.closed

        return await told(real()), self.model.read(name, is_access=False)

    async def wait(self, seconds: int) -> Any:
        self.world.clock.advance(seconds)
        self.model.now += seconds
        return None, None

    async def upkeep(self) -> Any:
        await self.world.upkeep()
        await check_streams(self.world.platform)
        return None, None


async def carry_out(path: Path, steps: list[tuple[Any, ...]]) -> None:
    model, clock = Model(), FakeClock()
    # Small memtables, so that records and messages are read from the file too.
    limits = Limits(memtable_entries_max=24)
    left = list(steps)
    while left:
        async with on_file(path)(clock=clock, limits=limits) as platform:
            run = Run(World(platform.streams, platform, clock), model)
            while left:
                step = left.pop(0)
                if step[0] == "reopen":
                    break
                await run.step(*step)
            for name in list(model.streams):
                await run.settle(name)
                if name in model.streams:
                    await run.step("read", name)
            await run.upkeep()
            listed = (await run.streams.list_streams()).streams
            alive = [name for name, stream in model.streams.items() if not stream.deleted]
            assert [head.name for head in listed] == sorted(alive)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=5, max_size=40))
def test_streams_are_as_the_model_says(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(carry_out, Path(folder) / "feed.duckdb", steps)


def test_the_model_is_not_blind() -> None:
    model = Model()
    model.create("a", StreamConfig(), [b"x"])
    assert model.fork("f", "a", 1, []) == (True, 1, False)
    assert model.delete("a") == ()
    assert model.read("a", is_access=True) is not StreamNotFoundError
    model.delete("f")
    assert model.streams == {}
