"""Rounds: exo-stream and its peers by turns, so that a noisy moment hits them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

OURS: Final = "exo-stream"

Contender = Callable[[], float]


def alternate(
    rounds: int, contenders: Mapping[str, Contender | None]
) -> tuple[list[float], dict[str, list[float]]]:
    """What each contender gave in each round: ours, and the peers by name.

    One round before does not count: it warms up files, sockets and branch predictors. A contender
    that is None is not installed, and gives nothing.
    """
    given: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contend in contenders.items():
            if contend is not None:
                figure = contend()
                if number > 0:
                    given[name].append(figure)
    return given.pop(OURS), given
