"""Outages: a server that is killed and comes back, and those who write to it and follow it."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import trio

from exo_stream.cli.cursor_file import CursorFile
from exo_stream.client import Client, connect
from exo_stream.client.address import Address
from exo_stream.client.dialing import dialing
from exo_stream.client.patience import Patience
from exo_stream.errors import BatchEvictedError, ExoStreamError, UnavailableError
from exo_stream.model import Batch, Cursor
from exo_stream.nursery import nursery_unseen
from exo_stream.producers import Producer
from tests.torture import verifier, workload
from tests.torture.child import RETRY_SECONDS, Assignment
from tests.torture.journal import Journal
from tests.torture.life import ROOT, environment

PATIENCE: Final = Patience(pause_seconds_max=0.2)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Outages:
    """A server that is killed ``kills`` times while it is written to and followed."""

    def __init__(self, folder: Path, journal: Journal, dice: random.Random) -> None:
        self.path = folder / "feed.duckdb"
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}/v1/ws"
        self.journal = journal
        self.lives = 0
        self._dice = dice
        self._progress = trio.Event()

    def hear(self, line: str) -> None:
        """Put a line into the journal; whoever waits for acknowledgements may look again."""
        self.journal.hear(line)
        self._progress.set()
        self._progress = trio.Event()

    async def run(
        self, kills: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve, and die, ``kills`` times, each time after some acknowledgements; then serve."""
        for life in range(kills + 1):
            process = await self._start()
            if life == 0:
                task_status.started()
            try:
                if life == kills:
                    await process.wait()
                await self._wait_acknowledged(self._dice.randint(10, 50))
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    assert await process.wait() == -signal.SIGKILL
            await verifier.judge(verifier.copy(self.path, self.path.parent / "copy"), self.journal)

    async def _start(self) -> trio.Process:
        self.lives += 1
        assignment = Assignment(str(self.path), self.journal.seed, [], 0)
        command = [sys.executable, "-m", "tests.torture.server"]
        process = await trio.lowlevel.open_process(
            [*command, json.dumps(asdict(assignment)), str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
        )
        assert process.stdout is not None
        said = b""
        while b"serving" not in said:
            chunk = await process.stdout.receive_some()
            assert chunk, said
            said += bytes(chunk)
        for line in said.decode().splitlines()[:2]:
            self.hear(line)
        return process

    async def _wait_acknowledged(self, count: int) -> None:
        wanted = self.journal.acknowledged + count
        while self.journal.acknowledged < wanted:
            await self._progress.wait()


async def persist(write: Callable[[], Awaitable[int]]) -> int:
    """Ask again until there is an answer, whatever becomes of the server."""
    while True:
        with suppress(ExoStreamError):
            return await write()
        await trio.sleep(RETRY_SECONDS)


async def write_all(client: Client, outages: Outages, writer: int, batches: int) -> None:
    """Write so many batches, each until it is acknowledged."""
    for number in range(batches):
        work = workload.work(outages.journal.seed, writer, number)
        producer = Producer(b"writer %d" % writer, epoch=0, seq=number)
        outages.hear(f"try {writer} {number}")

        async def write(work: workload.Work = work, producer: Producer = producer) -> int:
            return await client.write(puts=work.puts, deletes=work.deletes, producer=producer)

        outages.hear(f"ack {writer} {number} {await persist(write)}")


async def prune_often(client: Client, outages: Outages, keep: int) -> None:
    """Prune the log to about ``keep`` batches, over and over."""
    while True:
        await trio.sleep(5 * RETRY_SECONDS)
        cutoff = outages.journal.everybody_acknowledged() - keep
        if cutoff > 1:
            outages.hear(f"prune {cutoff}")
            with suppress(ExoStreamError):  # its outcome shows in the next life
                await client.prune_batch_log(cutoff)


class Follower:
    """Follows in visits of random length, each ended somehow, and resumes from a cursor file.

    ``sequences`` are those of the batches it was given, ``evicted`` those it was told are gone.
    """

    def __init__(self, outages: Outages, cursors: CursorFile, dice: random.Random) -> None:
        self.sequences: list[int] = []
        self.evicted: set[int] = set()
        self._outages = outages
        self._cursors = cursors
        self._dice = dice
        self._moved = trio.Event()

    async def run(self) -> None:
        """Visit after visit, until cancelled."""
        while True:
            cut = Cut()
            with suppress(UnavailableError):
                async with connect(self._outages.url, patience=PATIENCE, dial=cut.dial) as client:
                    await self._visit(client, cut)

    async def wait_complete(self, newest: int) -> None:
        """Until nothing up to ``newest`` is left to come."""
        while not self.sequences or self.sequences[-1] < newest:
            await self._moved.wait()

    async def _visit(self, client: Client, cut: Cut) -> None:
        cursor = self._cursors.load()
        try:
            async with client.subscribe(after=cursor) as feed:
                for _ in range(self._dice.randint(1, 60)):
                    batch = await feed.__anext__()
                    assert isinstance(batch, Batch)
                    self._take(batch)
                    cursor = batch.cursor
                    self._cursors.save(cursor)
                    if self._dice.random() < 0.05:
                        await cut.cut()  # the same feed goes on over another connection
        except BatchEvictedError as error:
            self._miss(cursor.sequence if cursor else 0, error.oldest_retained)
            self._cursors.save(Cursor(client.log_id, error.oldest_retained - 1))

    def _take(self, batch: Batch) -> None:
        """A batch was delivered; it is whole, and none was left out."""
        self._outages.journal.see(batch.sequence, batch.entries)
        if self.sequences:
            expected = self.sequences[-1] + 1
            assert batch.sequence == expected or expected in self.evicted, batch.sequence
        self.sequences.append(batch.sequence)
        self._moved.set()
        self._moved = trio.Event()

    def _miss(self, after: int, oldest: int) -> None:
        """What follows ``after`` is gone up to ``oldest``: somebody asked for that."""
        assert after + 1 < oldest <= self._outages.journal.floor_asked, (after, oldest)
        self.evicted.update(range(after + 1, oldest))


class Cut:
    """Dials as a client does, and can cut the wire."""

    def __init__(self) -> None:
        self._dial = dialing(None)
        self._stream: trio.abc.Stream | None = None

    async def dial(self, address: Address) -> trio.abc.Stream:
        """A connection, remembered."""
        self._stream = await self._dial(address)
        return self._stream

    async def cut(self) -> None:
        """Close it without a word."""
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)


