"""Growth: what a table of millions of keys does to puts, cold reads, memory, file and opening."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.result import Budget, Result
from benchmarks.row import Setting


@dataclass(frozen=True, slots=True)
class Readings:
    """What one size of the table gave; times in milliseconds if nothing is said, sizes in bytes."""

    put_p50: float
    get_memory_p50: float
    get_cold_p50: float
    range_cold_p50: float
    rest_seconds: float
    runs: int
    rss: int
    file: int
    live: int


def measure(setting: Setting) -> Iterator[Result]:
    """A small table and a large one, each in a process of its own."""
    scale = setting.scale
    small = _readings(setting, scale.small_table_keys)
    large = _readings(setting, scale.large_table_keys)
    keys = f"{scale.large_table_keys:,} keys"
    growth = f"{scale.small_table_keys:,} → {keys}"
    yield _at_most(f"get in memory, {keys}, p50", "µs", large.get_memory_p50 * 1000, 15)
    yield _at_most(
        f"get, one cold sub-block, {keys}, p50", "ms", large.get_cold_p50, 2,
        "the cache of sub-blocks is 1 MiB here; the kernel's page cache is warm",
    )  # fmt: skip
    yield _at_most(f"range of 100 rows, cold, {keys}, p50", "ms", large.range_cold_p50, 3)
    yield _at_most(
        f"put p50, growth {growth}", "×", large.put_p50 / small.put_p50, 1.5,
        f"{small.put_p50:.2f} → {large.put_p50:.2f} ms; compaction came to rest after "
        f"{large.rest_seconds:.0f} s, with {large.runs} runs",
    )  # fmt: skip
    yield _at_most(
        f"cold get p50, growth {growth}", "×", large.get_cold_p50 / small.get_cold_p50, 2,
        f"{small.get_cold_p50:.2f} → {large.get_cold_p50:.2f} ms",
    )  # fmt: skip
    yield _at_most(f"RSS at {keys}", "MiB", large.rss / 2**20, 700)
    yield _at_most(
        f"file / live data at {keys}", "×", large.file / large.live, 3,
        f"{large.file / 2**20:,.0f} MiB; live data is rows and the whole log",
    )  # fmt: skip
    seconds = [float(_tool(setting, "open", scale.large_table_keys)) for _ in range(scale.rounds)]
    yield Result(
        "table", f"open after a clean stop, {keys}", "s", seconds, budget=Budget("at most", 2)
    )


def _at_most(what: str, unit: str, figure: float, limit: float, note: str = "") -> Result:
    return Result("table", what, unit, [figure], budget=Budget("at most", limit), note=note)


def _readings(setting: Setting, keys: int) -> Readings:
    reads = str(setting.scale.table_reads)
    return Readings(**json.loads(_tool(setting, "grow", keys, reads)))


def _tool(setting: Setting, verb: str, keys: int, *more: str) -> str:
    """What a process of its own answers, on the file of so many keys."""
    return run_tool(verb, setting.folder / f"table-{keys}.duckdb", str(keys), *more)


def run_tool(verb: str, path: Path, *arguments: str) -> str:
    """The answer of a process that opens ``path`` (see benchmarks.file_tool)."""
    command = [sys.executable, "-m", "benchmarks.file_tool", verb, str(path), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
