"""The command that prints a feed, and remembers how far it has come."""

from __future__ import annotations

from argparse import Namespace

import trio

from exo_stream.cli.connection import connected
from exo_stream.cli.cursor_file import CursorFile
from exo_stream.cli.exit_codes import OK
from exo_stream.cli.feed_text import Aligned, as_columns, as_json
from exo_stream.cli.output import Output, is_colourful
from exo_stream.cli.standard_error import say
from exo_stream.cli.stream_text import change_object, presented
from exo_stream.cli.wording import json_line
from exo_stream.errors import (
    BatchEvictedError,
    CursorAheadError,
    InvalidRequestError,
    LogMismatchError,
)
from exo_stream.feed import FeedMessage
from exo_stream.model import Batch, Cursor


async def follow(args: Namespace, out: Output) -> int:
    """Print each message; save its cursor, if it has one, once it was printed."""
    async with trio.open_nursery() as nursery:

        async def until_unread() -> None:
            await out.wait_unread()
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_unread)
        try:
            await _print_feed(args, out)
        except (BatchEvictedError, CursorAheadError, LogMismatchError) as error:
            if args.cursor_file is not None:
                # Only its user knows whether what was missed matters: nothing is skipped silently.
                advice = f"remove {args.cursor_file} to begin again"
                error.args = (f"{error}; {advice}, with --snapshot to have the table first",)
            raise
        nursery.cancel_scope.cancel()
    return OK


async def _print_feed(args: Namespace, out: Output) -> None:
    file, after = _resumed(args)
    follows_streams = args.stream is not None or args.stream_prefix is not None
    printer, left = FeedPrinter(out, file, streams=follows_streams), args.count
    is_new = after is None
    async with (
        connected(args) as client,
        client.subscribe(
            prefix=args.prefix,
            match=args.match,
            values=args.value,
            stream=args.stream,
            streams_prefix=args.stream_prefix,
            after=args.after if is_new else after,
            from_sequence=args.from_sequence if is_new else None,
            start=args.start if is_new else None,
            last=args.last if is_new else None,
            since_time=args.since if is_new else None,
            snapshot=args.snapshot and is_new,
        ) as feed,
    ):
        if args.stream is not None and not await client.streams.exists(args.stream):
            say(f"exo-stream follow: there is no stream {args.stream!r} yet; waiting for it")
        async for message in feed.messages():
            # In a thread, for whoever reads our output may be slow, and the connection must live.
            # Given up (Ctrl-C while the output is stuck), nothing is saved that was not printed.
            await trio.to_thread.run_sync(printer.hand_over, message, abandon_on_cancel=True)
            if left is not None and isinstance(message, Batch):
                left -= 1
                if left == 0:
                    break


def _resumed(args: Namespace) -> tuple[CursorFile | None, Cursor | None]:
    """The file to save cursors in, and the cursor that it holds already.

    A saved cursor wins over ``--snapshot`` and the other starts: those are for the first time.
    """
    if args.cursor_file is None:
        return None, None
    if args.after is not None:
        raise InvalidRequestError("--after and --cursor-file both say where to resume; choose one")
    file = CursorFile(args.cursor_file)
    return file, file.load()


class FeedPrinter:
    """Prints a feed's messages in the form that its output asks for, and saves their cursors."""

    def __init__(
        self, out: Output, file: CursorFile | None = None, *, streams: bool = False
    ) -> None:
        self._out = out
        self._streams = streams
        self._file = file
        self._aligned = Aligned(color=is_colourful())

    def hand_over(self, message: FeedMessage) -> None:
        """Print one message in one write; then save its cursor, if it has one."""
        if self._streams and self._out.is_json and isinstance(message, Batch):
            text = json_line(change_object(message)) + "\n"
        elif self._out.is_json:
            text = as_json(message)
        elif self._out.is_terminal:
            text = self._aligned.render(self._shown(message), self._out.size[0])
        else:
            text = as_columns(self._shown(message))
        self._out.write(text.encode(errors="replace"))
        cursor = getattr(message, "cursor", None)
        if self._file is not None and cursor is not None:
            self._file.save(cursor)

    def _shown(self, message: FeedMessage) -> FeedMessage:
        return presented(message) if self._streams else message
