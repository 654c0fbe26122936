"""The demo's picture: the state a follower holds, and how it looks on a terminal. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exo_stream.cli.telemetry import PREFIX
from exo_stream.cli.wording import readable, size
from exo_stream.model import Entry

BAR_WIDTH: Final = 10
CELL_WIDTH: Final = 60
"""One column of metrics: name, value, and the sequence that wrote it."""

_NUMBER: Final = re.compile(rb"(\d+)")


@dataclass(slots=True)
class Followed:
    """What a follower of the feed knows: each key's value, and the sequence that wrote it.

    A snapshot does not say which batch wrote a value, so there the sequence is 0.
    """

    rows: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    sequence: int = 0
    committed_at: int = 0
    batches: int = 0
    changed: frozenset[bytes] = frozenset()

    def begin(self, sequence: int) -> None:
        """A snapshot begins: what an earlier one brought is gone."""
        self.rows.clear()
        self.sequence = sequence

    def take(self, entries: Sequence[Entry], sequence: int = 0) -> None:
        """Apply some entries, of a page of the snapshot or of a batch."""
        for _, key, value in entries:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = (value, sequence)

    def take_batch(self, sequence: int, committed_at: int, entries: Sequence[Entry]) -> None:
        """Apply one batch."""
        self.take(entries, sequence)
        self.sequence, self.committed_at = sequence, committed_at
        self.batches += 1
        self.changed = frozenset(key for _, key, _ in entries)


@dataclass(frozen=True, slots=True)
class Caption:
    """What stands around the table: where this is, and what to try."""

    path: str
    url: str
    pid: int
    follow: str
    again: str

    def lines(self) -> list[str]:
        """How to follow from a second terminal, and how to kill and resume."""
        return [
            f"follow   {self.follow}",
            f"kill     kill -9 {self.pid}",
            f"resume   {self.again}   # and the follower goes on where it was",
        ]


def frame(state: Followed, caption: Caption, *, width: int, height: int, color: bool) -> list[str]:
    """The picture as lines that fit a terminal of this size."""
    console = Console(
        file=StringIO(),
        width=max(20, width),
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
    )
    header = [_title(caption), _status(state), Text()]
    footer = [Text(line, style="dim") for line in (*caption.lines(), "stop     Ctrl-C")]
    # Commands are there to be copied: folded where they are too long, never cut.
    folded = [line for text in footer for line in text.wrap(console, console.width)]
    room = max(1, height - 1 - len(header) - 1 - len(folded))
    for renderable in (*header, _metrics(state, console.width, room), Text(), *folded):
        console.print(renderable, no_wrap=True, overflow="ellipsis", crop=True)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()[: height - 1]


def _title(caption: Caption) -> Text:
    where = f"  {caption.path} · {caption.url} · process {caption.pid}"
    return Text.assemble(("exo-stream", "bold"), (where, ""))


def _status(state: Followed) -> Text:
    time = datetime.fromtimestamp(state.committed_at / 1e6).astimezone()
    told = f"{time:%H:%M:%S} · " if state.committed_at else ""
    return Text.assemble(
        ("sequence ", "dim"),
        (f"{state.sequence:,}", "bold green"),
        (f" · {told}{len(state.changed)} of {len(state.rows)} keys changed", "dim"),
        (" · on the right: written at sequence", "dim"),
    )


def _metrics(state: Followed, width: int, room: int) -> Table:
    """Every key in order, in as many columns as fit side by side and are needed."""
    keys = sorted(state.rows, key=_natural)
    side_by_side = max(1, min(width // CELL_WIDTH, -(-len(keys) // room)))
    depth = min(room, -(-len(keys) // side_by_side))
    grid = Table.grid(padding=(0, 3, 0, 0))
    for _ in range(side_by_side):
        grid.add_column(width=min(CELL_WIDTH, width) - 3, no_wrap=True)
    cells: list[Table | Text] = [_row(state, key) for key in keys[: depth * side_by_side]]
    if len(cells) < len(keys):
        hidden = len(keys) - len(cells) + 1
        cells[-1] = Text(f"and {hidden} more, in a larger terminal", style="dim")
    columns = [cells[depth * n : depth * (n + 1)] for n in range(side_by_side)]
    for line in range(depth):
        grid.add_row(*[column[line] if line < len(column) else Text() for column in columns])
    return grid


def _natural(key: bytes) -> list[tuple[bool, int, bytes]]:
    """Key order, but core 10 after core 2, and numbers before words."""
    parts = _NUMBER.split(key)
    return [
        (False, int(part), b"") if part.isdigit() else (True, 0, part) for part in parts if part
    ]


def _row(state: Followed, key: bytes) -> Table:
    value, sequence = state.rows[key]
    is_new = key in state.changed
    name = readable(key).removeprefix(PREFIX)
    row = Table.grid(padding=(0, 1, 0, 0), expand=True)
    row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_column(ratio=1, no_wrap=True, overflow="ellipsis", justify="right")
    row.add_column(width=6, no_wrap=True, justify="right")
    row.add_row(
        Text(name, style="cyan" if is_new else "dim cyan"),
        shown(name, value, style="bold" if is_new else ""),
        Text(str(sequence or "·"), style="green" if is_new else "dim"),
    )
    return row


def shown(name: str, value: bytes, *, style: str) -> Text:
    """A metric's value with its unit, which its name tells."""
    plain = readable(value)
    kind = name.rpartition("/")[2]
    try:
        if name.startswith("processes/top/"):
            process = json.loads(plain)
            told = f"{process['name']:.11} {process['pid']}"
            used = f"{process['cpu_percent']:5.1f} % {size(process['memory_bytes']):>8}"
            return Text(f"{told} {used}", style=style)
        if kind == "percent":
            return Text.assemble(bar(float(plain)), (f" {float(plain):5.1f} %", style))
        if kind.endswith("_bytes"):
            return Text(size(int(plain)), style=style)
        if kind.endswith("_rate"):
            return Text(f"{size(int(plain))}/s", style=style)
    except (ValueError, KeyError, TypeError):
        pass  # somebody else writes under our prefix: shown as it is
    return Text(plain, style=style)


def bar(percent: float) -> tuple[str, str]:
    """A percentage as a bar, and its colour."""
    filled = round(max(0.0, min(100.0, percent)) / 100 * BAR_WIDTH)
    style = "green" if percent < 60 else "yellow" if percent < 85 else "red"
    return "█" * filled + "░" * (BAR_WIDTH - filled), style
