"""The process of the subscribers: python -m benchmarks.receivers KIND PORT COUNT [stopped].

One epoll loop over raw sockets, the same for every kind of server; per wake-up one ``recv`` into
one buffer and one count of marks in it. It answers lines on its standard input:

    count N     "ok" at once; then, when every subscriber has N more values, a line
                {"at": ns of CLOCK_MONOTONIC, "bytes": received}
    times N     the same, and the line has "seen": [[index, ns], …], a pair for each value
    lost        the number of subscribers whose connection has ended
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Final

from benchmarks import wire
from benchmarks.marks import INDEX_DIGITS, MARK, index_at
from benchmarks.servers import Address

BUFFER_BYTES: Final = 1 << 20
CARRY: Final = len(MARK) + INDEX_DIGITS - 1
"""Bytes kept from one read to the next, so that a value's head that was cut is found whole."""

STOPPED_BUFFER_BYTES: Final = 4096
GREETED: Final = b"welcome"


class Subscriber:
    """One connection, how many values it still waits for, and the end of what it read last."""

    __slots__ = ("carry", "missing", "socket")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.missing = 0
        self.carry = b""


class Receivers:
    """All subscribers of this process."""

    def __init__(self, kind: str, address: Address, count: int, *, stopped: bool) -> None:
        self.lost = 0
        self._poll = select.epoll()
        self._buffer = bytearray(CARRY + BUFFER_BYTES)
        self._all: dict[int, Subscriber] = {}
        self._bytes = 0
        for _ in range(count):
            connected = connect(kind, address, stopped=stopped)
            connected.setblocking(False)
            self._all[connected.fileno()] = Subscriber(connected)
            if not stopped:
                self._poll.register(connected, select.EPOLLIN)

    def expect(self, values: int) -> None:
        """Wait for so many more values at each subscriber."""
        self._bytes = 0
        for subscriber in self._all.values():
            subscriber.missing += values

    def receive(self, seen: list[tuple[int, int]] | None) -> dict[str, object]:
        """Read until all that is expected has come; with ``seen``, note index and time of each."""
        missing = sum(1 for subscriber in self._all.values() if subscriber.missing > 0)
        while missing:
            for number, _ in self._poll.poll():
                subscriber = self._all[number]
                waited = subscriber.missing > 0
                alive = self._read(subscriber, seen)
                if waited and (subscriber.missing <= 0 or not alive):
                    missing -= 1
        return {"at": time.monotonic_ns(), "bytes": self._bytes}

    def _read(self, subscriber: Subscriber, seen: list[tuple[int, int]] | None) -> bool:
        carry, buffer = subscriber.carry, self._buffer
        start = CARRY - len(carry)
        buffer[start:CARRY] = carry
        try:
            received = subscriber.socket.recv_into(memoryview(buffer)[CARRY:])
        except ConnectionResetError:
            received = 0
        if not received:
            self._poll.unregister(subscriber.socket)
            self.lost += 1
            return False
        end = CARRY + received
        self._bytes += received
        if seen is None:
            subscriber.carry = bytes(buffer[max(start, end - len(MARK) + 1) : end])
            subscriber.missing -= buffer.count(MARK, start, end)
        else:
            subscriber.missing -= self._note(subscriber, start, end, seen)
        return True

    def _note(
        self, subscriber: Subscriber, start: int, end: int, seen: list[tuple[int, int]]
    ) -> int:
        """Note each value's index and the time; answer how many there were."""
        now = time.monotonic_ns()
        found = 0
        rest = end - len(MARK) + 1
        at = self._buffer.find(MARK, start, end)
        while at >= 0:
            if at + len(MARK) + INDEX_DIGITS > end:
                rest = at
                break
            seen.append((index_at(self._buffer, at), now))
            found += 1
            start = at + len(MARK)
            at = self._buffer.find(MARK, start, end)
        subscriber.carry = bytes(self._buffer[max(start, rest) : end])
        return found


def connect(kind: str, address: Address, *, stopped: bool) -> socket.socket:
    """A subscribed connection; a ``stopped`` one has asked, and reads no more."""
    connected = socket.socket()
    if stopped:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STOPPED_BUFFER_BYTES)
    connected.connect(address)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    requests, live = wire.subscription(kind)
    if kind == "exo":
        # The server speaks WebSocket only once it has answered the upgrade.
        connected.sendall(requests.pop(0))
        wire.hear_until(connected, b"\r\n\r\n")
    connected.sendall(b"".join(requests))
    wire.hear_until(connected, GREETED if stopped and kind == "exo" else live)
    return connected


def main(kind: str, port: str, count: str, stopped: str = "") -> None:
    """Subscribe, say "ready", and answer questions until there are no more."""
    receivers = Receivers(kind, ("127.0.0.1", int(port)), int(count), stopped=bool(stopped))
    print("ready", flush=True)
    for line in sys.stdin:
        verb, _, number = line.strip().partition(" ")
        if verb == "lost":
            print(receivers.lost, flush=True)
            continue
        seen: list[tuple[int, int]] | None = [] if verb == "times" else None
        receivers.expect(int(number))
        print("ok", flush=True)
        answer = receivers.receive(seen)
        print(json.dumps({**answer, "seen": seen}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
