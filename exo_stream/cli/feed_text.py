"""A feed as lines: one an entry, divided by tabs for programs, aligned and coloured for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.cells import cell_len, set_cell_size

from exo_stream.cli.wording import json_line, message_object, readable, remark
from exo_stream.feed import FeedMessage, SnapshotPage
from exo_stream.model import Batch, Entry

KEY_WIDTH_MAX: Final = 44
"""Longer keys push their values to the right, rather than all values of all keys."""

DIM, CYAN, GREEN, RED, RESET = "\x1b[2m", "\x1b[36m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


def as_json(message: FeedMessage) -> str:
    """A message as one JSON object."""
    return json_line(message_object(message)) + "\n"


def as_columns(message: FeedMessage) -> str:
    """Sequence, key and value divided by tabs, a line an entry; of a deletion, no value."""
    if not isinstance(message, Batch | SnapshotPage):
        return ""
    return "".join(
        [
            f"{message.sequence}\t{readable(key)}\n"
            if value is None
            else f"{message.sequence}\t{readable(key)}\t{readable(value)}\n"
            for _, key, value in message.entries
        ]
    )


class Aligned:
    """Lines for a terminal: whose columns stay where they are, and which fit its width."""

    def __init__(self, *, color: bool) -> None:
        self._color = color
        self._key_width = 0

    def render(self, message: FeedMessage, width: int) -> str:
        """A message as lines; "" if it is not worth one."""
        if isinstance(message, Batch):
            time = datetime.fromtimestamp(message.committed_at / 1e6).astimezone()
            return self._entries(message.entries, f"{message.sequence:>8} {time:%H:%M:%S}", width)
        if isinstance(message, SnapshotPage):
            return self._entries(message.entries, "", width)
        said = remark(message)
        return "" if said is None else self._styled(DIM, f"{'—':>8} {said}") + "\n"

    def _entries(self, entries: Sequence[Entry], label: str, width: int) -> str:
        lines = []
        for _, key, value in entries:
            name = readable(key)
            self._key_width = max(self._key_width, min(len(name), KEY_WIDTH_MAX))
            name = f"{name:<{self._key_width}}"
            shown, style = ("deleted", RED) if value is None else (readable(value), "")
            shown = fitted(shown, width - 21 - len(name))
            lines.append(
                f"{self._styled(GREEN if label.strip() else '', f'{label:<17}')}  "
                f"{self._styled(CYAN, name)}  {self._styled(style, shown)}\n"
            )
            label = ""
        return "".join(lines)

    def _styled(self, style: str, text: str) -> str:
        return f"{style}{text}{RESET}" if self._color and style else text


def fitted(text: str, width: int) -> str:
    """As much of ``text`` as ``width`` columns hold, with a mark where it was cut."""
    width = max(width, 8)
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"
