"""Streams that nobody touches: what opening a file of many takes, and what they hold in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.result import Budget, Result
from benchmarks.row import Setting


def measure(setting: Setting) -> Iterator[Result]:
    """Seconds to open a file of many streams and read one; bytes of memory for each stream."""
    count = setting.scale.small_table_keys
    path, empty = setting.folder / "streams.duckdb", setting.folder / "empty.duckdb"
    _run("make", path, count)
    _run("make", empty, 0)
    opened = [_run("open", path, count) for _ in range(setting.scale.rounds)]
    without = [_run("open", empty, 0) for _ in range(setting.scale.rounds)]
    yield Result(
        "stream-idle",
        f"open a file of {count:,} streams and read one",
        "s",
        [seconds for seconds, _ in opened],
        budget=Budget("at most", 2),
    )
    yield Result(
        "stream-idle",
        f"memory of an idle stream, of {count:,}",
        "B",
        [max(0, held - bare) / count for (_, held), (_, bare) in zip(opened, without, strict=True)],
        budget=Budget("at most", 1_024),
        note="resident memory of a process that has opened them, less that of one with none",
    )


def _run(verb: str, path: Path, count: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.stream_tool", verb, str(path), str(count)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return (float(said[0]), float(said[1])) if said else (0, 0)
