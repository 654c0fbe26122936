"""The documentation as its reader would try it: blocks found in a page, and a terminal to run them.

``tests/test_docs.py`` says which rules a page must keep; ``docs/testing.md`` tells its authors.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

ROOT: Final = Path(__file__).parent.parent
FENCE: Final = re.compile(r"^(?P<indent>\s*)(?P<ticks>`{3,}|~{3,})\s*(?P<language>.*?)\s*$")
REMARK: Final = re.compile(r"^\s*<!-- check: (.*?) -->\s*$")

DOCUMENTED_PORT: Final = "4437"
"""In every block this port becomes one that is free, so that pages run beside a real server."""

GUARD_SECONDS: Final = 60
"""No example takes as long; one that does hangs."""

LINGER_SECONDS: Final = 2
"""How long a command that has shown all its output may take to end before it gets a Ctrl-C."""

NEVER_RUN: Final = re.compile(
    r"^(\./scripts/|just\b|git clone\b|cd\b|pip\b|uv\b|python3? -m venv\b)"
)
"""What sets things up: whoever runs the tests has done it. Checked to exist, and left alone."""

WITHOUT_SERVER: Final = re.compile(
    r"\bexo-stream( --?\w|$| (verify|repair-wal|compact|backup|restore|prune-backups|bench|demo)\b)"
)
NEEDS_THE_FILE: Final = re.compile(r"\bexo-stream (verify|repair-wal|compact|backup)\b")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where it stands, what it is, and the remark in the comment above it."""

    page: Path
    line: int
    language: str
    text: str
    remark: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"

    def remarked(self, word: str) -> str | None:
        """What the remark says after ``until``, ``exits`` or ``not run,``, if it begins so."""
        return self.remark[len(word) :].strip() if self.remark.startswith(word + " ") else None


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of ``page``, in order."""
    lines = enumerate(page.read_text().splitlines(), start=1)
    remark = ""
    for number, line in lines:
        if said := REMARK.match(line):
            remark = said[1]
        elif opening := FENCE.match(line):
            indent, ticks = len(opening["indent"]), opening["ticks"]
            text: list[str] = []
            for _, inner in lines:
                if inner.strip().startswith(ticks) and not inner.strip().strip(ticks[0]):
                    break
                text.append(inner[indent:])
            yield Block(page, number, opening["language"], "\n".join(text), remark)
            remark = ""
        elif line.strip():
            remark = ""


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Each ``$ command`` of a console block, with the lines of output shown below it."""
    command, shown = "", list[str]()
    for line in block.text.splitlines():
        if command.endswith("\\"):
            command = command[:-1].rstrip() + " " + line.removeprefix("> ").strip()
        elif line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line.removeprefix("$ "), []
        elif line.strip():
            shown.append(line)
    if command:
        yield command, shown


def shows(output: str, expected: list[str]) -> bool:
    """Whether ``output`` has the expected lines in order; ``…`` stands for anything."""
    lines = iter(output.splitlines())
    for wanted in expected:
        words = " ".join(wanted.split())
        pattern = re.escape(words).replace(re.escape("…"), ".*").replace(re.escape("..."), ".*")
        if not any(re.fullmatch(pattern, " ".join(line.split())) for line in lines):
            return False
    return True


