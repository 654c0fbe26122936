"""Killed at any moment: every wake is told in the end, and whoever was fenced stays fenced."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from exo_stream.opening import open_platform
from exo_stream.storage.verify import verify
from exo_stream.streams.verify import StreamCheck
from tests.served import serving
from tests.test_subscriptions import Crew, Port, webhook
from tests.test_webhooks import heard, receiver, status
from tests.torture import workload
from tests.torture.life import SYSCALLS, AtMoment, AtSyscall, Death, can_trace, live
from tests.torture.waker import PULL, STREAMS, WAKES

LIVES = 6
GUARD_SECONDS = 280
"""A guard against hanging, never a measure: a dozen processes start on a machine that is busy."""

Acked = dict[str, str]
"""What has been acknowledged of each stream; offsets compare as text."""


@dataclass
class Journal:
    """What the children said, and what the webhook's receiver was told, over all lives."""

    appended: Acked = field(default_factory=dict)
    told: Acked = field(default_factory=dict)
    acked: Acked = field(default_factory=dict)
    hooks: dict[int, tuple[str, Acked]] = field(default_factory=dict)
    claims: list[int] = field(default_factory=list)
    is_settled: bool = False

    def hear(self, line: str) -> None:
        """One line of a child."""
        match line.split(maxsplit=2):
            case ["started", _] | ["opened"]:
                pass
            case ["appended", name, offset]:
                self.appended[name] = max(offset, self.appended.get(name, ""))
            case ["claimed", generation, streams]:
                assert int(generation) > max(self.claims, default=0), "it was claimed before"
                self.claims.append(int(generation))
                for name, acked, tail in json.loads(streams):
                    known = self.acked.get(name, "-1")
                    assert acked >= known, (name, acked, known)
                    assert tail >= acked or acked == "-1"
            case ["acked", generation, acks]:
                assert int(generation) == self.claims[-1]
                self.acked.update(json.loads(acks))
            case ["settled"]:
                self.is_settled = True
            case _:
                raise AssertionError(line)

    def take(self, body: bytes) -> None:
        """One webhook. Retried it is the same; a later one knows of no less than it."""
        value = json.loads(body)
        generation = value["generation"]
        acked = {stream["path"]: stream["acked_offset"] for stream in value["streams"]}
        wake_id, _ = self.hooks.setdefault(generation, (value["wake_id"], acked))
        assert wake_id == value["wake_id"], "two wakes of one generation"
        for stream in value["streams"]:
            name, tail = stream["path"], stream["tail_offset"]
            self.told[name] = max(tail, self.told.get(name, ""))

    def check_hooks(self) -> None:
        """What was acknowledged never comes back."""
        best: Acked = {}
        for _, (_, acked) in sorted(self.hooks.items()):
            for name, offset in acked.items():
                assert offset >= best.get(name, "-1"), (name, offset, best)
                best[name] = offset


class Receiver:
    """Takes webhooks: most are done with at once; of others the server hears nothing, or no."""

    def __init__(self, journal: Journal, dice: random.Random) -> None:
        self.journal = journal
        self.dice = dice
        self.is_kind = False

    async def behave(self, stream: trio.abc.Stream) -> None:
        _, body = await heard(stream)
        self.journal.take(body)
        mood = 1.0 if self.is_kind else self.dice.random()
        if mood < 0.1:
            await stream.send_all(status("500 No"))
        elif mood > 0.2:
            await stream.send_all(status("200 OK", b'{"done":true}'))


def some_death(dice: random.Random) -> Death:
    if can_trace() and dice.random() < 0.6:
        return AtSyscall(dice.choice(SYSCALLS[:2]), dice.randint(10, 60))
    return AtMoment(dice.randint(5, 100), dice.uniform(0, 0.02))


async def check_end(path: Path, journal: Journal) -> None:
    """All that is there was told; of the wakes no generation twice, and none after a later one."""
    async with open_platform(path, limits=workload.LIMITS) as platform:
        found = (await platform.streams.list_streams("events/")).streams
        tails = {head.name: str(head.next_offset) for head in found}
        assert len(tails) == STREAMS
        assert journal.told == tails
        assert all(tails[name] >= offset for name, offset in journal.appended.items())
        page = await platform.streams.read(WAKES)
        assert page.up_to_date
        events = [event for event in json.loads(page.body) if event["subscription_id"] == PULL]
        generations = [event["generation"] for event in events]
        assert generations == sorted(set(generations)) != []


@pytest.mark.slow
async def test_subscriptions_survive_kills(tmp_path: Path) -> None:
    dice, journal, path = random.Random("wakes"), Journal(), tmp_path / "feed.duckdb"
    taker = Receiver(journal, dice)
    async with receiver(taker.behave, guard_seconds=GUARD_SECONDS) as port:
        command = [sys.executable, "-m", "tests.torture.waker", str(path)]
        command.append(f"http://127.0.0.1:{port}/")
        for _ in range(LIVES):
            ended = await live([*command, "1000000"], journal.hear, some_death(dice))
            assert ended.killed, ended
            if path.exists():
                report = verify(path, faces=(StreamCheck,))
                assert report.sound, report
        taker.is_kind = True
        # Nothing is appended any more: what is left is found, or told never.
        ended = await live([*command, "0"], journal.hear, None)
    assert journal.is_settled, ended
    journal.check_hooks()
    assert verify(path, faces=(StreamCheck,)).sound
    await check_end(path, journal)


OPTIONS = ("--webhook-loopback", "--log-level", "ERROR")


def port_of(url: str) -> int:
    number = urlsplit(url).port
    assert number is not None
    return number


@pytest.mark.slow  # server processes
@pytest.mark.parametrize("moment", ["before the answer", "after the answer"])
async def test_killed_between_a_webhook_and_its_ack_it_is_told_again(
    tmp_path: Path, moment: str
) -> None:
    crew, file = Crew(), tmp_path / "x.duckdb"
    crew.hangs = moment == "before the answer"
    async with receiver(crew.behave, guard_seconds=GUARD_SECONDS) as hook:
        with serving(file, *OPTIONS) as server:
            port = Port(port_of(server.url))
            await port.subscription("s", "PUT", webhook(hook, lease_ttl_ms=1_000))
            tail = await port.append("events/a")
            first = await crew.next()
            server.kill()
        crew.hangs = False
        with serving(file, *OPTIONS, listen=f"127.0.0.1:{port.number}"):
            second = await crew.next()
            # Not taken for all the server knew, so the same; or taken, and its lease has ended.
            assert second["generation"] in ({1} if moment == "before the answer" else {1, 2})
            assert second["streams"] == first["streams"]
            assert await port.report(second, events__a=tail) == {"ok": True, "next_wake": False}
            if second["generation"] == 2:
                assert (await port.report(first))["error"]["code"] == "FENCED"
            # The key is the file's: who knew it before knows it now.
            _, jwks = await port.ask("GET", "__ds/jwks.json")
            assert jwks["keys"][0]["kid"].startswith("ds_")
    assert verify(file, faces=(StreamCheck,)).sound
