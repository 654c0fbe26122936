"""Fan-out of events: from an append over HTTP to its event at each of many readers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Final

import psutil

from benchmarks import http_client, load, servers
from benchmarks.http_client import request
from benchmarks.marks import marked
from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from benchmarks.rows import pace
from benchmarks.rows.stream_appends import MEMORY
from benchmarks.wire import STREAM

RATE: Final = 50


def measure(setting: Setting) -> Iterator[Result]:
    """p50 and p99 over every event at every reader, and what a reader costs in memory."""
    with pace.serving(setting) as (server, port):
        ours, memory = run(setting, ("127.0.0.1", port), server.pid)
    with servers.reference_streams(setting.folder, with_files=False) as reference:
        theirs, their_memory = run(setting, reference.address, reference.pid)
    name = f"events to {setting.scale.subscribers:,} readers, {RATE} appends/s"
    for share, limit in ((0.5, None), (0.99, 30)):
        yield Result(
            "stream-fanout",
            f"{name}, append sent → event received, p{share * 100:g}",
            "ms",
            [load.quantile(ours, share)],
            {MEMORY: [load.quantile(theirs, share)]},
            None if limit is None else Budget("at most", limit),
            note="ours is durable before it is sent" if share == 0.5 else "",
        )
    yield Result(
        "stream-fanout",
        f"{name}, memory per reader",
        "KiB",
        [memory],
        {MEMORY: [their_memory]},
    )


def run(setting: Setting, address: servers.Address, pid: int) -> tuple[list[float], float]:
    """Latencies in milliseconds, and KiB per reader that the server's memory grew by."""
    scale = setting.scale
    http_client.ask(address, request("PUT", STREAM, content_type="text/plain"))
    process = psutil.Process(pid)
    before = process.memory_info().rss
    arguments = ["events", str(address[1]), str(scale.subscribers)]
    with servers.python("benchmarks.receivers", *arguments) as receivers:
        assert servers.hear(receivers) == "ready"
        grown = (process.memory_info().rss - before) / 1024 / scale.subscribers
        count = max(1, int(RATE * scale.pace_seconds))
        servers.ask(receivers, f"times {count}")
        sent = append_at_pace(address, count)
        seen = json.loads(servers.hear(receivers))["seen"]
    return [(at - sent[index]) / 1e6 for index, at in seen], max(grown, 0.1)


def append_at_pace(address: servers.Address, count: int) -> list[int]:
    """Append at a steady rate; when each append was sent, in ns of CLOCK_MONOTONIC."""
    sent: list[int] = []
    start = time.monotonic()
    with http_client.connection(address) as ask:
        for index in range(count):
            time.sleep(max(0, start + index / RATE - time.monotonic()))  # noqa: TID251 - no trio
            sent.append(time.monotonic_ns())
            ask(request("POST", STREAM, marked(index), content_type="text/plain"))
    return sent
