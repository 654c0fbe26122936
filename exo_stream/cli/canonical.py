"""The commands about the canonical store: events, seal, unseal, pause, resume."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from exo_stream.canonical.events import EventIter
from exo_stream.canonical.store import CanonicalStore
from exo_stream.cli.canonical_arguments import LAST_EVENTS
from exo_stream.cli.connection import connected
from exo_stream.cli.exit_codes import NOT_FOUND, OK
from exo_stream.cli.output import Output
from exo_stream.cli.wording import json_line, named, readable
from exo_stream.client.canonical import RemoteCanonical
from exo_stream.client.event_iter import RemoteEventIter
from exo_stream.errors import ForeignFileError, InvalidRequestError
from exo_stream.model import SEQUENCE_MAX

BATCH_EVENTS_MAX = 256
"""So many are printed in one write."""


@asynccontextmanager
async def _store(args: Namespace) -> AsyncIterator[CanonicalStore | RemoteCanonical]:
    """The store of the server, or of the file that ``--file`` names."""
    if args.file is None:
        async with connected(args) as client:
            yield client.canonical
        return
    from exo_stream.opening import open_platform  # noqa: PLC0415  DuckDB, for a file only

    if not Path(args.file).is_file():  # noqa: ASYNC240  nothing else happens meanwhile
        raise ForeignFileError(f"{args.file} is no file")
    async with open_platform(args.file) as platform:
        yield platform.canonical


async def events(args: Namespace, out: Output) -> int:
    """Print events by their ids, or follow them."""
    if args.verb == "get" and args.first is None:
        raise InvalidRequestError("get needs an event id")
    if args.verb == "tail" and args.last is not None:
        raise InvalidRequestError("tail has no LAST; see --count")
    async with _store(args) as store:
        if args.verb == "tail":
            await _tail(store, args, out)
            return OK
        last = args.first if args.last is None else args.last
        found = await store.iter_events(args.first, min(last, SEQUENCE_MAX - 1) + 1)
        printed = await _print(found, args.count, out)
    return OK if printed else NOT_FOUND


async def _tail(store: CanonicalStore | RemoteCanonical, args: Namespace, out: Output) -> None:
    first = args.first
    if first is None:
        first = max(0, (await store.meta()).next_event_id - LAST_EVENTS)
    async with trio.open_nursery() as nursery:

        async def until_unread() -> None:
            await out.wait_unread()
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_unread)
        # To a file that we have alone nobody adds anything.
        found = await store.iter_events(first, follow=args.file is None)
        await _print(found, args.count, out)
        nursery.cancel_scope.cancel()


async def _print(found: EventIter | RemoteEventIter, count: int | None, out: Output) -> int:
    """Print ``count`` events, or all; how many there were."""
    await trio.lowlevel.checkpoint_if_cancelled()
    printed = 0
    while count is None or printed < count:
        most = BATCH_EVENTS_MAX if count is None else min(BATCH_EVENTS_MAX, count - printed)
        batch = await found.next_batch(most)
        if not batch:
            break
        text = "".join([_line(number, event, out) for number, event in batch])
        # In a thread, for whoever reads our output may be slow, and the connection must live.
        await trio.to_thread.run_sync(
            out.write, text.encode(errors="replace"), abandon_on_cancel=True
        )
        printed += len(batch)
    return printed


def _line(number: int, event: bytes, out: Output) -> str:
    if out.is_json:
        return json_line({"id": number, **named("event", event)}) + "\n"
    return f"{number}\t{readable(event)}\n"


async def seal(args: Namespace, out: Output) -> int:
    """Seal, and print at which event; nothing is sealed where there is none."""
    async with _store(args) as store:
        event_id = await store.seal()
        meta = await store.meta()
    is_sealed = meta.sealed_event_id is not None
    text = f"sealed at event {event_id}" if is_sealed else "not sealed: there are no events"
    out.answer({"event": event_id, "sealed": is_sealed}, text)
    return OK


async def unseal(args: Namespace, out: Output) -> int:
    """Take canonical writes again."""
    async with _store(args) as store:
        await store.unseal()
    out.answer({"sealed": False}, "unsealed")
    return OK


async def pause(args: Namespace, out: Output) -> int:
    """Refuse writes from now on; this command leaves, the pause stays."""
    async with connected(args) as client:
        await (client if args.all else client.canonical).pause_ingestion()
    out.answer({"paused": True}, "paused")
    return OK


async def resume(args: Namespace, out: Output) -> int:
    """End the pauses that were asked for from afar."""
    async with connected(args) as client:
        ended = await (client if args.all else client.canonical).resume_all()
    out.answer({"ended": ended}, f"{ended} ended")
    return OK
