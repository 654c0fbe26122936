"""The machine and the versions that a run's figures belong to."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

PACKAGES: Final = ("duckdb", "trio", "trio-websocket", "cbor2")


def describe(folder: Path) -> dict[str, str]:
    """Cores, memory, the file system of ``folder``, and versions; never the machine's name."""
    return {
        "cores": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "file system": _file_system(folder),
        "load before": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        **{peer: peer_version(peer) for peer in ("redis-server", "nats-server")},
    }


def peer_version(program: str) -> str:
    """What the installed ``program`` says its version is."""
    found = find_peer(program)
    if found is None:
        return "not installed"
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return " ".join(word for word in told.split() if any(map(str.isdigit, word)))[:40]


def find_peer(program: str) -> str | None:
    """The path of a peer's server; Debian keeps some of them where only root looks."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def _processor() -> str:
    with Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    mounted = [
        part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)
    ]
    return max(mounted, key=lambda part: len(part.mountpoint)).fstype if mounted else "unknown"
