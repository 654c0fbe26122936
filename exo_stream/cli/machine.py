"""This machine, read with psutil: counters and sizes as they are at one moment."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

DEVICES_MAX: Final = 8
"""Of each kind, so that a host with a hundred virtual disks does not fill the screen."""
TOP_MAX: Final = 5
"""Processes that use the most."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A mounted file system, in bytes."""

    total: int
    used: int
    free: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that went in and out of a device since the machine started."""

    inwards: int
    outwards: int


@dataclass(frozen=True, slots=True)
class Process:
    """One process; ``cpu_percent`` of one core, since the reading before."""

    pid: int
    name: str
    cpu_percent: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine at one moment; ``at`` is a monotonic number of seconds."""

    at: float
    host: str
    uptime_seconds: int
    cpu_percents: tuple[float, ...]
    load: tuple[float, float, float]
    memory: Volume
    swap: Volume
    volumes: Mapping[str, Volume]
    disks: Mapping[str, Traffic]
    network: Mapping[str, Traffic]
    process_count: int
    top: tuple[Process, ...]


class Machine:
    """Reads the machine it runs on. Percentages are of the time since the reading before."""

    def __init__(self) -> None:
        self._prime()

    def _prime(self) -> None:
        """The first answer of psutil to these is always 0."""
        psutil.cpu_percent(percpu=True)
        _processes()

    def read(self) -> Reading:
        """Everything, now. It takes some milliseconds for every hundred processes."""
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        processes = _processes()
        busiest = sorted(processes, key=lambda p: (-p.cpu_percent, -p.memory_bytes, p.pid))
        return Reading(
            at=time.monotonic(),
            host=socket.gethostname(),
            uptime_seconds=int(time.clock_gettime(time.CLOCK_BOOTTIME)),
            cpu_percents=tuple(psutil.cpu_percent(percpu=True)),
            load=os.getloadavg(),
            memory=Volume(memory.total, memory.total - memory.available, memory.available),
            swap=Volume(swap.total, swap.used, swap.free),
            volumes=_volumes(),
            disks=_disks(),
            network=_network(),
            process_count=len(processes),
            top=tuple(busiest[:TOP_MAX]),
        )


def _processes() -> list[Process]:
    found = []
    for process in psutil.process_iter(["name", "cpu_percent", "memory_info"]):
        known = process.info
        memory = known["memory_info"]
        if memory is not None:  # not one that may not be looked at, or that has just ended
            found.append(
                Process(process.pid, known["name"], known["cpu_percent"] or 0.0, memory.rss)
            )
    return found


def _volumes() -> dict[str, Volume]:
    """By mount point; each device once, where it is mounted first; files mounted are left out."""
    found, seen = dict[str, Volume](), set[str]()
    mounts = [(part.device, part.mountpoint) for part in psutil.disk_partitions()]
    for device, mount in [*mounts, ("", "/")]:
        if device in seen or mount in found or not Path(mount).is_dir():
            continue
        try:
            usage = psutil.disk_usage(mount)
        except OSError:
            continue  # gone, or not ours to look at
        seen.add(device)
        found[mount] = Volume(usage.total, usage.used, usage.free)
        if len(found) == DEVICES_MAX:
            break
    return found


def _disks() -> dict[str, Traffic]:
    """By device; those that were used since the machine started."""
    try:
        counters = psutil.disk_io_counters(perdisk=True)
    except (OSError, NotImplementedError):
        # OSError: a container in which the counters may not be read. The other is no stub of ours:
        # psutil raises it in a container that shows neither /proc/diskstats nor /sys/block.
        return {}
    used = {
        name: Traffic(io.read_bytes, io.write_bytes)
        for name, io in sorted(counters.items())
        if io.read_bytes + io.write_bytes and not name.startswith(("loop", "ram"))
    }
    return dict(list(used.items())[:DEVICES_MAX])


def _network() -> dict[str, Traffic]:
    """By interface; those that carried something since the machine started."""
    try:
        counters = psutil.net_io_counters(pernic=True)
    except OSError:
        return {}  # a container without /proc/net/dev
    used = {
        name: Traffic(io.bytes_recv, io.bytes_sent)
        for name, io in sorted(counters.items())
        if io.bytes_recv + io.bytes_sent
    }
    return dict(list(used.items())[:DEVICES_MAX])
