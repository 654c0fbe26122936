"""The verifier: opens a copy of what a dead child left, and holds it against the journal.

A copy, so that the next child finds the file as the last one left it, and has to recover from it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from exo_stream.model import Batch
from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.storage.directory import file_bytes
from exo_stream.storage.verify import verify
from tests.torture.journal import Journal
from tests.torture.workload import LIMITS

COMPANIONS = ("", ".wal", ".wal.checkpoint", ".wal.recovery", ".new", ".new.wal")
"""The file, and what may lie beside it; not the lock, which is of no use to a copy."""


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def copy(path: Path, folder: Path) -> Path:
    """A copy of the file and its companions in a fresh ``folder``; where the file would be."""
    fresh(folder)
    for suffix in COMPANIONS:
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            shutil.copyfile(companion, folder / companion.name)
    return folder / path.name


async def judge(path: Path, journal: Journal) -> None:
    """Hold the file at ``path`` against the journal; it is recovered, read whole, and closed.

    It is sound in itself too, as it was left and again when it was closed in order.
    """
    if file_bytes(path):  # a child that was killed early has made none
        check_soundness(path)
    await judge_contents(path, journal)
    check_soundness(path)


async def judge_contents(path: Path, journal: Journal) -> None:
    """Hold what can be read of the file against the journal."""
    async with open_platform(path, limits=LIMITS) as store:
        await _judge_log(store, journal)
        await _judge_table(store, journal)


def check_soundness(path: Path) -> None:
    """``exo-stream verify`` finds nothing wrong."""
    report = verify(path)
    assert report.sound, report.findings


def is_sound(path: Path) -> bool:
    """Whether ``exo-stream verify`` finds nothing wrong."""
    return verify(path).sound


async def _judge_log(store: Platform, journal: Journal) -> None:
    information = await store.info()
    floor = information.oldest or information.frontier + 1
    assert journal.floor <= floor <= journal.floor_asked, (journal.floor, floor)
    assert journal.log_id in ("", store.log_id)
    if floor <= information.frontier:
        expected = floor
        async with store.subscribe() as feed:
            async for batch in feed:
                assert isinstance(batch, Batch)
                assert batch.sequence == expected, (batch.sequence, expected)
                journal.see(batch.sequence, batch.entries)
                expected += 1
                if expected > information.frontier:
                    break
    journal.conclude(information.frontier)


async def _judge_table(store: Platform, journal: Journal) -> None:
    """The table is the fold of the whole log, of what was pruned from it too."""
    present = [
        (key, value) for key, (value, _) in sorted(journal.table.items()) if value is not None
    ]
    async with store.scan() as rows:
        found = [row async for row in rows]
    assert found == present, _difference(found, present)
    keys = list(journal.table)
    if keys:
        for key, entry in zip(keys, await store.get_entries(keys), strict=True):
            value, version = journal.table[key]
            expected = (value, version if value is not None else 0)
            assert (entry.value, entry.version) == expected, (key, entry, version)


def _difference(
    found: list[tuple[bytes, bytes]], expected: list[tuple[bytes, bytes]]
) -> dict[bytes, tuple[bytes | None, bytes | None]]:
    here, there = dict(found), dict(expected)
    return {
        key: (here.get(key), there.get(key))
        for key in here.keys() | there.keys()
        if here.get(key) != there.get(key)
    }
