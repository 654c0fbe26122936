"""The tables of docs/protocol.md, printed from the code: ``python -m tests.protocol_tables``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from exo_stream.protocol import codec
from exo_stream.protocol.closing import CLOSES
from exo_stream.protocol.failures import ERRORS
from exo_stream.protocol.session import REPLIES, TRANSITIONS

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "protocol.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def names(kinds: Iterable[type]) -> str:
    return ", ".join(f"`{codec.name_of(kind)}`" for kind in kinds)


def transitions() -> str:
    """One row for each state and speaker: what it may say, and where that leads."""
    rows: dict[tuple[str, str, str], list[type]] = {}
    for state, moves in TRANSITIONS.items():
        for (role, kind), after in moves.items():
            rows.setdefault((state.value, role.value, after.value), []).append(kind)
    return table(
        ("while it is", "the", "may say", "and it is"),
        [(state, role, names(kinds), after) for (state, role, after), kinds in rows.items()],
    )


def replies() -> str:
    return table(("request", "answer"), [(names([k]), names(v)) for k, v in REPLIES.items()])


def closes() -> str:
    return table(
        ("code", "name", "meaning", "the client should"),
        [(str(c.code), f"`{c.name}`", c.meaning, c.advice.value) for c in CLOSES],
    )


def error_codes() -> str:
    rows = [
        (
            f"`{kind.code}`",
            ", ".join(f"`{field}`" for field in kind.fields),
            "yes" if kind.retryable else "",
        )
        for kind in ERRORS
    ]
    return table(("code", "fields", "may succeed later"), rows)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "transitions": transitions,
    "replies": replies,
    "closes": closes,
    "errors": error_codes,
}


def printed(document: str) -> str:
    """The document with every table as the code has it."""
    for name, render in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert pattern.search(document), name
        document = pattern.sub(rf"\g<1>\n{render()}\n\n\g<2>", document)
    return document


if __name__ == "__main__":
    DOCUMENT.write_text(printed(DOCUMENT.read_text()))
