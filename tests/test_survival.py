"""Followers get every acknowledged batch, or are told that it is gone, whoever dies meanwhile."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from exo_stream.client import connect
from tests.torture.journal import Journal
from tests.torture.life import ROOT, environment
from tests.torture.outages import PATIENCE, Ordeal, Outages, survive, write_all

WRITERS = 3
BATCHES = 70
GUARD_SECONDS = 120

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("keep", [None, 20], ids=["nothing pruned", "pruned all the time"])
async def test_followers_get_exactly_what_was_acknowledged(
    keep: int | None, tmp_path: Path
) -> None:
    """Or an explicit eviction. Connections are cut, followers go and come, the server dies."""
    with trio.fail_after(GUARD_SECONDS):
        followers = await survive(f"survival {keep}", tmp_path, Ordeal(keep=keep))
    assert keep is not None or not any(follower.evicted for follower in followers)
    assert bool(followers[-1].evicted) == (keep is not None)


class Printed:
    """What ``exo-stream follow --json`` has printed, over all its lives, in order."""

    def __init__(self, url: str, cursor_file: Path) -> None:
        self.sequences: list[int] = []
        self._command = [
            *(sys.executable, "-m", "exo_stream", "follow", "--url", url, "--json"),
            *("--cursor-file", str(cursor_file)),
        ]

    async def run(self, dice: random.Random, newest: int) -> None:
        """Follow, and be killed after some lines, until ``newest`` was printed."""
        while newest not in self.sequences:
            process = await trio.lowlevel.open_process(
                self._command, stdout=subprocess.PIPE, cwd=ROOT, env=environment()
            )
            try:
                await self._read(process, dice.randint(20, 60), newest)
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

    async def _read(self, process: trio.Process, lines: int, newest: int) -> None:
        assert process.stdout is not None
        rest = b""
        async for chunk in process.stdout:
            *whole, rest = (rest + bytes(chunk)).split(b"\n")
            for line in whole:  # half a line was never printed, and its cursor never saved
                message = json.loads(line)
                if "sequence" in message and "entries" in message and "type" not in message:
                    self.sequences.append(message["sequence"])
            lines -= len(whole)
            if lines <= 0 or newest in self.sequences:
                process.kill()  # and read on: what is in the pipe was printed


async def test_a_cursor_file_shows_every_batch_although_all_are_killed(tmp_path: Path) -> None:
    """The command line, killed like the server: no gap, and nothing twice but the unfinished."""
    journal = Journal("command line", writers=WRITERS)
    dice = random.Random(journal.seed)
    outages = Outages(tmp_path, journal, dice)
    printed = Printed(outages.url, tmp_path / "cursor")
    newest = WRITERS * BATCHES
    with trio.fail_after(GUARD_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(outages.run, 2)
            async with connect(outages.url, patience=PATIENCE) as client:
                async with trio.open_nursery() as parties:
                    parties.start_soon(printed.run, dice, newest)
                    for writer in range(WRITERS):
                        parties.start_soon(write_all, client, outages, writer, BATCHES)
            nursery.cancel_scope.cancel()
    assert list(dict.fromkeys(printed.sequences)) == list(range(1, newest + 1))
