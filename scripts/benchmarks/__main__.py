"""Measure exo-stream beside Redis and NATS, print the table, write figures and a plot.

A missed budget is a row marked as missed, not an error: the exit code is 1 only if a row could not
be measured.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, runner, table
from benchmarks.catalogue import ROWS
from benchmarks.result import UNKNOWN, Result
from benchmarks.row import Row
from benchmarks.scale import SCALES, Scale

BUILD = Path(__file__).parents[2] / "build" / "bench"
PEERS = ("redis-server", "nats-server")


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked on the command line."""
    parser = argparse.ArgumentParser("bench", description=__doc__.partition("\n")[0])
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument(
        "--quick",
        action="store_const",
        const="quick",
        dest="scale",
        help="smaller, within a minute; the rows that take longer only by name",
    )
    scale.add_argument(
        "--smoke",
        action="store_const",
        const="smoke",
        dest="scale",
        help="only show that every row runs; the figures mean nothing",
    )
    parser.add_argument(
        "--row",
        action="append",
        choices=[row.name for row in ROWS],
        metavar="NAME",
        help="only this row; may be given several times: " + ", ".join(row.name for row in ROWS),
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a PNG there")
    parser.add_argument(
        "--folder",
        type=Path,
        default=BUILD,
        metavar="DIR",
        help="where the files live while they are measured, on the disk that "
        "is meant (build/bench); never on a tmpfs, where an fsync costs nothing",
    )
    parser.set_defaults(scale="full")
    return parser.parse_args(arguments)  # fmt: skip


def is_asked(row: Row, asked: argparse.Namespace) -> bool:
    """Whether the command line wants this row: those it names, else all that it has time for."""
    if asked.row:
        return row.name in asked.row
    return not (row.is_long and asked.scale == "quick")


def measure(rows: Sequence[Row], scale: Scale, folder: Path) -> list[Result]:
    """Run the rows one after another, telling on stderr how far it is."""
    results = [
        Result("peers", peer, note=f"{peer} is not installed: no comparison with it")
        for peer in PEERS
        if machine.find_peer(peer) is None
    ]
    for row in rows:
        print(f"bench: {row.name}: {row.what}", file=sys.stderr, flush=True)
        begun = time.monotonic()
        for result in runner.run(row, scale, folder):
            figure = table.number(result.value, result.unit)
            print(f"       {result.what}: {figure} {result.verdict}", file=sys.stderr, flush=True)
            results.append(result)
        print(f"       {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write what was asked for."""
    # So that whoever stops the bench stops the row as well, and removes its files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked = options(arguments)
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    known = machine.describe(folder)
    rows = [row for row in ROWS if is_asked(row, asked)]
    results = measure(rows, SCALES[asked.scale], folder)
    print("\n".join(f"{name}: {what}" for name, what in known.items()), end="\n\n")
    print(table.render(results))
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "scale": asked.scale,
            "machine": known,
            "results": [result.to_json() for result in results],
        }
        asked.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if asked.plot:
        from benchmarks import plot  # noqa: PLC0415 - matplotlib takes a second to import

        plot.draw(results, asked.plot)
    return int(any(result.verdict == UNKNOWN and result.row != "peers" for result in results))


if __name__ == "__main__":
    sys.exit(main())
