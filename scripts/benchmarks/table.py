"""The table: the results as Markdown, for a terminal and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.result import Result

HEADINGS = ("row", "what", "exo-stream", "best", "peers", "ratio", "budget", "verdict")


def render(results: Sequence[Result]) -> str:
    """The results as a Markdown table, with every note below it."""
    lines = [HEADINGS, tuple("-" * len(heading) for heading in HEADINGS), *map(_cells, results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    table[1] = table[1].replace(" ", "-")
    notes = [f"- {result.row}, {result.what}: {result.note}" for result in results if result.note]
    return "\n".join([*table, "", *notes])


def number(figure: float | None, unit: str = "") -> str:
    """A figure with about three digits that mean something, and its unit."""
    if figure is None:
        return "–"
    if abs(figure) >= 1_000_000:
        text = f"{figure / 1_000_000:,.2f} M"
    elif abs(figure) >= 10_000:
        text = f"{figure / 1_000:,.0f} k"
    elif abs(figure) >= 100:
        text = f"{figure:,.0f}"
    else:
        text = f"{figure:.3g}"
    return f"{text} {unit}".strip()


def _cells(result: Result) -> tuple[str, ...]:
    return (
        result.row,
        result.what,
        number(result.value, result.unit),
        number(result.best),
        "; ".join(f"{name}: {_peer(rounds)}" for name, rounds in result.peers.items()),
        f"{result.ratio:.2f} ×" if result.ratio is not None else "",
        str(result.budget or ""),
        f"**{result.verdict}**" if result.verdict == "missed" else result.verdict,
    )


def _peer(rounds: Sequence[float]) -> str:
    return number(median(rounds)) if rounds else "not installed"
