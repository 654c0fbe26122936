"""Replay: one WebSocket that reads the log from its oldest batch, and how fast it can be served."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from time import perf_counter
from typing import Final

import trio

from benchmarks import servers, wire
from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from benchmarks.rows import pace
from exo_stream.client import connect
from exo_stream.starts import Oldest

ENTRIES: Final = 100
"""In a batch."""


def measure(setting: Setting) -> Iterator[Result]:
    """Entries a second: to a raw socket, which is the server's part, and through our client."""
    batches = setting.scale.replay_batches
    raw: list[float] = []
    client: list[float] = []
    with pace.serving(setting) as (server, port):
        assert servers.ask(server, f"load {batches} {ENTRIES}") == "ok"
        for _ in range(max(1, setting.scale.rounds // 2)):
            raw.append(batches * ENTRIES / _read_raw(port))
            client.append(batches * ENTRIES / trio.run(_read_client, port, batches))
    what = f"replay of {batches * ENTRIES:,} entries over one WebSocket"
    yield Result(
        "replay",
        what,
        "entries/s",
        raw,
        budget=Budget("at least", 400_000, goal=1_000_000),
        note=f"batches of {ENTRIES} entries of 100 B; read by a raw socket until caught_up",
    )
    yield Result("replay", f"{what}, through our Python client", "entries/s", client)


def _read_raw(port: int) -> float:
    """Seconds until the log's end, not decoding what comes."""
    requests, live = wire.subscription("exo", start=Oldest())
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(requests.pop(0))
        wire.hear_until(peer, b"\r\n\r\n")
        start = perf_counter()
        peer.sendall(b"".join(requests))
        end = b""
        while live not in end:
            some = peer.recv(1 << 20)
            assert some, "the server left"
            end = end[-len(live) :] + some[-4096:]
        return perf_counter() - start


async def _read_client(port: int, batches: int) -> float:
    async with connect(f"ws://127.0.0.1:{port}/v1/ws") as client:
        start = perf_counter()
        async with client.subscribe(start="oldest") as feed:
            seen = 0
            async for _ in feed:
                seen += 1
                if seen == batches:
                    break
        return perf_counter() - start