@dataclass(frozen=True, slots=True)
class Ordeal:
    """How hard it is to be: so many deaths of the server, and so much written meanwhile."""

    kills: int = 4
    writers: int = 3
    batches: int = 70
    followers: int = 3
    keep: int | None = None


async def survive(seed: str, folder: Path, ordeal: Ordeal) -> list[Follower]:
    """Have followers survive it, the last of them one who comes back after a long absence.

    Every follower was given, in order, each batch that was acknowledged, or told it is gone.
    """
    journal = Journal(seed, writers=ordeal.writers)
    dice = random.Random(seed)
    outages = Outages(folder, journal, dice)
    followers = [
        Follower(outages, CursorFile(folder / f"cursor-{number}"), dice)
        for number in range(ordeal.followers)
    ]
    with nursery_unseen():
        async with trio.open_nursery() as nursery:
            await nursery.start(outages.run, ordeal.kills)
            for follower in followers:
                nursery.start_soon(follower.run)
            async with (
                connect(outages.url, patience=PATIENCE) as client,
                trio.open_nursery() as pruners,
            ):
                if ordeal.keep is not None:
                    pruners.start_soon(prune_often, client, outages, ordeal.keep)
                async with trio.open_nursery() as writers:
                    for writer in range(ordeal.writers):
                        writers.start_soon(write_all, client, outages, writer, ordeal.batches)
                cursors = CursorFile(folder / "cursor-of-old")
                cursors.save(Cursor(client.log_id, 0))
                followers.append(Follower(outages, cursors, dice))
                nursery.start_soon(followers[-1].run)
                for follower in followers:
                    await follower.wait_complete(journal.acknowledged)
                nursery.cancel_scope.cancel()
    assert outages.lives == ordeal.kills + 1
    everything = set(range(1, ordeal.writers * ordeal.batches + 1))
    assert set(journal.authors) == everything
    for follower in followers:
        assert set(follower.sequences) | follower.evicted == everything
    return followers
