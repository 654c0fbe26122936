"""Opening after SIGKILL: the log is replayed and checkpointed before anything is shown."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from benchmarks.rows.table import run_tool


def measure(setting: Setting) -> Iterator[Result]:
    """Seconds until a killed file is open again, from a fresh copy each time."""
    scale = setting.scale
    killed = setting.folder / "killed.duckdb"
    command = [sys.executable, "-m", "benchmarks.file_tool", "die", str(killed)]
    code = subprocess.run([*command, str(scale.wal_mib)], check=False).returncode
    assert code < 0, code
    seconds = [_open_copy(setting, killed, number) for number in range(scale.rounds)]
    yield Result(
        "crash",
        f"open after SIGKILL with {scale.wal_mib} MiB of WAL",
        "s",
        seconds,
        budget=Budget("at most", 1 + scale.wal_mib / 64),
    )


def _open_copy(setting: Setting, killed: Path, number: int) -> float:
    copy = setting.folder / f"copy-{number}.duckdb"
    for path in killed.parent.glob(f"{killed.name}*"):
        if not path.name.endswith(".lock"):
            shutil.copy(path, str(copy) + path.name.removeprefix(killed.name))
    return float(run_tool("open", copy))
