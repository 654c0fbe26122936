"""The commands that read: get, scan, batch, info."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Final

import trio

from exo_stream.cli.connection import connected
from exo_stream.cli.exit_codes import NOT_FOUND, OK
from exo_stream.cli.output import Output
from exo_stream.cli.reductions import reduce
from exo_stream.cli.standard_error import say
from exo_stream.cli.tables import print_table
from exo_stream.cli.wording import Json, batch_object, named, readable, size
from exo_stream.limits import STORE_KEY_BYTES_MAX

ROWS_PER_TABLE: Final = 500
"""A scan is printed as it arrives; a table's columns are as wide as so many rows want them."""


def missing(args: Namespace, what: str) -> int:
    """Say that something is not there."""
    say(f"exo-stream {args.command}: {what}")
    return NOT_FOUND


async def get(args: Namespace, out: Output) -> int:
    """Print a value's bytes as they are, or one object."""
    async with connected(args) as client:
        entry = await client.get_entry(args.key)
    if entry.value is None:
        return missing(args, f"there is no key {readable(args.key)!r}")
    if out.is_json:
        out.object(
            {
                **named("key", args.key),
                **named("value", entry.value),
                "version": entry.version,
                "sequence": entry.sequence,
            }
        )
    elif out.is_terminal:
        out.line(readable(entry.value))
    else:
        out.write(entry.value)
    return OK


async def scan(args: Namespace, out: Output) -> int:
    """Print the pairs of a range, all at one sequence, as they arrive."""
    bounds = key_range(args.start, args.end, args.prefix)
    if args.reduce is not None:
        return await reduce(args, bounds, out)
    if bounds is None or args.limit == 0:
        await trio.lowlevel.checkpoint()
        return OK
    left: int | None = args.limit
    page: list[tuple[bytes, bytes]] = []
    async with connected(args) as client, client.scan(*bounds, forward=not args.reverse) as rows:
        async for pair in rows:
            page.append(pair)
            if left is not None:
                left -= 1
            if len(page) == ROWS_PER_TABLE or left == 0:
                _print_pairs(page, out)
                page.clear()
            if left == 0:
                break
    if page:
        _print_pairs(page, out)
    return OK


def key_range(start: bytes, end: bytes, prefix: bytes) -> tuple[bytes, bytes] | None:
    """The inclusive bounds of what lies in a range and under a prefix; None if nothing can."""
    if not prefix:
        return None if end and start > end else (start, end)
    last = prefix + b"\xff" * (STORE_KEY_BYTES_MAX - len(prefix))
    start, end = max(start, prefix), min(end or last, last)
    return None if start > end else (start, end)


def _print_pairs(pairs: Sequence[tuple[bytes, bytes]], out: Output) -> None:
    if out.is_json:
        for key, value in pairs:
            out.object({**named("key", key), **named("value", value)})
    else:
        rows = [(readable(key), readable(value)) for key, value in pairs]
        print_table(out, ["key", "value"], rows)


async def batch(args: Namespace, out: Output) -> int:
    """Print one batch; a batch that is not there yet is not found."""
    async with connected(args) as client:
        found = await client.get_batch(args.sequence)
    if found is None:
        return missing(args, f"there is no batch {args.sequence} yet")
    if out.is_json:
        out.object(batch_object(found))
    else:
        rows = [
            (readable(e.key), "(deleted)" if e.value is None else readable(e.value))
            for e in found.entries
        ]
        print_table(out, ["key", "value"], rows)
    return OK


async def info(args: Namespace, out: Output) -> int:
    """Print what the log holds, and how large things are."""
    async with connected(args) as client:
        facts = flattened(await client.info())
    if out.is_json:
        out.object(facts)
        return OK
    width = max(map(len, facts))
    for name, value in facts.items():
        if isinstance(value, int):
            shown = size(value) if name.endswith("_bytes") else f"{value:,}"
        else:
            shown = "-" if value is None else str(value)
        out.line(f"{name.replace('_', ' '):<{width}}  {shown}")
    return OK


def flattened(value: object) -> dict[str, Json]:
    """A dataclass as one flat object, those inside it included."""
    assert is_dataclass(value), value
    facts: dict[str, Json] = {}
    for field in fields(value):
        inner = getattr(value, field.name)
        facts |= flattened(inner) if is_dataclass(inner) else {field.name: inner}
    return facts
