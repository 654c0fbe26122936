"""Lives of one server: killed and started anew at a word, with what it imports imported once.

``python -m tests.server_lives WORD…`` runs ``exo-stream WORD…`` in a process of its own. Each line
on stdin is an address: that process is killed (SIGKILL) and another begun, which listens there and
has nothing of the one before but the file. The end of stdin has the last one stopped in good order.
A start from nothing is a second of imports, and there are dozens in one test.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import exo_stream.cli.serve  # noqa: F401  what a server imports, before the first begins
from exo_stream.cli.program import main


def begin(words: Sequence[str]) -> int:
    """The id of a process that runs the command."""
    pid = os.fork()
    if pid:
        return pid
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())  # the words on it are not the server's
    code = 1
    try:
        code = main(words)
    finally:
        os._exit(code)


def end(pid: int, number: signal.Signals) -> int:
    """End a process, and answer how it ended: its exit code, or minus the signal's number."""
    os.kill(pid, number)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    life = begin(sys.argv[1:])
    for address in sys.stdin:
        ended = end(life, signal.SIGKILL)
        assert ended == -signal.SIGKILL, f"it had ended before it was killed: {ended}"
        life = begin([*sys.argv[1:], "--listen", address.strip()])
    sys.exit(end(life, signal.SIGTERM))
