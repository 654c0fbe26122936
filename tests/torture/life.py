"""A life: one child from its start to its death, and the ways to die."""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from exo_stream.nursery import nursery_unseen

ROOT: Final = Path(__file__).parent.parent.parent

LIFE_SECONDS_MAX: Final = 120
"""A guard against hanging."""

SYSCALLS: Final = ("fdatasync", "write", "pwrite64", "fsync", "unlink", "rename", "ftruncate")
"""Whatever changes a file or makes a change last; a commit is a write and an fdatasync."""


@dataclass(frozen=True, slots=True)
class AtSyscall:
    """Killed on entering the ``count``-th call of this name in one thread."""

    name: str
    count: int

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command under strace, which kills it."""
        return under_strace(command, self.injection)

    @property
    def injection(self) -> str:
        """In strace's words."""
        return f"{self.name}:signal=SIGKILL:when={self.count}"


@dataclass(frozen=True, slots=True)
class AtMoment:
    """Killed some seconds after the ``lines``-th line it said."""

    lines: int
    seconds: float

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command as it is."""
        return list(command)


@dataclass(frozen=True, slots=True)
class Fault:
    """Not a death, but a call that fails: ``fdatasync:error=EIO:when=9``, on ``path`` only."""

    injection: str
    path: Path | None = None

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command under strace, which makes the call fail."""
        return under_strace(command, self.injection, path=self.path)


Death = AtSyscall | AtMoment | Fault


@dataclass(frozen=True, slots=True)
class Ended:
    """How a life ended: the last line said, how many there were, what it wrote to its log."""

    killed: bool
    last_line: str
    lines: int
    log: str


def under_strace(command: Sequence[str], injection: str, *, path: Path | None = None) -> list[str]:
    """The command under strace with a fault injected; on calls that touch ``path`` only."""
    name = injection.partition(":")[0]
    only = ["-P", str(path)] if path else []
    strace = ["strace", "-f", "-qq", *only, "-e", f"trace={name}", "-e", f"inject={injection}"]
    return [*strace, "-e", "signal=none", "-o", os.devnull, *command]


def can_trace() -> bool:
    """Whether strace is installed and allowed to trace."""
    if shutil.which("strace") is None:
        return False
    attempt = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False)
    return attempt.returncode == 0


def environment() -> dict[str, str]:
    """Ours, but a child that is to be killed measures no coverage: it could not report it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def some_death(dice: random.Random, *, traceable: bool, unborn: bool) -> Death:
    """A way to die: at a system call, early ones oftener than late; or at a moment.

    A file that is ``unborn`` has its creation before it, where a call or two more are made.
    """
    if traceable and unborn:
        name = dice.choice(SYSCALLS)
        return AtSyscall(name, 1 if name == "rename" else dice.randint(1, 5))
    if traceable and dice.random() < 0.6:
        count = math.ceil(math.exp(dice.uniform(0, math.log(150))))
        name = dice.choice([name for name in SYSCALLS if name != "rename"])
        rare = name in ("unlink", "ftruncate", "fsync")
        return AtSyscall(name, max(1, count // 12) if rare else count)
    if dice.random() < 0.15:
        return AtMoment(1, dice.uniform(0, 0.3))  # while it opens the file
    return AtMoment(dice.randint(2, 900), dice.uniform(0, 0.01))


async def live(command: Sequence[str], hear: Callable[[str], None], death: Death | None) -> Ended:
    """Start the command, hear what it says until its pipe is closed, and see to its death."""
    wrapped = death.wrap(command) if death else list(command)
    with trio.fail_after(LIFE_SECONDS_MAX):
        process = await trio.lowlevel.open_process(
            wrapped, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment()
        )
        try:
            ended = await _hear_out(process, hear, death)
        finally:
            process.kill()  # nothing to do if it has ended
            with trio.CancelScope(shield=True):
                await process.wait()
    return ended


async def _hear_out(
    process: trio.Process, hear: Callable[[str], None], death: Death | None
) -> Ended:
    assert process.stdout is not None
    assert process.stderr is not None
    lines = _Lines(hear)
    errors = _Collected()
    with nursery_unseen():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(errors.collect, process.stderr)
            if isinstance(death, AtMoment):
                nursery.start_soon(_kill_at, lines, death)
            await lines.collect(process.stdout)
            code = await process.wait()
            lines.over()
    return Ended(
        killed=code in (-signal.SIGKILL, 128 + signal.SIGKILL),
        last_line=lines.last,
        lines=lines.count,
        log=errors.text,
    )


async def _kill_at(lines: _Lines, death: AtMoment) -> None:
    await lines.wait_count(death.lines)
    await trio.sleep(death.seconds)
    if not lines.ended:
        assert lines.pid
        os.kill(lines.pid, signal.SIGKILL)


class _Collected:
    def __init__(self) -> None:
        self.text = ""

    async def collect(self, stream: trio.abc.ReceiveStream) -> None:
        async for chunk in stream:
            self.text += bytes(chunk).decode(errors="replace")


class _Lines:
    """The whole lines that a child has said; half a line was never said."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self.count = 0
        self.last = ""
        self.pid = 0
        self.ended = False
        self._hear = hear
        self._changed = trio.Event()

    async def collect(self, stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        async for chunk in stream:
            *whole, rest = (rest + bytes(chunk)).split(b"\n")
            for line in whole:
                self._take(line.decode())

    def _take(self, line: str) -> None:
        self.count += 1
        self.last = line
        if line.startswith("started "):
            self.pid = int(line.split()[1])
        self._hear(line)
        self._ring()

    def over(self) -> None:
        self.ended = True
        self._ring()

    def _ring(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_count(self, count: int) -> None:
        while self.count < count and not self.ended:
            await self._changed.wait()
