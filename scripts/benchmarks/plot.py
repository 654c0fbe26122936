"""The plot: every judged result as a bar, in multiples of its budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from benchmarks.result import MET, Result
from benchmarks.table import number

mpl.use("Agg")

from matplotlib import pyplot as plt


def draw(results: Sequence[Result], path: Path) -> None:
    """Write the plot: to the right of the line the budget is met, whatever its direction."""
    judged = [(result, headroom(result)) for result in results]
    bars = [(result, room) for result, room in judged if room is not None]
    figure, axes = plt.subplots(figsize=(10, 1 + 0.42 * max(1, len(bars))), layout="constrained")
    names = [f"{result.what}\n{number(result.value, result.unit)}" for result, _ in bars]
    colours = ["#2a7f62" if result.verdict == MET else "#b3432b" for result, _ in bars]
    axes.barh(range(len(bars)), [room for _, room in bars], color=colours, height=0.6)
    axes.set_yticks(range(len(bars)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times as good as the budget asks; left of the line it is missed")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def headroom(result: Result) -> float | None:
    """How many times as good as its budget a result is; None if it cannot be said."""
    if result.budget is None:
        return None
    figure = result.ratio if result.budget.of == "ratio" else result.value
    if not figure or not result.budget.limit:
        return None
    quotient = figure / result.budget.limit
    return quotient if result.budget.direction == "at least" else 1 / quotient
