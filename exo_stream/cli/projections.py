"""The command ``projections``: how those of a server's process are, or those of a file at rest."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import trio

from exo_stream.backup.projections import FOLDER_SUFFIX
from exo_stream.canonical.projection_rules import ProjectorStatus
from exo_stream.canonical.store import CanonicalMeta
from exo_stream.cli.connection import connected
from exo_stream.cli.exit_codes import ERROR, OK
from exo_stream.cli.output import Output
from exo_stream.cli.tables import print_table
from exo_stream.cli.wording import Json, named, readable
from exo_stream.errors import FileInUseError, ForeignFileError, InvalidRequestError
from exo_stream.opening import open_platform
from exo_stream.storage.dead_letter import DeadLetter
from exo_stream.storage.projection_file import SUFFIX, Seen, file_of, letters_of, look

COLUMNS: Final = ("name", "cursor", "lag", "state", "dead letters")
LETTER_COLUMNS: Final = ("event", "failed at", "replays", "error")


class Shown(NamedTuple):
    """One projection as it is printed; ``lag`` is None if it cannot be told."""

    name: str
    cursor: int | None
    lag: int | None
    state: str
    dead_letters: int | None
    problem: str
    has_stopped: bool
    lag_seconds: float | None = None


async def projections(args: Namespace, out: Output) -> int:
    """Print a row for each; an error if one of them is stopped by a problem."""
    if args.file is None and args.folder is not None:
        raise InvalidRequestError("--folder is about the projections of a FILE")
    if args.event is not None and not (args.dead_letters or args.replay):
        raise InvalidRequestError("--event goes with --dead-letters or --replay")
    if args.replay:
        return await _replay(args, out)
    if args.dead_letters:
        _print_letters(await _letters(args), out)
        return OK
    found = await _of_server(args) if args.file is None else await _of_file(args)
    if out.is_json:
        for shown in found:
            out.object(_object(shown))
    else:
        print_table(out, COLUMNS, [_row(shown) for shown in found])
    return ERROR if any(shown.has_stopped for shown in found) else OK


async def _replay(args: Namespace, out: Output) -> int:
    if args.file is not None:
        raise InvalidRequestError(
            "a replay needs the handler: ask the program that runs the projection, by --url"
        )
    async with connected(args) as client:
        if args.event is not None:
            await client.canonical.replay_dead_letter(args.replay, args.event)
            applied, failed = 1, 0
        else:
            applied, failed = await client.canonical.replay_dead_letters(args.replay, args.count)
    text = f"{applied} went through, {failed} failed again"
    out.answer({"applied": applied, "failed": failed}, text)
    return ERROR if failed else OK


async def _letters(args: Namespace) -> list[DeadLetter]:
    first = args.event or 0
    if args.file is None:
        async with connected(args) as client:
            return await client.canonical.dead_letters(args.dead_letters, first, args.count)
    path = file_of(_folder(args), args.dead_letters)
    return await trio.to_thread.run_sync(letters_of, path, first, args.count)


async def _of_server(args: Namespace) -> list[Shown]:
    async with connected(args) as client:
        return [_as_running(one) for one in await client.canonical.projection_statuses()]


async def _of_file(args: Namespace) -> list[Shown]:
    folder, meta = _folder(args), await _meta(Path(args.file))
    paths = sorted(folder.glob(f"*{SUFFIX}"))  # noqa: ASYNC240  nothing else happens meanwhile
    found = [await trio.to_thread.run_sync(look, path) for path in paths]
    return [_as_seen(seen, meta) for seen in found]


def _folder(args: Namespace) -> Path:
    if not Path(args.file).is_file():
        raise ForeignFileError(f"{args.file} is no file")
    return Path(args.folder or f"{args.file}{FOLDER_SUFFIX}")


async def _meta(file: Path) -> CanonicalMeta | None:
    """What the store says of itself, None if somebody has it open."""
    try:
        async with open_platform(file) as platform:
            return await platform.canonical.meta()
    except FileInUseError:
        await trio.lowlevel.checkpoint()
        return None


def _as_running(status: ProjectorStatus) -> Shown:
    return Shown(
        status.name,
        status.cursor,
        status.lag,
        "sealed" if status.sealed and status.state == "running" else status.state,
        status.dead_letters,
        status.error,
        status.state == "failed",
        status.lag_seconds,
    )


def _as_seen(seen: Seen, meta: CanonicalMeta | None) -> Shown:
    stored = seen.stored
    cursor = None if stored is None else stored.cursor
    lag = None
    if stored is not None and meta is not None:
        lag = meta.next_event_id - (0 if cursor is None else cursor + 1)
    letters = None if stored is None else seen.dead_letters
    state, stopped = _state(seen, meta, lag), bool(seen.problem and stored)
    return Shown(seen.name, cursor, lag, state, letters, seen.problem, stopped)


def _state(seen: Seen, meta: CanonicalMeta | None, lag: int | None) -> str:
    if seen.problem:
        return "failed" if seen.stored else "unreadable"
    if lag is None or meta is None:
        return "unknown"
    if lag:
        return "behind"
    return "caught up" if meta.sealed_event_id is None else "sealed"


def _object(shown: Shown) -> dict[str, Json]:
    return {
        "name": shown.name,
        "cursor": shown.cursor,
        "lag": shown.lag,
        "lag_seconds": shown.lag_seconds,
        "state": shown.state,
        "dead_letters": shown.dead_letters or 0,
        "problem": shown.problem or None,
    }


def _row(shown: Shown) -> tuple[str, ...]:
    problem = f"{shown.state}: {shown.problem}" if shown.problem else shown.state
    numbers = (shown.cursor, shown.lag, shown.dead_letters)
    cursor, lag, letters = ("-" if number is None else str(number) for number in numbers)
    return (_safe(shown.name), cursor, lag, _safe(problem), letters)


def _print_letters(letters: Sequence[DeadLetter], out: Output) -> None:
    if not out.is_json:
        print_table(out, LETTER_COLUMNS, [_letter_row(letter) for letter in letters])
        return
    for letter in letters:
        out.object(
            {
                "id": letter.event_id,
                **named("event", letter.event_bytes),
                "error": letter.error_message,
                "failed_at": _time(letter.failed_at),
                "retry_count": letter.retry_count,
                "last_retry_at": letter.last_retry_at and _time(letter.last_retry_at),
                "permanent": letter.permanent,
            }
        )


def _letter_row(letter: DeadLetter) -> tuple[str, ...]:
    replays = f"{letter.retry_count}{', permanent' * letter.permanent}"
    error = _safe(letter.error_message)
    return (str(letter.event_id), _time(letter.failed_at), replays, error)


def _time(microseconds: int) -> str:
    time = datetime.fromtimestamp(microseconds / 1_000_000, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _safe(text: str) -> str:
    return readable(text.encode(errors="replace"))
