"""The process of one row: python -m benchmarks.row_process ROW SCALE FOLDER RESULTS."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from benchmarks.catalogue import load, row_named
from benchmarks.row import Setting
from benchmarks.scale import SCALES
from exo_stream.cli.collector import collect_seldom


def main(name: str, scale: str, folder: str, results: str) -> None:
    """Measure, and write each result at once: what a crash or the time limit leaves, counts."""
    _allow_many_files()
    collect_seldom()  # as docs/embedding.md advises
    setting = Setting(SCALES[scale], Path(folder))
    with Path(results).open("w", buffering=1) as lines:
        measured = load(row_named(name))(setting)
        lines.writelines(json.dumps(result.to_json()) + "\n" for result in measured)


def _allow_many_files() -> None:
    # A thousand subscribers are a thousand sockets at either end; children inherit this.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main(*sys.argv[1:])
