"""Importing: what ``import exo_stream`` costs a program before it does anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from benchmarks.result import Budget, Result
from benchmarks.row import Setting

PROGRAM: Final = (
    "import time; before = time.perf_counter(); import exo_stream; "
    "print(time.perf_counter() - before)"
)


def measure(setting: Setting) -> Iterator[Result]:
    """Seconds in a fresh interpreter each time; the first does not count."""
    seconds = [_import() for _ in range(setting.scale.imports + 1)]
    yield Result(
        "import", "import exo_stream", "s", seconds[1:], budget=Budget("at most", 0.3)
    )  # fmt: skip


def _import() -> float:
    command = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(found)
