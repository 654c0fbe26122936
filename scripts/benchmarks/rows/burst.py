"""Fan-out of a burst: every subscriber gets every message; deliveries a second, beside peers.

The clock starts before a publisher in this process sends the first byte of the burst, on one
connection, and stops when the last subscriber has the last value. exo-stream makes each batch
durable before anybody sees it; Redis' pub/sub and NATS keep nothing.
"""

from __future__ import annotations

import json
import socket
import threading  # noqa: TID251 - a publisher must be heard while it speaks; no trio here
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import rounds, servers, wire
from benchmarks.marks import VALUE_BYTES, marked
from benchmarks.result import Budget, Result
from benchmarks.row import Setting


def measure(setting: Setting) -> Iterator[Result]:
    """One burst at a time, the three by turns, with as many subscribers each."""
    scale = setting.scale
    with ExitStack() as stack:
        contenders: dict[str, rounds.Contender | None] = {}
        for kind, name in (("exo", rounds.OURS), ("redis", "redis"), ("nats", "nats")):
            address = _start(kind, setting, stack)
            contenders[name] = address and Burst(
                kind, address, scale.subscribers, scale.burst_batches, stack
            )
        given, peers = rounds.alternate(scale.bursts, contenders)
    yield Result(
        "burst",
        f"fan-out, {scale.subscribers:,} subscribers, burst of {scale.burst_batches:,} × "
        f"{VALUE_BYTES} B",
        "deliveries/s",
        given,
        peers,
        Budget("at least", 1.5, "ratio", goal=5),
        note="ours over WebSocket, each batch durable; Redis pub/sub and NATS keep nothing",
    )


def _start(kind: str, setting: Setting, stack: ExitStack) -> servers.Address | None:
    if kind == "exo":
        path = str(setting.folder / "burst.duckdb")
        process = stack.enter_context(servers.python("benchmarks.exo_server", path))
        return "127.0.0.1", int(servers.hear(process))
    peer = stack.enter_context((servers.redis if kind == "redis" else servers.nats)(setting.folder))
    return peer.address if peer else None


class Burst:
    """One server's subscribers and its publisher; each call is a burst."""

    def __init__(
        self, kind: str, address: servers.Address, subscribers: int, batches: int, stack: ExitStack
    ) -> None:
        self._kind = kind
        self._subscribers = subscribers
        self._batches = batches
        self._sent = 0
        arguments = [kind, str(address[1]), str(subscribers)]
        self._receivers = stack.enter_context(servers.python("benchmarks.receivers", *arguments))
        assert servers.hear(self._receivers) == "ready"
        self._publisher = stack.enter_context(wire.open_publisher(kind, address))
        # Answers are thrown away, but not left lying: a full socket would stop the server.
        threading.Thread(target=_drain, args=[self._publisher], daemon=True).start()

    def __call__(self) -> float:
        """Deliveries a second of one burst."""
        values = [marked(index) for index in range(self._batches)]
        data = wire.burst(self._kind, values, first_id=self._sent + 1)
        self._sent += self._batches
        servers.ask(self._receivers, f"count {self._batches}")
        start = time.monotonic_ns()
        self._publisher.sendall(data)
        end: int = json.loads(servers.hear(self._receivers))["at"]
        return self._batches * self._subscribers / ((end - start) / 1e9)


def _drain(publisher: socket.socket) -> None:
    while True:
        try:
            if not publisher.recv(1 << 18):
                return
        except OSError:
            return
