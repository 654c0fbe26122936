"""A server process, as an operator starts it, for tests that need somebody to talk to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog

from exo_stream.cli.program import main

GUARD_SECONDS = 30
"""Nothing here takes as long; what does hangs."""

EXO_STREAM = [sys.executable, "-m", "exo_stream"]


@dataclass(slots=True)
class Served:
    """A server that has said where it listens."""

    process: subprocess.Popen[str]
    url: str
    log_id: str

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait(GUARD_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it in good order; answer its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(GUARD_SECONDS)


@contextmanager
def serving(file: Path, *options: str, listen: str = "127.0.0.1:0") -> Iterator[Served]:
    """Serve ``file`` while the body runs."""
    command = [*EXO_STREAM, "serve", str(file), "--listen", listen, "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            served = Served(process, told["url"], told["log_id"])
            yield served
            served.stop()
        finally:
            process.kill()


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would change how a command prints."""
    kept = {name: value for name, value in os.environ.items() if name != "EXO_STREAM_URL"}
    return {**kept, **changes}


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()

    @property
    def objects(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines]

    @property
    def sentence(self) -> str:
        """The only thing it said, beside what it logged: one sentence, and no traceback."""
        said = [line for line in self.err.splitlines() if not line.startswith("{")]
        assert len(said) == 1, self.err
        assert self.out == b"", self.out
        return said[0]


def speak(capture: pytest.CaptureFixture[bytes], *words: str | Path) -> Said:
    """Run a command in this process; a process of its own takes a second to start."""
    capture.readouterr()
    try:
        code = main([str(word) for word in words])
    finally:
        structlog.reset_defaults()  # it configures structlog for its process: here, everybody's
    out, err = capture.readouterr()
    return Said(code, out, err.decode())
