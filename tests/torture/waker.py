"""A child that appends to streams, wakes who subscribed to them, and works for one, until killed.

``python -m tests.torture.waker PATH WEBHOOK APPENDS``: it makes so many appends; a webhook goes to
that URL, and a worker of its own claims the wakes of the other subscription. When nothing is left
to be told or done it says so and ends.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from typing import Final

import structlog
import trio

from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.server.serve import serve
from exo_stream.server.streams.settings import StreamSettings
from exo_stream.streams.offset import Offset
from exo_stream.streams.subscriptions.looking import Denied
from exo_stream.streams.subscriptions.record import Kind, StreamInfo, SubscriptionConfig
from exo_stream.streams.subscriptions.step import Ack, State
from exo_stream.streams.subscriptions.waking import Report
from exo_stream.streams.values import StreamConfig
from tests.torture import workload
from tests.torture.child import say

HOOK: Final = "hook"
PULL: Final = "pull"
WAKES: Final = "wakes"
STREAMS: Final = 5
PATTERN: Final = "events/*"
JSON: Final = StreamConfig("application/json")
LEASE_MS: Final = 1_000
PAUSE_SECONDS: Final = 0.005


async def main(path: str, url: str, appends: int) -> None:
    """Go on until killed, or until nothing is left."""
    say("started", os.getpid())
    async with open_platform(path, limits=workload.LIMITS) as platform:
        say("opened")
        await platform.streams.create_stream(WAKES, JSON)
        await _subscribe(platform, HOOK, "webhook", url)
        await _subscribe(platform, PULL, "pull-wake", WAKES)
        async with trio.open_nursery() as nursery:
            settings = StreamSettings(webhook_loopback=True)
            await nursery.start(partial(serve, platform, port=0, streams=settings))
            nursery.start_soon(_work, platform)
            await _append(platform, appends)
            await _settle(platform)
            nursery.cancel_scope.cancel()


async def _subscribe(platform: Platform, id_: str, kind: Kind, target: str) -> None:
    config = SubscriptionConfig(kind, PATTERN, (), target, LEASE_MS, None)
    made = await platform.streams.subscriptions.create(id_, config, "http://127.0.0.1:1")
    assert not isinstance(made, Denied), made


async def _append(platform: Platform, appends: int) -> None:
    for number in range(appends):
        name = f"events/{number % STREAMS}"
        await platform.streams.create_stream(name, JSON)
        result = await platform.streams.append(name, b"%d" % number)
        say("appended", name, result.next_offset)
        await trio.sleep(PAUSE_SECONDS)


async def _work(platform: Platform) -> None:
    """Claim what is pending, and acknowledge some of it before all of it is done."""
    subscriptions = platform.streams.subscriptions
    while True:
        state = await subscriptions.claim(PULL, "worker")
        if not isinstance(state, State):
            await trio.sleep(PAUSE_SECONDS)
            continue
        say("claimed", state.scope.generation, _told(state.streams))
        pending = [info for info in state.streams if info.has_pending]
        for some, is_done in ((pending[:1], False), (pending, True)):
            if not await _report(platform, state, some, is_done=is_done):
                break


async def _report(
    platform: Platform, state: State, streams: list[StreamInfo], *, is_done: bool
) -> bool:
    assert state.wake is not None
    acks = [Ack(info.path, info.tail) for info in streams]
    report = Report(state.scope, state.scope.generation, state.wake.id, acks, is_done)
    answer = await platform.streams.subscriptions.report(PULL, "pull-wake", report)
    if isinstance(answer, Denied):
        assert answer.code == "FENCED", answer  # it took longer than its lease
        return False
    told = [[ack.name, str(Offset.at(ack.position))] for ack in acks]
    say("acked", state.scope.generation, json.dumps(told))
    return True


def _told(streams: tuple[StreamInfo, ...]) -> str:
    """What the worker is told of each stream, on one line."""
    return json.dumps([[info.path, info.acked_offset, info.tail_offset] for info in streams])


async def _settle(platform: Platform) -> None:
    """Say when both subscriptions have nothing left."""
    finding = platform.streams.subscriptions.finding
    for id_ in (HOOK, PULL):
        pending = True
        while pending:
            await trio.sleep(PAUSE_SECONDS)
            known = await finding.subscription(id_)
            assert known is not None
            page = await finding.page(id_, known, "")
            pending = any(info.has_pending for info in page.streams)
    say("settled")


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
