"""A row: a measurement that runs in a process of its own and yields one or more results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.result import Result
from benchmarks.scale import Scale


@dataclass(frozen=True, slots=True)
class Setting:
    """What a row is given: how much to do, and an empty folder that is removed afterwards."""

    scale: Scale
    folder: Path


Measure = Callable[[Setting], Iterator[Result]]


@dataclass(frozen=True, slots=True)
class Row:
    """Its name on the command line, what it measures, and the module whose ``measure`` does.

    A quick run leaves out what ``is_long``, unless it is asked for by its name.
    """

    name: str
    what: str
    module: str
    is_long: bool = False
