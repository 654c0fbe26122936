"""The runner: each row in a process group of its own, with a time limit that cannot be overrun."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.result import Result
from benchmarks.row import Row
from benchmarks.scale import Scale

SCRIPTS = Path(__file__).parent.parent


def run(row: Row, scale: Scale, parent: Path) -> Iterator[Result]:
    """The results of ``row``, and one that says why if it did not come to its end.

    Whatever it started and wrote is gone afterwards.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{row.name}-", dir=parent))
    results = folder / "results.jsonl"
    try:
        work = folder / "work"
        work.mkdir()
        failure = _run(row, scale, work, results)
        if results.exists():
            for line in results.read_text().splitlines():
                yield Result.from_json(json.loads(line))
        if failure:
            yield Result(row.name, row.what, note=failure)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(row: Row, scale: Scale, work: Path, results: Path) -> str:
    """Run the row's process; answer what went wrong, nothing if all went well."""
    command = [sys.executable, "-m", "benchmarks.row_process"]
    path = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")])
    log = work.parent / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, row.name, scale.name, str(work), str(results)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(scale.row_seconds_max)
        except subprocess.TimeoutExpired:
            return f"stopped after {scale.row_seconds_max} s"
        finally:
            # Servers and subscribers that it started are of its group, and end with it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code == 0:
        return ""
    lines = log.read_text(errors="replace").strip().splitlines()
    sys.stderr.write("\n".join([*lines[-25:], ""]))
    return f"ended with {code}: {lines[-1] if lines else 'no output'}"[:200]
