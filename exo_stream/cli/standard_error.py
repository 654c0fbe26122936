"""Standard error: what is said there helps, and is never worth failing for."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(line: str) -> None:
    """Write a line to standard error, or lose it where it cannot be written.

    A log is often kept on the disk that has just become full, and whoever reads a pipe may die:
    neither is a reason for a server to stop, or for a command to exit with another code.
    """
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
