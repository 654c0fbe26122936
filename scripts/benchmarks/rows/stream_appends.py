"""Durable appends over HTTP, beside Durable Streams' node reference, in memory and with files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Final

from benchmarks import http_client, load, rounds, servers
from benchmarks.http_client import Run
from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from benchmarks.rows import pace

VALUE: Final = b"." * 100
SHAPES: Final = ((1, 1), (64, 1), (64, 1_000))
"""Connections, and the streams they append to by turns."""

TYPE: Final = "text/plain"

MEMORY: Final = "node, memory"
FILES: Final = "node, files"

_LOST: Final = "node's file store answers 404 for streams beyond the files it keeps open"


def measure(setting: Setting) -> Iterator[Result]:
    """Appends a second and their p99, each answered once it is durable."""
    names = map("bench-{}".format, count())
    with (
        pace.serving(setting) as (_, port),
        servers.reference_streams(setting.folder, with_files=False) as memory,
        servers.reference_streams(setting.folder, with_files=True) as files,
    ):
        ours = ("127.0.0.1", port)
        for connections, most in SHAPES:
            streams = min(most, setting.scale.subscribers)
            runs: dict[str, list[Run]] = {}
            one = partial(_contend, runs, names, connections, streams, setting.scale.round_seconds)
            given, peers = rounds.alternate(
                setting.scale.rounds,
                {
                    rounds.OURS: partial(one, rounds.OURS, ours),
                    MEMORY: partial(one, MEMORY, memory.address),
                    FILES: partial(one, FILES, files.address) if streams == 1 else None,
                },
            )
            yield from results(connections, streams, given, peers, runs)


def _contend(  # noqa: PLR0917  they are bound one after the other
    runs: dict[str, list[Run]],
    names: Iterator[str],
    connections: int,
    streams: int,
    seconds: float,
    name: str,
    address: servers.Address,
) -> float:
    run = append(address, f"{next(names)}-", connections, streams, seconds)
    runs.setdefault(name, []).append(run)
    return run.rate


def append(
    address: servers.Address, prefix: str, connections: int, streams: int, seconds: float
) -> Run:
    """Make the streams, then append to them by turns."""
    paths = [f"/v1/stream/{prefix}{number}" for number in range(streams)]
    made = [http_client.request("PUT", path, content_type=TYPE) for path in paths]
    http_client.ask(address, *made)
    requests = [http_client.request("POST", path, VALUE, content_type=TYPE) for path in paths]
    return http_client.run(address, requests, connections=connections, seconds=seconds)


def results(
    connections: int,
    streams: int,
    given: list[float],
    peers: dict[str, list[float]],
    runs: dict[str, list[Run]],
) -> Iterator[Result]:
    """The rate beside each peer, and the p99."""
    what = f"{connections} connection{'s' * (connections > 1)}"
    what += f" × {streams:,} stream{'s' * (streams > 1)}"
    for peer, budget in (
        (FILES, Budget("at least", 5, "ratio", goal=10)),
        (MEMORY, Budget("at least", 0.3, "ratio")),
    ):
        yield Result(
            "stream-appends",
            f"durable appends over HTTP, {what}, beside {peer}",
            "appends/s",
            given,
            {peer: peers[peer]} if peers[peer] else {},
            budget if connections > 1 and peers[peer] else None,
            note="" if peers[peer] else _LOST,
        )
    yield Result(
        "stream-appends",
        f"the same, {what}, p99",
        "ms",
        [quantile(run) for run in runs[rounds.OURS][1:]],
        {
            name: [quantile(run) for run in each[1:]]
            for name, each in runs.items()
            if name != rounds.OURS
        },
    )


def quantile(run: Run, share: float = 0.99) -> float:
    """A quantile of the milliseconds of a run."""
    return load.quantile(list(run.milliseconds), share)
