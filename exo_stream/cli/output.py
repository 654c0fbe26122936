"""Standard output: JSON lines where asked for, colour and columns on a terminal, else plain lines.

Written with ``os.write``, never through Python's buffers: a write that blocks may then be given
up (Ctrl-C) without anybody waiting for a buffer's lock at exit.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

import trio

from exo_stream.cli.wording import Json, json_line


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command prints; every call is one write, flushed."""

    fd: int
    is_json: bool
    is_terminal: bool

    @classmethod
    def standard(cls, *, is_json: bool) -> Output:
        """That of this process."""
        return cls(1, is_json, is_terminal=os.isatty(1) and not is_json)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal as they are now; 80 by 24 if it does not say."""
        try:
            columns, lines = os.get_terminal_size(self.fd)
        except OSError:
            columns, lines = 0, 0
        return columns or 80, lines or 24

    def write(self, data: bytes) -> None:
        """Write all of ``data``; raises BrokenPipeError when nobody reads any more."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.fd, rest) :]

    async def wait_unread(self) -> None:
        """Return once nobody reads a pipe any more, as when `head` has enough; else never."""
        if stat.S_ISFIFO(os.fstat(self.fd).st_mode):
            await trio.lowlevel.wait_readable(self.fd)  # our end never is, but an error wakes it
        else:
            await trio.sleep_forever()

    def line(self, line: str) -> None:
        """Print one line."""
        self.write(line.encode(errors="replace") + b"\n")

    def object(self, value: Json) -> None:
        """Print one JSON value on a line of its own."""
        self.line(json_line(value))

    def answer(self, value: Json, plain: str) -> None:
        """Print an answer: the object with ``--json``, else the plain line."""
        if self.is_json:
            self.object(value)
        else:
            self.line(plain)


def is_colourful() -> bool:
    """Whether a terminal may be sent colours: not with NO_COLOR, nor if it is dumb."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
