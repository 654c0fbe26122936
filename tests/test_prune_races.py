"""Prunes while others write, cancel, or have only nine methods: whole batches, nothing newer."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Platform, open_platform
from exo_stream import prune as execution
from exo_stream.errors import (
    LimitExceededError,
    PausedError,
    PlatformClosedError,
    StoreFullError,
    UnsupportedError,
)
from exo_stream.limits import KIB
from exo_stream.model import Keyspace
from exo_stream.policies.policy import (
    DropAll,
    KeepLatest,
)
from exo_stream.policies.result import PruneCounts, PruneResult
from exo_stream.policies.retention import LogRetention
from exo_stream.regex.pattern import compile_regex
from exo_stream.storage.engine import Version
from exo_stream.testing import FakeClock, in_place
from tests.families import (
    FAMILY,
    OTHER,
    all_in,
    key,
    keys_of,
    keys_policy,
    log_policy,
    put_versions,
    small_platforms,
)
from tests.nine_methods import NineMethods
from tests.worlds import FaultyEngine, GatedHop, OpenPlatform, in_memory

opened = small_platforms()


class Meddling:
    """Writes in the middle of prunes: after the rows were judged, before they are deleted."""

    def __init__(self, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[dict[str, Any]] = []
        self._platform = platform
        page = platform.sources.reads.page

        async def meddled(version: Version, start: bytes, *arguments: Any, **options: Any) -> Any:
            found = await page(version, start, *arguments, **options)
            # Those who look for what has expired read pages too, of other keyspaces.
            while self.writes and start[0] == Keyspace.STORE:
                await self._platform.write(**self.writes.pop())
            return found

        monkeypatch.setattr(platform.sources.reads, "page", meddled)


@pytest.mark.parametrize("others", [0, 300], ids=["in the memtable", "in blocks"])
async def test_a_prune_never_deletes_a_value_newer_than_the_one_it_judged(
    opened: OpenPlatform, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """Trap 14: what is written between the scan and the deletion stays."""
    async with opened() as platform:
        await put_versions(platform, b"a", range(10))
        meddling = Meddling(platform, monkeypatch)
        puts = [(key(b"a", n), b"newer") for n in (3, 7)]
        puts += [(b"other%d" % n, b"") for n in range(others)]
        meddling.writes = [{"puts": puts, "deletes": [key(b"a", 5)]}]

        result = await platform.prune([keys_policy(DropAll())])

        assert await keys_of(platform) >= [key(b"a", 3), key(b"a", 7)]
        assert await platform.get(key(b"a", 3)) == b"newer"
        assert await platform.get(key(b"a", 0)) is None
        counts = result.total
        assert (counts.matched, counts.deleted, counts.spared) == (10, 7, 3)
        assert counts.deleted_bytes == 7 * (len(key(b"a", 0)) + 2)
        [sequence] = result.sequences
        assert len(await all_in([sequence], platform)) == 7


async def test_a_prune_whose_every_row_was_written_anew_takes_no_sequence(
    opened: OpenPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened() as platform:
        await put_versions(platform, b"a", [1, 2])
        meddling = Meddling(platform, monkeypatch)
        meddling.writes = [{"puts": [(key(b"a", n), b"") for n in (1, 2)]}]
        result = await platform.prune([keys_policy(DropAll())])
        assert result == PruneResult((PruneCounts(matched=2, spared=2),), ())
        assert await platform.current_sequence() == 2


async def test_a_write_of_the_same_group_spares_its_key(autojump_clock: MockClock) -> None:
    """The decision is made after that of a write which nobody has seen yet."""
    hop = GatedHop()
    async with in_memory()(hop=hop) as platform, trio.open_nursery() as nursery:
        hop.gate.set()
        await put_versions(platform, b"a", [1, 2])
        hop.gate, hop.arrived = trio.Event(), trio.Event()
        nursery.start_soon(platform.put_batch, [(b"first", b"")])
        await hop.arrived.wait()
        # These wait for the first to be committed, then they are one group.
        nursery.start_soon(platform.put_batch, [(key(b"a", 1), b"newer")])
        await wait_all_tasks_blocked()
        results: list[PruneResult] = []

        async def prune() -> None:
            results.append(await platform.prune([keys_policy(DropAll())]))

        nursery.start_soon(prune)
        await wait_all_tasks_blocked()
        hop.gate.set()
        await wait_all_tasks_blocked()
        assert results[0].total.deleted == 1
        assert results[0].total.spared == 1
        assert await platform.get(key(b"a", 1)) == b"newer"


async def test_two_prunes_of_the_same_rows_delete_them_once(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await put_versions(platform, b"a", range(50))
        results: list[PruneResult] = []

        async def prune() -> None:
            results.append(await platform.prune([keys_policy(DropAll())]))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(prune)
        assert sorted(result.total.deleted for result in results) == [0, 0, 50]
        assert await platform.current_sequence() == 2


@pytest.mark.slow
async def test_groups_too_many_for_memory_are_judged_in_parts(opened: OpenPlatform) -> None:
    async with opened() as platform:
        for start in range(0, 400, 100):
            await platform.put_batch(
                [(key(b"%d" % n, v), b"") for n in range(start, start + 100) for v in (1, 2, 3)]
            )
        policy = keys_policy(KeepLatest(1), "logical")
        ground = platform._ground

        async def prune(*, dry_run: bool, held_bytes_max: int) -> PruneResult:
            return await execution.prune(
                ground, [policy], compile_regex, dry_run=dry_run, held_bytes_max=held_bytes_max
            )

        for held_bytes_max in (100_000, 40_000):
            foretold = await prune(dry_run=True, held_bytes_max=held_bytes_max)
            assert (foretold.total.matched, foretold.total.deleted) == (1200, 800)
        result = await prune(dry_run=False, held_bytes_max=40_000)
        assert (result.total.matched, result.total.deleted, result.total.spared) == (1200, 800, 0)
        assert await keys_of(platform) == sorted(key(b"%d" % n, 3) for n in range(400))


@pytest.mark.parametrize("group_by", [(), ("logical",)], ids=["no groups", "one group"])
async def test_one_group_too_large_to_be_judged_is_refused(
    autojump_clock: MockClock, group_by: tuple[str, ...]
) -> None:
    async with in_memory()() as platform:
        await put_versions(platform, b"a", range(100))
        with pytest.raises(LimitExceededError) as caught:
            await execution.prune(
                platform._ground,
                [keys_policy(KeepLatest(1000), *group_by)],
                compile_regex,
                dry_run=False,
                held_bytes_max=8 * KIB,
            )
        assert caught.value.limit == "held_bytes_max"
        assert await platform.current_sequence() == 1


async def test_a_prune_passes_the_low_disk_mark(autojump_clock: MockClock) -> None:
    engine = FaultyEngine()
    async with in_memory(engine)() as platform:
        await put_versions(platform, b"a", [1, 2])
        engine.low = True
        with pytest.raises(StoreFullError):
            await platform.put_batch([(b"k", b"")])
        assert (await platform.prune([keys_policy(DropAll())])).total.deleted == 2


@pytest.mark.parametrize("after", range(1, 6))
async def test_a_cancelled_prune_leaves_whole_batches_only(
    opened: OpenPlatform, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(execution, "BATCH_KEYS_MAX", 10)
    async with opened() as platform:
        await put_versions(platform, b"a", range(60))
        decide, count = platform._ground.writes.ask, 0
        with trio.CancelScope() as scope:

            async def ask(request: Any) -> Any:
                nonlocal count
                count += 1
                if count == after:
                    scope.cancel()
                return await decide(request)

            monkeypatch.setattr(platform._ground.writes, "ask", ask)
            await platform.prune([keys_policy(DropAll())])
        assert scope.cancelled_caught
        # A batch that was taken up takes its course; what comes after it is written after it.
        last = await platform.put_batch([(key(b"z", 0, OTHER), b"")])
        left = await platform.range_scan(*FAMILY.prefix_bounds())
        deleted = await all_in(range(2, last), platform)
        assert after - 1 <= last - 2 <= after
        assert len(deleted) == 10 * (last - 2)
        assert len(left) == 60 - len(deleted)
        # Nothing it held is held any more: the next one does the rest.
        monkeypatch.setattr(platform._ground.writes, "ask", decide)
        assert (await platform.prune([keys_policy(DropAll())])).total.deleted == len(left)


async def test_a_prune_does_not_pass_a_pause_and_stops_between_two_batches(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "BATCH_KEYS_MAX", 10)
    async with in_memory()() as platform:
        await put_versions(platform, b"a", range(60))
        ground = platform._ground
        await ground.pause.pause(ground.settle)
        for policy in (keys_policy(DropAll()), log_policy(DropAll())):
            with pytest.raises(PausedError):
                await platform.prune([policy])
        with pytest.raises(PausedError):
            await platform.set_retention(LogRetention(KeepLatest(1)))
        assert (await platform.prune([keys_policy(DropAll())], dry_run=True)).total.deleted == 60
        ground.pause.resume()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_refused_in_the_middle, platform)
            await platform.sources.frontier.wait_visible(2)
            await ground.pause.pause(ground.settle)
        ground.pause.resume()
        frontier = await platform.current_sequence()
        left = await platform.range_scan(*FAMILY.prefix_bounds())
        assert len(left) == 60 - 10 * (frontier - 1) > 0


async def _refused_in_the_middle(platform: Platform) -> None:
    with pytest.raises(PausedError):
        await platform.prune([keys_policy(DropAll())])


async def test_a_prune_ends_with_the_platform(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "BATCH_KEYS_MAX", 10)
    hop, errors = GatedHop(), list[BaseException]()
    async with trio.open_nursery() as nursery:
        async with in_memory()(hop=hop) as platform:
            hop.gate.set()
            await put_versions(platform, b"a", range(60))

            async def prune() -> None:
                try:
                    await platform.prune([keys_policy(DropAll())])
                except PlatformClosedError as error:
                    errors.append(error)

            hop.gate, hop.arrived = trio.Event(), trio.Event()
            nursery.start_soon(prune)
            await hop.arrived.wait()

            async def open_gate() -> None:
                await wait_all_tasks_blocked()
                hop.gate.set()

            nursery.start_soon(open_gate)
    assert len(errors) == 1


async def test_a_backend_with_nine_methods_is_pruned_too(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its values are compared instead of versions, which it does not tell."""
    store = NineMethods()
    async with open_platform(engine=store, hop=in_place, clock=FakeClock()) as platform:
        await put_versions(platform, b"a", range(5))
        meddling = Meddling(platform, monkeypatch)
        meddling.writes = [{"puts": [(key(b"a", 1), b"newer"), (key(b"a", 2), b"v2")]}]

        result = await platform.prune([keys_policy(DropAll())])

        assert (result.total.matched, result.total.deleted, result.total.spared) == (5, 4, 1)
        assert result.sequences == (await platform.current_sequence(),)
        assert await platform.range_scan() == [(key(b"a", 1), b"newer")]
        with pytest.raises(UnsupportedError):
            await platform.prune([log_policy(DropAll())], dry_run=True)
        assert (await platform.prune([log_policy(DropAll())])).total.evicted == 3


async def test_a_prune_of_nine_methods_that_spares_everything_writes_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_platform(engine=NineMethods(), hop=in_place, clock=FakeClock()) as platform:
        await put_versions(platform, b"a", range(2))
        meddling = Meddling(platform, monkeypatch)
        meddling.writes = [{"deletes": [key(b"a", 0), key(b"a", 1)]}]
        result = await platform.prune([keys_policy(DropAll())])
        assert result == PruneResult((PruneCounts(matched=2, spared=2),), ())
