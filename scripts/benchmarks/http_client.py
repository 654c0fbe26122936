"""A minimal HTTP client: requests encoded once, many connections, one epoll loop.

As little Python per answer as can be, so that the server is what is measured. Every connection has
one request under way, and sends the next when it has the whole answer.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from benchmarks.servers import Address

BUFFER_BYTES: Final = 1 << 20
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


@dataclass(frozen=True, slots=True)
class Run:
    """What a run gave: answers, bytes of them, seconds, and each answer's milliseconds."""

    answers: int
    received: int
    seconds: float
    milliseconds: Sequence[float]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """One request; in the names of headers ``_`` stands for ``-``."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method in {"PUT", "POST"}:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "\r\n"]).encode() + body


def run(address: Address, requests: Sequence[bytes], *, connections: int, seconds: float) -> Run:
    """Send the requests by turns over all connections until the time is over.

    Raises RuntimeError when an answer's status is not a success.
    """
    turn = cycle(requests)
    with _connected(address, connections) as (by_number, poll):
        asked: dict[int, float] = {}
        held = dict.fromkeys(by_number, b"")
        received, times = 0, []
        start = time.perf_counter()
        for number, one in by_number.items():
            asked[number] = time.perf_counter()
            one.sendall(next(turn))
        end = start + seconds
        while (now := time.perf_counter()) < end:
            for number, _ in poll.poll(1.0):
                one = by_number[number]
                data = one.recv(BUFFER_BYTES)
                received += len(data)
                if held[number]:
                    data = held[number] + data
                if not _is_whole(data):
                    held[number] = data
                    continue
                held[number] = b""
                now = time.perf_counter()
                times.append((now - asked[number]) * 1e3)
                asked[number] = now
                one.sendall(next(turn))
        return Run(len(times), received, now - start, times)


def ask(address: Address, *requests: bytes) -> list[bytes]:
    """Each request's whole answer, one after the other over one connection."""
    with connection(address) as one_by_one:
        return [one_by_one(each) for each in requests]


@contextmanager
def connection(address: Address) -> Iterator[Callable[[bytes], bytes]]:
    """A function that sends a request and returns its whole answer."""
    with socket.create_connection(address) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask_one(asked: bytes) -> bytes:
            one.sendall(asked)
            answer = b""
            while not _is_whole(answer):
                data = one.recv(BUFFER_BYTES)
                if not data:
                    raise RuntimeError(f"hung up after {answer[:200]!r}")
                answer += data
            return answer

        yield ask_one


@contextmanager
def _connected(
    address: Address, connections: int
) -> Iterator[tuple[dict[int, socket.socket], select.epoll]]:
    sockets = [socket.create_connection(address) for _ in range(connections)]
    poll = select.epoll()
    try:
        for one in sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(one, select.EPOLLIN)
        yield {one.fileno(): one for one in sockets}, poll
    finally:
        poll.close()
        for one in sockets:
            one.close()


def _is_whole(answer: bytes) -> bool:
    end = answer.find(_END)
    if end < 0:
        return False
    if not answer.startswith(b"HTTP/1.1 2"):
        raise RuntimeError(f"answered with {answer[:300]!r}")
    if answer.startswith(b"HTTP/1.1 204"):
        return True
    head = answer[:end].lower()
    at = head.find(_LENGTH)
    if at < 0:
        if b"transfer-encoding: chunked" not in head:
            raise RuntimeError(f"no end can be told of {answer[:300]!r}")
        return answer.endswith(b"\r\n0\r\n\r\n")
    length = int(head[at + len(_LENGTH) :].partition(b"\r\n")[0])
    return len(answer) >= end + len(_END) + length
