"""A child that writes, and backs up and restores again and again, until it is killed or done.

It is told a folder, what to do (``backup``, ``full`` or ``restore``), and how large a file may
become, 0 for as large as it likes.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from exo_stream import Platform, open_platform
from exo_stream.backup import restore
from exo_stream.errors import ExoStreamError
from exo_stream.limits import KIB
from tests.backups import KEY, key_of, live, projected
from tests.projections import TABLES, append, see


def say(*words: object) -> None:
    """One line for the parent."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def back_up(folder: Path) -> None:
    """Back up one after another, and write meanwhile."""
    async with projected(folder / "feed.duckdb") as (platform, _):
        say("opened")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, platform)
            for number in range(2):
                for kind, (compress, key) in {"p": (False, None), "e": (True, KEY)}.items():
                    info = await platform.backup_to(
                        folder / f"{kind}{number}", compress=compress, key=key
                    )
                    say("backup", info.path, info.sequence)
            nursery.cancel_scope.cancel()


async def _write(platform: Platform) -> None:
    for number in count(100):
        await live(platform, 1, first=number)


async def back_up_without_space(folder: Path, bytes_max: int) -> None:
    """Back up a platform that needs no disk itself to one that has no space."""
    async with open_platform(":memory:") as platform:
        await live(platform, 5)
        for number in range(60):
            await platform.put_batch([(b"noise/%d" % number, random.randbytes(20 * KIB))])
        limit(bytes_max)
        for name, compress in (("p0", False), ("c0", True)):
            await _fail(platform, folder / name, compress=compress)
        await platform.put_batch([(b"still", b"writes")])
        say("wrote on")
        limit(resource.RLIM_INFINITY)
        with TemporaryDirectory() as tables:
            await _project_without_space(platform, Path(tables), folder / "j0", bytes_max)


async def _project_without_space(
    platform: Platform, tables: Path, directory: Path, bytes_max: int
) -> None:
    async with platform.canonical.projections(tables) as projections:
        projector = await projections.add("seen", see, tables=TABLES)
        await append(platform.canonical, *[random.randbytes(20 * KIB) for _ in range(60)])
        await projector.wait_applied(64)
        async with projector.at_rest():
            pass  # all of it is in the file, so that nothing need be written to that
        limit(bytes_max)
        await _fail(platform, directory, compress=False)
        limit(resource.RLIM_INFINITY)
        await append(platform.canonical, b"one more")
        await projector.wait_applied(65)
        say("projected on")


async def _fail(platform: Platform, directory: Path, *, compress: bool) -> None:
    try:
        await platform.backup_to(directory, compress=compress)
    except ExoStreamError as error:
        say("failed", error.code, error.__cause__ is not None)


def restore_all(folder: Path, bytes_max: int) -> None:
    """Restore every backup there is."""
    limit(bytes_max)
    for path in sorted(folder.iterdir()):
        if (path / "manifest.json").exists() and not path.name.startswith("."):
            try:
                info = restore(path, folder / f"{path.name}.duckdb", key=key_of(path))
                say("restored", info.path, info.sequence)
            except ExoStreamError as error:
                say("failed", error.code, error.__cause__ is not None)


def limit(bytes_max: int) -> None:
    """No file may become larger: to DuckDB and to us that is a full disk."""
    if bytes_max:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, resource.RLIM_INFINITY))


if __name__ == "__main__":
    place, verb, most = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if verb == "backup":
        trio.run(back_up, place)
    elif verb == "full":
        trio.run(back_up_without_space, place, most)
    else:
        restore_all(place, most)
