"""Backups while 64 tasks write: how fast one is, and what the writers notice of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import trio

import exo_stream
from benchmarks import load
from benchmarks.result import Result
from benchmarks.row import Setting
from benchmarks.scale import Scale
from exo_stream.backup import BackupKey

WRITERS: Final = 64
BATCH: Final = 1_000
KINDS: Final[tuple[tuple[str, bool, bool], ...]] = (
    ("plain", False, False),
    ("zstd", True, False),
    ("zstd, encrypted", True, True),
)
_QUIET_SECONDS: Final = 1.0
_ALONE: Final = "without one"


@dataclass(slots=True)
class _Figures:
    """Of one kind: MB/s of keys and values, and puts/s beside it."""

    speed: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Read:
    """How much a backup has read."""

    size: int = 0

    def note(self, done: int, _total: int) -> None:
        self.size = done


def measure(setting: Setting) -> Iterator[Result]:
    """MB/s of rows and log that a backup reads, and the puts/s beside it and without one."""
    figures, alone = trio.run(_measure, setting.folder, setting.scale)
    for kind, found in figures.items():
        yield Result(
            "backup",
            f"backup, {kind}, while {WRITERS} tasks write",
            "MB/s",
            found.speed,
            note="rows of the table and payloads of the log that were read",
        )
        yield Result(
            "backup", f"puts beside it, {WRITERS} tasks", "puts/s", found.beside, {_ALONE: alone}
        )


async def _measure(folder: Path, scale: Scale) -> tuple[dict[str, _Figures], list[float]]:
    figures: dict[str, _Figures] = {kind: _Figures() for kind, _, _ in KINDS}
    alone: list[float] = []
    key, names = BackupKey.generate(), count()
    async with exo_stream.open_platform(folder / "backup.duckdb") as platform:
        for first in range(0, scale.backup_rows, BATCH):
            await platform.put_batch(
                [(b"row/%08d" % number, load.VALUE) for number in range(first, first + BATCH)]
            )
        written = [0]
        async with trio.open_nursery() as nursery:
            for task in range(WRITERS):
                nursery.start_soon(_write, platform, task, written)
            for _ in range(scale.rounds):
                before, began = written[0], time.perf_counter()
                await trio.sleep(_QUIET_SECONDS)
                alone.append((written[0] - before) / (time.perf_counter() - began))
                for kind, compress, sealed in KINDS:
                    read = _Read()
                    before, began = written[0], time.perf_counter()
                    await platform.backup_to(
                        folder / f"backup-{next(names)}",
                        compress=compress,
                        key=key if sealed else None,
                        on_progress=read.note,
                    )
                    seconds = time.perf_counter() - began
                    figures[kind].speed.append(read.size / 1e6 / seconds)
                    figures[kind].beside.append((written[0] - before) / seconds)
            nursery.cancel_scope.cancel()
    return figures, alone


async def _write(platform: exo_stream.Platform, task: int, written: list[int]) -> None:
    for number in count():
        await platform.put_batch([(b"live/%d/%d" % (task, number % 1_000), load.VALUE)])
        written[0] += 1