@dataclass(slots=True)
class Terminal:
    """A folder, a free port and a shell; the server that the page talks to, if it has one."""

    folder: Path
    nursery: trio.Nursery
    port: str
    server: trio.Process | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "EXO_STREAM_URL": f"ws://127.0.0.1:{self.port}/v1/ws",
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        }

    async def python(self, block: Block) -> None:
        """Run a block as a program of its own, in an empty folder."""
        text = self.translated(block.text)
        if "connect(" in block.text and "open_platform(" not in block.text:
            await self.serve()  # a client; whoever opens a platform brings the other side along
        folder = self.folder / f"line{block.line}"
        folder.mkdir()
        (folder / "example.py").write_text(text)
        until = block.remarked("until")
        await self.run(
            f"exec {sys.executable} example.py",
            shown=[f"…{until}…"] if until else [],
            folder=folder,
        )

    async def console(self, block: Block) -> None:
        """Run a block's commands one after another, and compare what they print."""
        said = list(commands(block))
        assert said, f"{block.place}: a console block has lines that begin with `$ `"
        for number, (command, shown) in enumerate(said, start=1):
            if NEVER_RUN.match(command):
                continue
            if command.startswith("exo-stream serve"):
                await self.serve(command)
                continue
            if NEEDS_THE_FILE.search(command):
                await self.stop()
            elif "exo-stream" in command and not WITHOUT_SERVER.search(command):
                await self.serve()
            last = number == len(said)
            await self.run(
                self.translated(command),
                shown=[self.translated(line) for line in shown],
                folder=self.folder,
                code=int(block.remarked("exits") or 0) if last else 0,
            )

    def translated(self, text: str) -> str:
        return text.replace(DOCUMENTED_PORT, self.port)

    async def run(self, command: str, *, shown: list[str], folder: Path, code: int = 0) -> None:
        """Run ``command`` to its end, or until it has shown what the page shows."""
        output, interrupted = b"", False
        async with self.started(command, folder) as process:
            assert process.stdout is not None
            with trio.fail_after(GUARD_SECONDS), trio.CancelScope() as lingering:
                async for chunk in process.stdout:
                    output += chunk
                    if shown and shows(output.decode(errors="replace"), shown):
                        lingering.deadline = trio.current_time() + LINGER_SECONDS
                await process.wait()
            if lingering.cancelled_caught:
                interrupted = True
                signal_group(process, signal.SIGINT)
            with trio.fail_after(GUARD_SECONDS):
                await process.wait()
        said = output.decode(errors="replace")
        allowed = {0, -signal.SIGINT, 128 + signal.SIGINT} if interrupted else {code}
        assert process.returncode in allowed, f"$ {command}\n{said}\nexit {process.returncode}"
        assert shows(said, shown), f"$ {command}\n{said}\ninstead of\n" + "\n".join(shown)

    async def serve(self, command: str = "") -> None:
        """Start the server a page names, or one of our own if it needs one and names none."""
        if self.server is not None and not command:
            return
        await self.stop()
        command = self.translated(
            command.removesuffix("&").strip() or "exo-stream serve ours.duckdb"
        )
        if "--listen" not in command:
            command += f" --listen 127.0.0.1:{self.port}"
        self.server = await self.nursery.start(self.keep, f"exec {command}")

    async def keep(
        self,
        command: str,
        task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hold a server up; it has started when its port answers."""
        async with self.started(command, self.folder, quiet=True) as process:
            with trio.fail_after(GUARD_SECONDS):
                while True:
                    assert process.poll() is None, f"$ {command}\nexit {process.returncode}"
                    try:
                        stream = await trio.open_tcp_stream("127.0.0.1", int(self.port))
                    except OSError:
                        await trio.sleep(0.05)  # another process: there is no event to wait for
                    else:
                        await stream.aclose()
                        break
            task_status.started(process)
            await process.wait()

    async def stop(self) -> None:
        """End the server as its user would, with a Ctrl-C."""
        if self.server is None:
            return
        signal_group(self.server, signal.SIGINT)
        with trio.fail_after(GUARD_SECONDS):
            assert await self.server.wait() in {0, -signal.SIGINT, 128 + signal.SIGINT}
        self.server = None

    def started(
        self, command: str, folder: Path, *, quiet: bool = False
    ) -> AbstractAsyncContextManager[trio.Process]:
        return child(command, folder, self.environment, quiet=quiet)


def signal_group(process: trio.Process, number: signal.Signals) -> None:
    if process.poll() is None:
        os.killpg(process.pid, number)


@asynccontextmanager
async def child(
    command: str, folder: Path, environment: dict[str, str], *, quiet: bool
) -> AsyncIterator[trio.Process]:
    """A shell command in a process group of its own, of which nothing is left afterwards."""
    process = await trio.lowlevel.open_process(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
        stderr=None if quiet else subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        signal_group(process, signal.SIGKILL)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + GUARD_SECONDS):
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


@asynccontextmanager
async def open_terminal(folder: Path) -> AsyncIterator[Terminal]:
    """A terminal in ``folder``, with a port that was free a moment ago."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = str(listener.socket.getsockname()[1])
    await listener.aclose()
    async with trio.open_nursery() as nursery:
        terminal = Terminal(folder, nursery, port)
        yield terminal
        await terminal.stop()
