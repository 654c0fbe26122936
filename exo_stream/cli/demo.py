"""The demo: a file, a server, this machine's telemetry and its follower, in one process."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from exo_stream.cli.arguments import DEMO_FILE, URL
from exo_stream.cli.dashboard import Caption, Followed, frame
from exo_stream.cli.exit_codes import OK
from exo_stream.cli.follow import FeedPrinter
from exo_stream.cli.machine import Machine, Reading
from exo_stream.cli.output import Output, is_colourful
from exo_stream.cli.redrawn import Redrawn
from exo_stream.cli.serve import url_of
from exo_stream.cli.telemetry import PREFIX, changes, metrics
from exo_stream.errors import StoreFullError
from exo_stream.feed import FeedMessage, SnapshotBegin, SnapshotEnd, SnapshotPage
from exo_stream.model import Batch
from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.server.serve import serve

log = structlog.get_logger()

SETTLING_SECONDS: Final = 0.25
"""Before the first reading: a percentage of no time at all says nothing."""


async def demo(args: Namespace, out: Output) -> int:
    """Publish and follow until cancelled, or until there was as much as was asked for."""
    state = Followed()
    host, port = args.listen
    try:
        async with open_platform(args.file) as platform, trio.open_nursery() as nursery:
            address = await nursery.start(partial(serve, platform, host=host, port=port))
            nursery.start_soon(publish_telemetry, platform, args.interval)
            viewer = _viewer(out, state, caption(args, url_of(*address)))
            if args.seconds is not None:
                nursery.cancel_scope.deadline = trio.current_time() + args.seconds
            await follow(platform, viewer, args.count)
            nursery.cancel_scope.cancel()
    finally:
        if state.sequence and not out.is_json:
            out.line(f"stopped at sequence {state.sequence:,}; run it again, and it goes on there")
    return OK


async def publish_telemetry(platform: Platform, interval: float) -> None:
    """Write what changed about this machine, one batch every ``interval`` seconds."""
    prefix = PREFIX.encode()
    async with platform.scan(prefix, prefix + b"\xff") as rows:
        known = {key: value async for key, value in rows}
    machine = await trio.to_thread.run_sync(Machine)
    before: Reading | None = None
    due = trio.current_time() + min(interval, SETTLING_SECONDS)
    while True:
        await trio.sleep_until(due)
        reading = await trio.to_thread.run_sync(machine.read)
        changed = changes(known, metrics(reading, before))
        before = reading
        if changed:
            try:
                await platform.write(puts=changed.puts, deletes=changed.deletes)
            except StoreFullError as error:
                log.warning("telemetry skipped", reason=str(error))
            else:
                known |= changed.puts
                for key in changed.deletes:
                    del known[key]
        due = max(due + interval, trio.current_time())


async def follow(platform: Platform, viewer: Viewer, count: int | None) -> None:
    """Show the table, then every batch of telemetry, ``count`` of them if given."""
    async with platform.subscribe(prefix=PREFIX.encode(), snapshot=True) as feed:
        async for message in feed.messages():
            viewer.take(message)
            # A terminal may be stopped (Ctrl-S); the server must not stop with it.
            await trio.to_thread.run_sync(viewer.show, message, abandon_on_cancel=True)
            if isinstance(message, Batch) and viewer.state.batches == count:
                return


class Viewer:
    """What shows the feed, a line an entry, and keeps what it says."""

    def __init__(self, out: Output, state: Followed) -> None:
        self.state = state
        self._out = out
        self._printer = FeedPrinter(out)

    def take(self, message: FeedMessage) -> None:
        """Learn from a message."""
        match message:
            case SnapshotBegin(sequence):
                self.state.begin(sequence)
            case SnapshotPage(entries=entries):
                self.state.take(entries)
            case Batch(sequence, committed_at, entries):
                self.state.take_batch(sequence, committed_at, entries)
            case _:
                pass

    def show(self, message: FeedMessage) -> None:
        """Print the message."""
        self._printer.hand_over(message)


class LiveViewer(Viewer):
    """Shows the state that the feed adds up to, redrawn in place with every batch."""

    def __init__(self, out: Output, state: Followed, caption: Caption) -> None:
        super().__init__(out, state)
        self._caption = caption
        self._redrawn = Redrawn()

    def show(self, message: FeedMessage) -> None:
        """Draw the state, if the message has changed it."""
        if isinstance(message, Batch | SnapshotEnd):
            width, height = size = self._out.size
            lines = frame(
                self.state, self._caption, width=width, height=height, color=is_colourful()
            )
            self._out.write(self._redrawn.draw(lines, size=size).encode())


def _viewer(out: Output, state: Followed, caption: Caption) -> Viewer:
    if out.is_terminal:
        return LiveViewer(out, state, caption)
    if not out.is_json:
        out.line(f"# {caption.path} on {caption.url}, process {caption.pid}")
        for line in caption.lines():
            out.line(f"# {line}")
    return Viewer(out, state)


def caption(args: Namespace, url: str) -> Caption:
    """What to try from a second terminal, in commands that work from this folder."""
    called = Path(sys.argv[0]).absolute()
    program = "python -m exo_stream" if called.name == "__main__.py" else _from_here(called)
    run = called.parents[2] / "scripts" / "run"
    again = [_from_here(run)] if run.exists() else [*program.split(), "demo"]
    again += [args.file] if args.file != DEMO_FILE else []
    again += ["--listen", str(args.listen)] if url != URL else []
    where = "" if url == URL else f" --url {url}"
    return Caption(
        path=args.file,
        url=url,
        pid=os.getpid(),
        follow=f"{program} follow{where} --cursor-file demo.cursor",
        again=shlex.join(again),
    )


def _from_here(path: Path) -> str:
    """A program as one would call it here: by its name if the shell finds it, else by its path."""
    if shutil.which(path.name) == str(path):
        return path.name
    relative = os.path.relpath(path)
    relative = relative if relative.startswith("../") else f"./{relative}"
    return min(relative, str(path), key=len)
