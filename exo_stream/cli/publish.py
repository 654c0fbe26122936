"""The command that writes each line of standard input: at once from a pipe, in bulk from a file."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import trio

from exo_stream.cli.connection import connected
from exo_stream.cli.exit_codes import OK
from exo_stream.cli.lines import Key, LineSplitter, from_field, keyed, numbered
from exo_stream.cli.output import Output
from exo_stream.cli.standard_error import say
from exo_stream.cli.wording import counted
from exo_stream.client import Client
from exo_stream.limits import Limits

READ_BYTES: Final = 1 << 20
"""A read brings what is there, up to this: a line of a live pipe, or a good batch of a file."""
BATCH_ENTRIES_MAX: Final = 8_192

STDIN: Final = 0


async def publish(args: Namespace, out: Output) -> int:
    """Publish lines until the input ends; print how many, and the last sequence number."""
    async with connected(args) as client:
        publisher = Publisher(client, _keys(args))
        done = False
        try:
            await _until_the_end(publisher)
            done = True
        finally:
            if not done and publisher.lines:
                say(f"exo-stream publish: {publisher.summary()}, and no more")
    out.answer(
        {"lines": publisher.lines, "batches": publisher.batches, "sequence": publisher.sequence},
        publisher.summary(),
    )
    return OK


def _keys(args: Namespace) -> Key:
    if args.key_field is not None:
        return from_field(args.prefix, args.key_field)
    return numbered(args.prefix, datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ"))


class Publisher:
    """Writes lines as batches in their order, and counts what was acknowledged.

    One batch is under way at a time, and what arrives meanwhile makes up the next one. The
    client sends a batch again after a lost connection, and it takes effect once.
    """

    def __init__(self, client: Client, key: Key) -> None:
        self._client = client
        self._key = key
        self.lines = 0
        self.batches = 0
        self.sequence: int | None = None

    async def write(self, lines: Sequence[bytes]) -> None:
        """Write these lines; raises for the first that cannot be, those before it written."""
        await trio.lowlevel.checkpoint()
        for begin in range(0, len(lines), BATCH_ENTRIES_MAX):
            some = lines[begin : begin + BATCH_ENTRIES_MAX]
            pairs, trouble = keyed(some, self._key, after=self.lines)
            if pairs:
                self.sequence = await self._client.put_batch(pairs)
                self.batches += 1
                self.lines += len(pairs)
            if trouble is not None:
                raise trouble

    def summary(self) -> str:
        """What was written so far, in one sentence."""
        if self.sequence is None:
            return "there was nothing to publish"
        return (
            f"{counted(self.lines, 'line', 'lines')} in "
            f"{counted(self.batches, 'batch', 'batches')}, through sequence {self.sequence}"
        )


async def _until_the_end(publisher: Publisher) -> None:
    splitter = LineSplitter(Limits().value_bytes_max)
    # A thread, for a file has no readiness to wait for, and a terminal's is shared with others.
    read = partial(os.read, STDIN, READ_BYTES)
    while chunk := await trio.to_thread.run_sync(read, abandon_on_cancel=True):
        await publisher.write(splitter.feed(chunk))
    await publisher.write(splitter.finish())
