"""Fan-out at a steady pace: from a COMMIT's return to its value at each subscriber."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from subprocess import Popen
from typing import Final

from benchmarks import load, servers
from benchmarks.marks import VALUE_BYTES
from benchmarks.result import Budget, Result
from benchmarks.row import Setting

RATE: Final = 50


def measure(setting: Setting) -> Iterator[Result]:
    """p50 and p99 over every value at every subscriber."""
    scale = setting.scale
    with serving(setting) as (server, port), receiving(port, scale.subscribers) as receivers:
        latencies = run(server, receivers, scale.pace_seconds)
    name = f"fan-out, {scale.subscribers:,} subscribers, {RATE} batches/s, commit → received"
    note = "the receivers, in one process, read one after another; their turn is part of it"
    for share, limit in ((0.5, 8), (0.99, 25)):
        yield Result(
            "pace",
            f"{name}, p{share * 100:g}",
            "ms",
            [load.quantile(latencies, share)],
            budget=Budget("at most", limit),
            note=note if share == 0.5 else "",
        )


@contextmanager
def serving(setting: Setting) -> Iterator[tuple[Popen[str], int]]:
    """A server of ours on a new file, and its port."""
    path = str(setting.folder / "served.duckdb")
    with servers.python("benchmarks.exo_server", path) as server:
        yield server, int(servers.hear(server))


@contextmanager
def receiving(port: int, count: int, *more: str) -> Iterator[Popen[str]]:
    """A process of subscribers that are live."""
    arguments = ["exo", str(port), str(count), *more]
    with servers.python("benchmarks.receivers", *arguments) as receivers:
        assert servers.hear(receivers) == "ready"
        yield receivers


def run(server: Popen[str], receivers: Popen[str], seconds: float) -> list[float]:
    """The latencies in milliseconds, one for each value at each subscriber."""
    count = max(1, int(RATE * seconds))
    servers.ask(receivers, f"times {count}")
    committed = json.loads(servers.ask(server, f"pace {RATE} {count} {VALUE_BYTES}"))
    seen: Sequence[tuple[int, int]] = json.loads(servers.hear(receivers))["seen"]
    return [(at - committed[str(index)]) / 1e6 for index, at in seen]
