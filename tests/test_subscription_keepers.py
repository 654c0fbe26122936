"""Who looks after subscriptions: through trouble of the platform, bugs, and the end of another."""

from __future__ import annotations

from typing import Any

import trio
from structlog.testing import capture_logs

from exo_stream.errors import StoreError
from exo_stream.model import Keyspace
from exo_stream.server.streams.wakes import Wakes
from exo_stream.server.streams.webhooks import Reply, Webhooks
from exo_stream.storage.engine import ScanPlan, Version
from exo_stream.storage.memory_engine import MemoryEngine
from exo_stream.streams.subscriptions.record import LINK, SUBSCRIPTION, SubscriptionConfig
from exo_stream.streams.values import StreamConfig
from exo_stream.testing import FakeClock
from tests.worlds import in_memory


async def test_trouble_of_the_platform_postpones_a_wake_and_loses_none(
    autojump_clock: object,
) -> None:
    clock = FakeClock()
    async with in_memory()(clock=clock) as platform, trio.open_nursery() as nursery:
        wakes = Wakes(platform, Webhooks(loopback=True))
        nursery.start_soon(wakes.run)
        config = SubscriptionConfig("pull-wake", "events/*", (), "wakes", 1_000, None)
        await platform.streams.create_stream("wakes", StreamConfig("application/json"))
        await platform.streams.subscriptions.create("p", config, "http://h")
        await trio.testing.wait_all_tasks_blocked()
        await platform.pause_ingestion()
        platform.streams.subscriptions.stir("p")
        await trio.sleep(5)  # under a clock that jumps
        assert "p" in platform.streams.subscriptions.kept
        platform.resume_ingestion()
        await platform.streams.create_stream_with_data("events/a", messages=[b"x"])
        async with platform.streams.subscribe("wakes") as feed:
            assert b'"events/a"' in (await feed.__anext__()).body
        nursery.cancel_scope.cancel()


class Stubborn(MemoryEngine):
    """A store whose next scan of each of these kinds fails, as those of a file can."""

    def __init__(self, *kinds: bytes) -> None:
        super().__init__()
        self.failing = {bytes([Keyspace.STREAM_SUBSCRIPTION]) + kind for kind in kinds}

    def scan(self, version: Version, start: bytes, end: bytes, **bounds: Any) -> ScanPlan:
        if start[:2] in self.failing:
            self.failing.remove(start[:2])
            raise StoreError("injected")
        return super().scan(version, start, end, **bounds)


class Buggy(Webhooks):
    """Meets a bug before the first webhook, and takes all others."""

    def __init__(self) -> None:
        super().__init__(loopback=True)
        self.posts = 0

    async def post(self, *_: object) -> Reply:
        await trio.lowlevel.checkpoint()
        self.posts += 1
        if self.posts == 1:
            raise ValueError("a bug")
        return Reply(200, b'{"done":true}')


async def test_a_bug_and_a_failing_store_postpone_wakes_and_the_end_of_the_platform_ends_them(
    autojump_clock: object,
) -> None:
    engine, hooks = Stubborn(LINK), Buggy()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            async with in_memory(engine)(clock=FakeClock()) as platform:
                subscriptions = platform.streams.subscriptions
                for id_ in ("s", "t"):
                    config = SubscriptionConfig("webhook", "e/*", (), "http://h", 1_000, None)
                    await subscriptions.create(id_, config, "http://h")
                engine.failing.add(bytes([Keyspace.STREAM_SUBSCRIPTION]) + SUBSCRIPTION)
                nursery.start_soon(Wakes(platform, hooks).run)  # noqa: ASYNC111 - the point
                await trio.sleep(5)  # under a clock that jumps
                assert engine.failing == set()
                await platform.streams.create_stream_with_data("e/a", messages=[b"x"])
                await trio.sleep(5)
                assert hooks.posts == 3  # the bug again, and the other's
                for id_ in ("s", "t"):
                    known = await subscriptions.finding.subscription(id_)
                    assert known is not None
                    assert (known.generation, known.wake) == (1, None)
            subscriptions.stir("s")
            subscriptions.stir("t")
        # Whoever looked after them has left: else the nursery would still wait.
        assert subscriptions.kept == {}
    met = [entry["event"] for entry in logs if entry["log_level"] in {"warning", "error"}]
    assert met == ["subscriptions not read", "wake postponed", "keeper failed"]


async def test_of_two_that_look_after_subscriptions_the_second_takes_over() -> None:
    """As when the first of two ports of a program is closed."""
    async with in_memory()() as platform:
        await platform.streams.create_stream("wakes", StreamConfig("application/json"))
        config = SubscriptionConfig("pull-wake", "e/*", (), "wakes", 1_000, None)
        await platform.streams.subscriptions.create("p", config, "http://h")
        kept = platform.streams.subscriptions.kept
        async with trio.open_nursery() as second:
            async with trio.open_nursery() as first:
                first.start_soon(Wakes(platform, Webhooks(loopback=True)).run)
                await trio.testing.wait_all_tasks_blocked()
                second.start_soon(Wakes(platform, Webhooks(loopback=True)).run)
                await trio.testing.wait_all_tasks_blocked()
                [one] = kept.values()
                first.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            [other] = kept.values()
            assert other is not one
            await platform.streams.create_stream_with_data("e/a", messages=[b"x"])
            async with platform.streams.subscribe("wakes") as feed:
                assert b'"e/a"' in (await feed.__anext__()).body
            second.cancel_scope.cancel()
