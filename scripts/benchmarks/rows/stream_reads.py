"""Reads over HTTP: a stream of 100 MB from its beginning, and the last append of a stream."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from benchmarks import http_client, rounds, servers
from benchmarks.http_client import request
from benchmarks.result import Budget, Result
from benchmarks.row import Setting
from benchmarks.rows import pace
from benchmarks.rows.stream_appends import FILES, MEMORY

APPEND_BYTES: Final = 1 << 20
PATH: Final = "/v1/stream/reads"
READERS: Final = 64

_BINARY: Final = "application/octet-stream"

_LENGTH: Final = re.compile(rb"content-length: (\d+)")
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_NEXT: Final = re.compile(rb"stream-next-offset: (\S+)")


def measure(setting: Setting) -> Iterator[Result]:
    """Megabytes a second of one reader, and answers a second of 64."""
    appends = 100 if setting.scale.name == "full" else 20
    with (
        pace.serving(setting) as (_, port),
        servers.reference_streams(setting.folder, with_files=False) as memory,
        servers.reference_streams(setting.folder, with_files=True) as files,
    ):
        addresses = {
            rounds.OURS: ("127.0.0.1", port),
            MEMORY: memory.address,
            FILES: files.address,
        }
        for address in addresses.values():
            fill(address, appends)
        given, peers = rounds.alternate(
            setting.scale.rounds,
            {name: partial(catch_up, address) for name, address in addresses.items()},
        )
        yield Result(
            "stream-reads",
            f"catch-up of {appends} MiB by one reader",
            "MB/s",
            given,
            peers,
            Budget("at least", 300),
            note="node sends all of it as one page",
        )
        given, peers = rounds.alternate(
            setting.scale.rounds,
            {
                name: partial(tail_reads, address, setting.scale.round_seconds)
                for name, address in addresses.items()
            },
        )
        yield Result(
            "stream-reads",
            f"reads of the last append, {READERS} connections",
            "reads/s",
            given,
            peers,
            Budget("at least", 5_000),
        )


def fill(address: servers.Address, appends: int) -> None:
    """Make the streams that are read."""
    http_client.ask(
        address,
        request("PUT", PATH, content_type=_BINARY),
        *[request("POST", PATH, b"." * APPEND_BYTES, content_type=_BINARY)] * appends,
        request("PUT", f"{PATH}-tail", content_type=_BINARY),
        *[request("POST", f"{PATH}-tail", b"." * 100, content_type=_BINARY)] * 20,
    )


def catch_up(address: servers.Address) -> float:
    """Read all of it, page by page; megabytes a second."""
    buffer = bytearray(1 << 27)
    received, at = 0, b"-1"
    with socket.create_connection(address) as one:
        start = time.perf_counter()
        while True:
            one.sendall(request("GET", f"{PATH}?offset={at.decode()}"))
            head, size = _page(one, buffer)
            received += size
            following = _NEXT.search(head)
            assert following is not None, head
            at = following[1]
            if b"stream-up-to-date" in head:
                return received / (time.perf_counter() - start) / 1e6


def _page(one: socket.socket, buffer: bytearray) -> tuple[bytes, int]:
    """The head of an answer in lower case, and the length of its body, which is skipped."""
    got, end, view = 0, -1, memoryview(buffer)
    head = b""
    while end < 0 or got < end:
        got += one.recv_into(view[got:])
        if not head and (at := buffer.find(b"\r\n\r\n", 0, got)) >= 0:
            head = bytes(buffer[:at]).lower()
            length = _LENGTH.search(head)
            end = -1 if length is None else at + 4 + int(length[1])
        if end < 0 and head and buffer.endswith(_LAST_CHUNK, 0, got):
            end = got
    return head, end


def tail_reads(address: servers.Address, seconds: float) -> float:
    """Reads a second of what follows the last offset but one."""
    tail = f"{PATH}-tail"
    [answer] = http_client.ask(address, request("GET", tail))
    found = _NEXT.search(answer.lower())
    assert found is not None, answer
    sequence, position = found[1].split(b"_")
    # Both count bytes: node's with five more for each append.
    each = int(position) // 20
    before = f"{sequence.decode()}_{int(position) - each:016}"
    read = request("GET", f"{tail}?offset={before}")
    return http_client.run(address, [read], connections=READERS, seconds=seconds).rate
