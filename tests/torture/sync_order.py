"""The order of system calls: what strace saw of writes, syncs and acknowledgements.

A killed process leaves its page cache behind, so no kill can show that a sync is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

_CALL = re.compile(r"^\d+ +(?P<name>\w+)\((?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>")
_THREAD = re.compile(r"^(\d+)")


def recorded(command: Sequence[str], record: Path) -> list[str]:
    """The command under strace, which records what its threads do with files."""
    calls = "trace=write,pwrite64,fdatasync,fsync,openat,unlink"
    return ["strace", "-f", "-qq", "-y", "-s", "16", "-e", calls, "-o", str(record), *command]


def acknowledgements(lines: Iterable[str], wal: Path) -> int:
    """How many there were; each when nothing in the WAL, nor its name, was still to be synced."""
    is_written = is_named = True
    count = 0
    unfinished: dict[str, str] = {}
    for line in lines:
        resumed = _RESUMED.match(line)
        call = unfinished.pop(resumed["thread"]) if resumed else line
        if line.endswith("<unfinished ...>"):
            thread = _THREAD.match(line)
            assert thread, line
            unfinished[thread[1]] = line
        found = _CALL.match(call)
        if not found:
            continue
        name, rest = found["name"], found["rest"]
        is_over = resumed is not None or not line.endswith("<unfinished ...>")
        if name in ("write", "pwrite64") and f"<{wal}>" in rest:
            is_written = False
        elif name == "openat" and f'"{wal}"' in rest and "O_CREAT" in rest:
            is_named = False
        elif name == "fdatasync" and f"<{wal}>" in rest and is_over:
            is_written = True
        elif name == "fsync" and f"<{wal.parent}>" in rest and is_over:
            is_named = True
        elif name == "write" and '"ack ' in rest and not resumed:
            assert is_written, f"acknowledged before it was synced: {line}"
            assert is_named, f"acknowledged before its name was synced: {line}"
            count += 1
    return count
