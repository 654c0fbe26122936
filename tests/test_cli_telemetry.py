"""Telemetry: what is read becomes entries, and only what changed is written."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from exo_stream.cli.machine import Machine, Process, Reading, Traffic, Volume
from exo_stream.cli.telemetry import PREFIX, changes, metrics

READING = Reading(
    at=10.0,
    host="ada",
    uptime_seconds=121,
    cpu_percents=(10.0, 20.0),
    load=(0.5, 0.25, 0.125),
    memory=Volume(100, 25, 75),
    swap=Volume(0, 0, 0),
    volumes={"/": Volume(1000, 400, 500), "/var/lib": Volume(10, 0, 10)},
    disks={"sda": Traffic(100, 200)},
    network={"eth0": Traffic(1000, 0)},
    process_count=3,
    top=(Process(1, "init", 1.5, 4096),),
)


def test_every_metric_has_a_key_of_its_own() -> None:
    told = metrics(READING, None)
    assert told["cpu/percent"] == "15.0"
    assert told["cpu/1/percent"] == "20.0"
    assert told["load/15m"] == "0.12"
    assert told["memory/percent"] == "25.0"
    volume = "volume/root"
    assert told[f"{volume}/percent"] == "44.4"
    assert told["volume/var-lib/free_bytes"] == "10"
    assert told["uptime/minutes"] == "2"
    assert '"name": "init"' in told["processes/top/1"]
    assert not any(name.startswith("swap/") or name.endswith("_rate") for name in told)


def test_a_rate_is_of_the_time_between_two_readings() -> None:
    later = replace(READING, at=12.0, network={"eth0": Traffic(3000, 0), "wlan0": Traffic(1, 1)})
    told = metrics(later, READING)
    assert told["network/eth0/received_rate"] == "1000"
    assert told["disk/sda/written_rate"] == "0"
    assert "network/wlan0/received_rate" not in told


def test_a_counter_that_was_reset_gives_no_negative_rate() -> None:
    later = replace(READING, at=11.0, disks={"sda": Traffic(0, 0)})
    assert metrics(later, READING)["disk/sda/read_rate"] == "0"


def test_a_machine_without_cores_or_space_divides_by_nothing() -> None:
    told = metrics(replace(READING, cpu_percents=(), memory=Volume(0, 0, 0)), READING)
    assert "cpu/percent" not in told
    assert told["memory/percent"] == "0.0"
    assert "network/eth0/sent_rate" not in told  # no time has passed


texts = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("123"))


@given(texts, texts)
def test_the_table_says_what_the_machine_says_and_nothing_is_written_twice(
    before: dict[str, str], after: dict[str, str]
) -> None:
    def stored(named: dict[str, str]) -> dict[bytes, bytes]:
        return {f"{PREFIX}{name}".encode(): value.encode() for name, value in named.items()}

    table = stored(before)
    change = changes(table, after)
    assert all(table.get(key) != value for key, value in change.puts)
    table |= change.puts
    for key in change.deletes:
        del table[key]
    assert table == stored(after)
    assert bool(change) == (before != after)


def test_this_machine_can_be_read() -> None:
    reading = Machine().read()
    assert reading.cpu_percents
    assert reading.memory.total > 0
    assert "/" in reading.volumes
    assert reading.process_count >= 1
    assert metrics(reading, None)
