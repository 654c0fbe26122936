"""What the command about projections accepts."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Final

AddCommand = Callable[..., ArgumentParser]
ReadNumber = Callable[[str], int]

LETTERS: Final = 100
"""So many dead letters are listed or replayed unless told."""


def add_projections(command: AddCommand, event_id: ReadNumber, count: ReadNumber) -> None:
    """Add the command; ``event_id`` and ``count`` read a number from 0 and from 1 on."""
    projections = command(
        "projections",
        "Print how projections are, and what they put aside",
        description="Print name, cursor, lag, state and dead letters of every projection that the "
        "server's process runs; or, of a FILE, of those that no program runs just now.",
    )
    projections.add_argument("file", nargs="?", metavar="FILE")
    projections.add_argument(
        "--folder", metavar="DIR", help="where they are; FILE.projections by default"
    )
    letters = projections.add_mutually_exclusive_group()
    letters.add_argument("--dead-letters", metavar="NAME", help="list what this one put aside")
    letters.add_argument(
        "--replay",
        metavar="NAME",
        help="have what this one put aside handed to it again; at a server, for a handler is a "
        "function of the program",
    )
    projections.add_argument(
        "--event", type=event_id, metavar="ID", help="replay this; list from this on"
    )
    projections.add_argument(
        "--count",
        type=count,
        default=LETTERS,
        metavar="N",
        help=f"so many dead letters; {LETTERS} by default",
    )
