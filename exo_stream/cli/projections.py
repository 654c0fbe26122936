"""The command ``projections``: how the projections of a file are, while nobody runs them."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import trio

from exo_stream.backup.projections import FOLDER_SUFFIX
from exo_stream.canonical.store import CanonicalMeta
from exo_stream.cli.exit_codes import ERROR, OK
from exo_stream.cli.output import Output
from exo_stream.cli.tables import print_table
from exo_stream.cli.wording import Json, readable
from exo_stream.errors import FileInUseError, ForeignFileError
from exo_stream.opening import open_platform
from exo_stream.storage.projection_file import SUFFIX, Seen, look

COLUMNS = ("name", "cursor", "lag", "state", "dead letters")


async def projections(args: Namespace, out: Output) -> int:
    """Print a row for each; an error if one of them is stopped by a problem."""
    file = Path(args.file)
    if not file.is_file():  # noqa: ASYNC240  nothing else happens meanwhile
        raise ForeignFileError(f"{file} is no file")
    folder = Path(args.folder or f"{file}{FOLDER_SUFFIX}")
    meta = await _meta(file)
    paths = sorted(folder.glob(f"*{SUFFIX}"))  # noqa: ASYNC240  the same
    found = [await trio.to_thread.run_sync(look, path) for path in paths]
    if out.is_json:
        for seen in found:
            out.object(_object(seen, meta))
    else:
        print_table(out, COLUMNS, [_row(seen, meta) for seen in found])
    return ERROR if any(seen.problem and seen.stored for seen in found) else OK


async def _meta(file: Path) -> CanonicalMeta | None:
    """What the store says of itself, None if somebody has it open."""
    try:
        async with open_platform(file) as platform:
            return await platform.canonical.meta()
    except FileInUseError:
        await trio.lowlevel.checkpoint()
        return None


def _lag(seen: Seen, meta: CanonicalMeta | None) -> int | None:
    if seen.stored is None or meta is None:
        return None
    cursor = seen.stored.cursor
    return meta.next_event_id - (0 if cursor is None else cursor + 1)


def _state(seen: Seen, meta: CanonicalMeta | None) -> str:
    if seen.problem:
        return "failed" if seen.stored else "unreadable"
    lag = _lag(seen, meta)
    if lag is None:
        return "unknown"
    if lag:
        return "behind"
    assert meta is not None
    return "caught up" if meta.sealed_event_id is None else "sealed"


def _object(seen: Seen, meta: CanonicalMeta | None) -> dict[str, Json]:
    return {
        "name": seen.name,
        "cursor": None if seen.stored is None else seen.stored.cursor,
        "lag": _lag(seen, meta),
        "state": _state(seen, meta),
        "dead_letters": seen.dead_letters,
        "problem": seen.problem or None,
    }


def _row(seen: Seen, meta: CanonicalMeta | None) -> tuple[str, ...]:
    cursor = None if seen.stored is None else seen.stored.cursor
    lag, state = _lag(seen, meta), _state(seen, meta)
    problem = f"{state}: {seen.problem}" if seen.problem else state
    return (
        readable(seen.name.encode(errors="replace")),
        "-" if cursor is None else str(cursor),
        "-" if lag is None else str(lag),
        readable(problem.encode(errors="replace")),
        str(seen.dead_letters) if seen.stored else "-",
    )
