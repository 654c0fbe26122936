"""Clients that have stopped reading: what they cost the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import psutil

from benchmarks import load, servers
from benchmarks.result import Result
from benchmarks.row import Setting
from benchmarks.rows import pace

FILL_BATCHES: Final = 400
FILL_BYTES: Final = 16_384
"""Together more than the kernel holds for a connection: the server must notice who has stopped."""


def measure(setting: Setting) -> Iterator[Result]:
    """The others' p50 and p99 before some have stopped, and from then on."""
    scale = setting.scale
    others = scale.beside_stopped
    with pace.serving(setting) as (server, port), pace.receiving(port, others) as receivers:
        before = pace.run(server, receivers, scale.pace_seconds)
        # A client that reads nothing does not hear that it was closed; the server's files tell.
        files = psutil.Process(server.pid).num_fds()
        with pace.receiving(port, scale.stopped, "stopped"):
            servers.ask(receivers, f"count {FILL_BATCHES}")
            assert servers.ask(server, f"fill {FILL_BATCHES} {FILL_BYTES}") == "ok"
            servers.hear(receivers)
            beside = pace.run(server, receivers, scale.pace_seconds)
            lost = scale.stopped - (psutil.Process(server.pid).num_fds() - files)
        healthy_lost = int(servers.ask(receivers, "lost"))
    assert not healthy_lost, healthy_lost
    for share in (0.5, 0.99):
        yield Result(
            "stopped",
            f"{others:,} subscribers beside {scale.stopped} stopped ones, p{share * 100:g}",
            "ms",
            [load.quantile(beside, share)],
            note=f"without them {load.quantile(before, share):.1f} ms; "
            f"{lost} of {scale.stopped} stopped ones were closed by then",
        )
