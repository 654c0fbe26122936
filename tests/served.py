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

GUARD_SECONDS = 60
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
