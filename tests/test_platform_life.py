"""Random lives of a platform, step by step against a dict and a list, on both engines.

Everything is small, so that a life of some dozens of steps folds, merges, evicts and restarts.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from exo_stream import Platform, Producer
from exo_stream.errors import (
    BatchEvictedError,
    ConflictError,
    ExoStreamError,
    OutcomeUnknownError,
    ProducerFencedError,
)
from exo_stream.limits import KIB, Limits
from exo_stream.model import Cursor
from exo_stream.scan import Scan
from tests.worlds import OpenPlatform, batches_until, in_memory, on_file

LIMITS = Limits(
    memtable_entries_max=10,
    slice_rows_max=7,
    runs_max=2,
    cache_bytes_max=2 * KIB,
    page_rows_max=4,
    tail_batches_max=5,
    checkpoint_idle_wal_bytes=1,
)

KEYS = st.sampled_from([b"", b"\x00", b"a", b"a\x00", b"ab", b"b", b"\xff", b"\xff" * 254])
VALUES = st.one_of(st.sampled_from([b"", b"\x00\xff"]), st.binary(max_size=3), st.just(b"v" * 999))
REQUIREMENTS = st.dictionaries(
    KEYS, st.one_of(st.sampled_from(["absent", "present"]), st.integers(0, 9)), max_size=1
)
PRODUCERS = st.one_of(
    st.none(),
    st.builds(Producer, st.sampled_from([b"p", b"q"]), st.integers(0, 1), st.integers(0, 400)),
)
WRITES = st.tuples(
    st.just("write"), st.lists(st.tuples(KEYS, VALUES), max_size=4), st.lists(KEYS, max_size=3),
    REQUIREMENTS, PRODUCERS,
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        WRITES,
        WRITES,
        WRITES,
        st.tuples(st.just("range"), KEYS, KEYS, st.integers(0, 9), st.booleans()),
        st.tuples(st.just("scan"), st.booleans()),
        st.tuples(st.just("finish")),
        st.tuples(st.just("follow"), st.integers(0, 40), st.sampled_from([b"", b"a", b"\xff"])),
        st.tuples(st.just("prune"), st.integers(0, 40)),
        st.tuples(st.just("wait"), st.integers(1, 9)),
        st.tuples(st.just("restart")),
    ),
    min_size=1,
    max_size=40,
)

Pairs = list[tuple[bytes, bytes | None]]


@dataclass(slots=True)
class Model:
    """What the platform should hold."""

    log: list[Pairs] = field(default_factory=list)
    floor: int = 1
    table: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    epochs: dict[bytes, int] = field(default_factory=dict)
    accepted: dict[bytes, dict[int, int]] = field(default_factory=dict)

    def write(
        self, puts: Pairs, deletes: list[bytes], require: Any, producer: Producer | None
    ) -> int | type[ExoStreamError]:
        """Write, and answer the number or the error that the platform should answer."""
        if producer is not None:
            verdict = self._judge(producer)
            if verdict is not None:
                return verdict
        for key, requirement in require.items():
            version = self.table[key][1] if key in self.table else 0
            holds = {"absent": not version, "present": bool(version)}
            if not holds.get(requirement, version == requirement):
                return ConflictError
        pairs = [*puts, *((key, None) for key in deletes)]
        self.log.append(pairs)
        for key, value in pairs:
            self.table.pop(key, None)
            if value is not None:
                self.table[key] = value, len(self.log)
        if producer is not None:
            if producer.epoch > self.epochs.get(producer.id, -1):
                self.epochs[producer.id] = producer.epoch
                self.accepted[producer.id] = {}
            self.accepted[producer.id][producer.seq] = len(self.log)
        return len(self.log)

    def _judge(self, producer: Producer) -> int | type[ExoStreamError] | None:
        epoch = self.epochs.get(producer.id, -1)
        if producer.epoch < epoch:
            return ProducerFencedError
        known = self.accepted.get(producer.id, {}) if producer.epoch == epoch else {}
        slot = max((seq for seq in known if seq % 256 == producer.seq % 256), default=None)
        if slot is not None and producer.seq in known and self._latest(known, producer.seq):
            return known[producer.seq]
        if known and producer.seq + 256 <= max(known):
            return OutcomeUnknownError
        return None

    def _latest(self, known: dict[int, int], seq: int) -> bool:
        """Whether its slot still remembers it: no later write took the slot."""
        same = [number for other, number in known.items() if other % 256 == seq % 256]
        return known[seq] == max(same)

    def pairs(self) -> list[tuple[bytes, bytes]]:
        return sorted((key, value) for key, (value, _) in self.table.items())


class Life:
    """One store through its restarts, beside its model."""

    def __init__(self, open_: OpenPlatform) -> None:
        self.model = Model()
        self._open = open_
        self._scans: list[tuple[Scan, list[tuple[bytes, bytes]]]] = []

    async def live(self, steps: list[Any]) -> None:
        left = list(steps)
        while left:
            async with self._open(limits=LIMITS) as platform, AsyncExitStack() as held:
                while left and (step := left.pop(0))[0] != "restart":
                    await getattr(self, "_" + step[0])(platform, held, *step[1:])
                await self._finish(platform, held)
                await self._check(platform)

    async def _write(self, platform: Platform, _held: Any, *asked: Any) -> None:
        puts, deletes, require, producer = asked
        if not puts and not deletes:
            return
        expected = self.model.write(*asked)
        try:
            answer: int | type[ExoStreamError] = await platform.write(
                puts=puts, deletes=deletes, require=require, producer=producer
            )
        except ExoStreamError as error:
            answer = type(error)
        assert answer == expected

    async def _range(
        self, platform: Platform, _held: Any, start: bytes, end: bytes, limit: int, forward: bool
    ) -> None:
        expected = [
            pair for pair in self.model.pairs() if start <= pair[0] and (not end or pair[0] <= end)
        ]
        found = await platform.range_scan(start, end, limit, forward)
        assert found == (expected if forward else expected[::-1])[:limit]

    async def _scan(self, platform: Platform, held: AsyncExitStack, forward: bool) -> None:
        scan = await held.enter_async_context(platform.scan(forward=forward))
        pairs = self.model.pairs()
        self._scans.append((scan, pairs if forward else pairs[::-1]))

    async def _finish(self, _platform: Platform, held: AsyncExitStack) -> None:
        for scan, expected in self._scans:
            assert [pair async for pair in scan] == expected
        self._scans.clear()
        await held.aclose()

    async def _follow(self, platform: Platform, _held: Any, after: int, prefix: bytes) -> None:
        model = self.model
        after = min(after, len(model.log))
        cursor = Cursor(platform.log_id, after)
        if after + 1 < model.floor:
            with pytest.raises(BatchEvictedError) as evicted:
                async with platform.subscribe(after=cursor):
                    pass
            assert evicted.value.oldest_retained == model.floor
            return
        expected = [
            (number, [pair for pair in pairs if pair[0].startswith(prefix)])
            for number, pairs in enumerate(model.log, start=1)
            if number > after and any(key.startswith(prefix) for key, _ in pairs)
        ]
        async with platform.subscribe(after=cursor, prefix=prefix) as feed:
            batches = await batches_until(feed, expected[-1][0]) if expected else []
        found = [(b.sequence, [(e.key, e.value) for e in b.entries]) for b in batches]
        assert found == expected

    async def _prune(self, platform: Platform, _held: Any, cutoff: int) -> None:
        if self._scans:
            return  # they hold the log; test_compaction looks at that
        floor = max(self.model.floor, min(cutoff, len(self.model.log) + 1))
        assert await platform.prune_batch_log(cutoff) == floor - self.model.floor
        self.model.floor = floor

    async def _wait(self, _platform: Platform, _held: Any, seconds: int) -> None:
        await trio.sleep(seconds)

    async def _check(self, platform: Platform) -> None:
        model = self.model
        assert await platform.current_sequence() == len(model.log)
        oldest = model.floor if model.floor <= len(model.log) else None
        assert await platform.oldest_retained_batch() == oldest
        assert await platform.range_scan() == model.pairs()
        for key in (b"", b"a", b"b", b"never"):
            value, version = model.table.get(key, (None, 0))
            assert (await platform.get_entry(key))[:2] == (value, version)
        for number in range(model.floor, len(model.log) + 1):
            batch = await platform.get_batch(number)
            assert batch is not None
            assert [(entry.key, entry.value) for entry in batch.entries] == model.log[number - 1]


def live(steps: list[Any], open_: OpenPlatform) -> None:
    trio.run(Life(open_).live, steps, clock=MockClock(autojump_threshold=0))


@pytest.mark.slow
@settings(max_examples=150)
@given(STEPS)
def test_a_store_in_memory_is_its_model(steps: list[Any]) -> None:
    live(steps, in_memory())


@pytest.mark.slow
@settings(max_examples=20)
@given(STEPS)
def test_a_file_is_its_model(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        live(steps, on_file(Path(folder) / "feed.duckdb"))
