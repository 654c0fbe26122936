"""Standard error: what is said there helps, and is never worth failing for."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(line: str) -> None:
    """Write a line to standard error, or lose it where it cannot be written.

    A full disk or a reader that has died is no reason for a command to exit with another code.
    """
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
