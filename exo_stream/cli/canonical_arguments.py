"""What the commands about events, the seal and pauses accept."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Final

AddCommand = Callable[..., ArgumentParser]
ReadNumber = Callable[[str], int]

LAST_EVENTS: Final = 10


def add_canonical(command: AddCommand, event_id: ReadNumber, count: ReadNumber) -> None:
    """Add the commands; ``event_id`` and ``count`` read a number from 0 and from 1 on."""
    events = command(
        "events",
        "Print events of the canonical store",
        description="get: print an event, or those from FIRST up to and with LAST. tail: print the "
        f"last {LAST_EVENTS} events, or those from an id on, then, of a server, every new one.",
    )
    events.add_argument("verb", choices=["tail", "get"])
    events.add_argument("first", nargs="?", type=event_id, metavar="FIRST", help="an event id")
    events.add_argument("last", nargs="?", type=event_id, metavar="LAST")
    events.add_argument("--count", type=count, metavar="N", help="end after N events")
    seal = command(
        "seal",
        "Refuse every canonical write from now on, also after a restart",
        description="Refuse every canonical write from now on, also after a restart, and print the "
        "id of the last event. A store without events is not sealed.",
    )
    unseal = command("unseal", "Take canonical writes again")
    for one in (events, seal, unseal):
        one.add_argument("--file", metavar="FILE", help="one that no server has open")
    pause = command(
        "pause",
        "Refuse canonical writes until somebody resumes them",
        description="Refuse canonical writes until somebody resumes them, or the server restarts; "
        "return once those under way are over.",
    )
    resume = command(
        "resume",
        "Take writes again that somebody paused from afar",
        description="End every pause that was asked for from afar, and print how many.",
    )
    for pausing in (pause, resume):
        pausing.add_argument("--all", action="store_true", help="the writes of every face")
