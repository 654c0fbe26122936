"""The campaign against projections: life after life on one store, each judged from its files."""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import trio

from exo_stream import open_platform
from exo_stream.canonical.store import CanonicalStore
from exo_stream.storage.projection_file import (
    Identity,
    ProjectionFile,
    Rows,
    file_of,
    open_projection_file,
)
from tests.torture import projector as child
from tests.torture.life import AtMoment, Death, Ended, Fault, can_trace, live

CALLS: Final = (
    ("", "pwrite64", 12),
    ("", "fdatasync", 8),
    (".wal", "write", 21),
    (".wal", "fdatasync", 21),
    (".wal", "unlink", 8),
    (".rebuild", "pwrite64", 40),
    (".rebuild", "fdatasync", 20),
    (".rebuild", "rename", 4),
    (".rebuild", "unlink", 9),
    (".rebuild.wal", "write", 42),
    (".rebuild.wal", "fdatasync", 42),
    (".rebuild.wal", "unlink", 17),
)
"""What a whole life does to the file of ``balances`` and to those beside it, and how often."""

BIRTH: Final = ((".new", "pwrite64", 7), (".new", "fdatasync", 3), (".new", "rename", 1))
"""What is done to it once, when it is made."""


@dataclass(slots=True)
class Ledger:
    """What was heard of a store, and how often: the newest event applied, by projection."""

    path: Path
    applied: dict[str, int] = field(default_factory=dict)
    heard: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)

    def hear(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        assert verb in ("started", "opened", "applied", "rebuilt", "closed"), line
        self.heard[verb] += 1
        if verb == "applied":
            name, _, cursor = rest.partition(" ")
            before = self.applied.get(name, -1)
            assert int(cursor) >= before, "a cursor went back"
            self.applied[name] = int(cursor)

    async def judge(self) -> None:
        """Every event up to a cursor is in its tables or aside, once, and none after it."""
        async with open_platform(self.path) as platform:
            log_id = platform.log_id
            events = [event async for _, event in await platform.canonical.iter_events()]
            assert await state_of(platform.canonical, bool(events)) == child.balances_after(events)
        for name, check in (("balances", check_balances), ("journal", check_journal)):
            path = file_of(Path(f"{self.path}.projections"), name)
            cursor = -1
            if path.exists():  # noqa: ASYNC240  nothing else happens meanwhile
                look = partial(looked_into, path, name, log_id, len(events))
                cursor, rows, letters = await trio.to_thread.run_sync(look)
                check(events[: cursor + 1], rows, letters)
            assert self.applied.get(name, -1) <= cursor < len(events), name
            self.applied[name] = cursor


async def state_of(canonical: CanonicalStore, is_begun: bool) -> list[int]:
    async with canonical.read_txn() as txn:
        found = [int(value) async for _, value in txn.range()]
    assert len(found) == child.ACCOUNTS * is_begun
    return found or [child.BALANCE] * child.ACCOUNTS


def looked_into(
    path: Path, name: str, log_id: str, newest: int
) -> tuple[int, list[Rows], list[tuple[int, bytes]]]:
    """The cursor, the tables and the dead letters just as the last life left them."""
    identity = Identity(name, log_id, 1, child.TABLES[name])
    file: ProjectionFile = open_projection_file(path, identity, newest=newest, now=0)
    try:
        tables = ("balances",) if name == "balances" else ("seen", "total")
        rows = [file.read(f"SELECT * FROM {table} ORDER BY ALL") for table in tables]
        letters = file.read("SELECT event_id, event_bytes FROM exo_projection.dead_letter_queue")
        cursor = -1 if file.cursor is None else file.cursor
        return cursor, rows, sorted((int(str(n)), bytes(e)) for n, e in letters)  # type: ignore[call-overload]  # a row of no declared type
    finally:
        file.close()


def check_balances(
    events: list[bytes], tables: list[Rows], letters: list[tuple[int, bytes]]
) -> None:
    [rows] = tables
    assert rows == list(enumerate(child.balances_after(events)))
    assert sum(int(str(amount)) for _, amount in rows) == child.ACCOUNTS * child.BALANCE
    assert letters == []


def check_journal(
    events: list[bytes], tables: list[Rows], letters: list[tuple[int, bytes]]
) -> None:
    seen, [(total,)] = tables
    good = [(n, int(event.split()[2])) for n, event in enumerate(events) if n % child.BAD]
    assert seen == good
    assert total == sum(amount for _, amount in good)
    assert letters == [(n, event) for n, event in enumerate(events) if not n % child.BAD]


def some_death(dice: random.Random, folder: Path, *, unborn: bool) -> tuple[str, Death]:
    """At a call on a file of ``balances``, or at a moment; and what to call it."""
    if dice.random() < 0.25 or not can_trace():
        # It says three lines a turn, of twenty-four: early ones oftener than not.
        return "at a moment", AtMoment(dice.randint(1, 60), dice.uniform(0, 0.02))
    suffix, name, most = dice.choice(BIRTH if unborn else CALLS)
    count = dice.randint(1, most)
    path = folder / f"balances.duckdb{suffix}"
    return f"{suffix} {name}".strip(), Fault(f"{name}:signal=SIGKILL:when={count}", path)


async def one_life(ledger: Ledger, dice: random.Random) -> Ended:
    """A life, its death, and what it left behind."""
    folder = Path(f"{ledger.path}.projections")
    unborn = not (folder / "balances.duckdb").exists()  # noqa: ASYNC240  the same
    name, death = some_death(dice, folder, unborn=unborn)
    command = [sys.executable, "-m", "tests.torture.projector", str(ledger.path)]
    try:
        ended = await live(command, ledger.hear, death)
        assert ended.killed or ended.last_line == "closed", ended.log
        if ledger.path.exists():
            await ledger.judge()
    except BaseException as error:
        error.add_note(f"{ledger.path}, {death}")
        raise
    ledger.deaths[name] += ended.killed
    return ended


async def campaign(ledger: Ledger, seed: str, kills: int) -> None:
    """Life after life until so many were killed."""
    dice = random.Random(seed)
    while ledger.deaths.total() < kills:
        await one_life(ledger, dice)
