"""Tables: with a head and columns on a terminal, divided by tabs for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from exo_stream.cli.output import Output, is_colourful


def print_table(out: Output, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of readable cells."""
    if out.is_terminal:
        text = drawn(columns, rows, width=out.size[0])
    else:
        text = "".join(["\t".join(row) + "\n" for row in rows])
    out.write(text.encode(errors="replace"))


def drawn(columns: Sequence[str], rows: Iterable[Sequence[str]], *, width: int) -> str:
    """A table for a terminal so wide; long cells go on below. NO_COLOR is obeyed."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=StringIO(), width=width, force_terminal=is_colourful(), highlight=False)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()
