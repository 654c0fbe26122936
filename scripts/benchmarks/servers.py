"""The peers' servers, each started for one row on a port of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.machine import find_peer
from tests.node_programs import node, node_folder

START_SECONDS_MAX: Final = 10

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens, and its process."""

    address: Address
    pid: int


@contextmanager
def redis(folder: Path) -> Iterator[Server | None]:
    """A Redis that syncs its log before each answer; None if Redis is not installed."""
    settings = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    # A rewrite of the log in the middle of a round would be unfair.
    settings += ["--auto-aof-rewrite-percentage", "0", "--maxclients", "4000"]
    with _peer("redis-server", folder, settings, "--port", "--bind") as server:
        yield server


@contextmanager
def nats(folder: Path) -> Iterator[Server | None]:
    """A NATS server as it comes; None if it is not installed."""
    with _peer("nats-server", folder, [], "-p", "-a") as server:
        yield server


@contextmanager
def reference_streams(folder: Path, *, with_files: bool) -> Iterator[Server]:
    """Durable Streams' reference server for node, in memory or with its file store."""
    words = [node(), "streams-reference.mjs", str(free_port())]
    if with_files:
        data = folder / "reference-streams"
        data.mkdir()
        words.append(str(data))
    address = ("127.0.0.1", int(words[2]))
    process = subprocess.Popen(words, cwd=node_folder(), stdout=subprocess.DEVNULL)
    try:
        _wait_until_it_listens(address)
        yield Server(address, process.pid)
    finally:
        process.kill()
        process.wait()


@contextmanager
def python(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process of ours that reads lines and answers with lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str], line: str) -> str:
    """Say one line to a process of ours, and wait for the line it answers with."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return hear(process)


def hear(process: subprocess.Popen[str]) -> str:
    """The next line that a process of ours says. Raises RuntimeError if it has ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with {process.wait()}")
    return line.rstrip("\n")


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _peer(
    program: str, folder: Path, settings: list[str], port_option: str, address_option: str
) -> Iterator[Server | None]:
    path = find_peer(program)
    if path is None:
        yield None
        return
    work = folder / program
    work.mkdir(exist_ok=True)
    address = ("127.0.0.1", free_port())
    command = [path, port_option, str(address[1]), address_option, address[0], *settings]
    with (work / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, cwd=work, stdout=log, stderr=log)
        try:
            _wait_until_it_listens(address)
            yield Server(address, process.pid)
        finally:
            process.kill()
            process.wait()


def _wait_until_it_listens(address: Address) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            socket.create_connection(address, timeout=1).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)  # noqa: TID251 - no trio here: nothing else waits
        else:
            return
