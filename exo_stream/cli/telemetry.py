"""Telemetry as entries: a key per metric, and of two readings only what changed. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from exo_stream.cli.machine import Process, Reading, Traffic, Volume

PREFIX: Final = "telemetry/"
"""Begins every key."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What to write so that the table says what the machine says."""

    puts: list[tuple[bytes, bytes]] = field(default_factory=list)
    deletes: list[bytes] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.puts or self.deletes)


def changes(known: Mapping[bytes, bytes], metrics: Mapping[str, str]) -> Changes:
    """The entries that turn what the table holds into ``metrics``, in key order."""
    wanted = {f"{PREFIX}{name}".encode(): value.encode() for name, value in metrics.items()}
    return Changes(
        [(key, value) for key, value in sorted(wanted.items()) if known.get(key) != value],
        sorted(known.keys() - wanted.keys()),
    )


def metrics(reading: Reading, before: Reading | None) -> dict[str, str]:
    """Every metric by name. Rates need the reading before; without one they are left out."""
    return {
        "host": reading.host,
        "uptime/minutes": str(reading.uptime_seconds // 60),
        **dict(_cpu(reading)),
        **dict(_space("memory", reading.memory)),
        **(dict(_space("swap", reading.swap)) if reading.swap.total else {}),
        **{
            name: value
            for mount, volume in reading.volumes.items()
            for name, value in _space(f"volume/{_named(mount)}", volume)
        },
        **dict(_traffic("disk", "read", "written", reading, before)),
        **dict(_traffic("network", "received", "sent", reading, before)),
        "processes/count": str(reading.process_count),
        **{
            f"processes/top/{place}": _process(process)
            for place, process in enumerate(reading.top, start=1)
        },
    }


def _cpu(reading: Reading) -> Iterator[tuple[str, str]]:
    percents = reading.cpu_percents
    if percents:
        yield "cpu/percent", f"{sum(percents) / len(percents):.1f}"
    for core, percent in enumerate(percents):
        yield f"cpu/{core}/percent", f"{percent:.1f}"
    for minutes, load in zip((1, 5, 15), reading.load, strict=True):
        yield f"load/{minutes}m", f"{load:.2f}"


def _space(name: str, volume: Volume) -> Iterator[tuple[str, str]]:
    yield f"{name}/total_bytes", str(volume.total)
    yield f"{name}/used_bytes", str(volume.used)
    yield f"{name}/free_bytes", str(volume.free)
    used = volume.used + volume.free  # root's reserve is neither
    yield f"{name}/percent", f"{100 * volume.used / used if used else 0:.1f}"


def _named(mount: str) -> str:
    """A mount point as one part of a key."""
    return mount.strip("/").replace("/", "-") or "root"


def _traffic(
    kind: str, inwards: str, outwards: str, reading: Reading, before: Reading | None
) -> Iterator[tuple[str, str]]:
    now: Mapping[str, Traffic] = reading.disks if kind == "disk" else reading.network
    earlier: Mapping[str, Traffic] = {}
    if before is not None:
        earlier = before.disks if kind == "disk" else before.network
    for device, total in now.items():
        yield f"{kind}/{device}/{inwards}_bytes", str(total.inwards)
        yield f"{kind}/{device}/{outwards}_bytes", str(total.outwards)
        if before is not None and device in earlier and reading.at > before.at:
            elapsed, last = reading.at - before.at, earlier[device]
            # A counter that went back was reset: nothing is known of the time between.
            inward, outward = total.inwards - last.inwards, total.outwards - last.outwards
            yield f"{kind}/{device}/{inwards}_rate", f"{max(0, inward) / elapsed:.0f}"
            yield f"{kind}/{device}/{outwards}_rate", f"{max(0, outward) / elapsed:.0f}"


def _process(process: Process) -> str:
    return json.dumps(
        {
            "pid": process.pid,
            "name": process.name,
            "cpu_percent": process.cpu_percent,
            "memory_bytes": process.memory_bytes,
        }
    )
