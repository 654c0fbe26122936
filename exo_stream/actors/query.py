"""The query actor: one reader thread, and the reads that memory could not serve.

A platform runs two of them, one for gets and pages, one for long work, so that a long query never
delays a get.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, assert_never

import trio

from exo_stream.actors.mailbox import Mailbox
from exo_stream.actors.reads import Fetch, FindCutoff, FindTime, Read, ReadLog, Reduce, Scan, SumLog
from exo_stream.errors import CorruptionError, ExoStreamError
from exo_stream.limits import Limits
from exo_stream.logger import log
from exo_stream.model import Row
from exo_stream.storage.engine import Engine, Reader
from exo_stream.storage.hop import Hop

TURN_KEYS_MAX: Final = 1_024
"""Keys fetched together: one deadline is for all of them, and pages wait meanwhile."""


async def run(mailbox: Mailbox[Read], engine: Engine, hop: Hop, limits: Limits) -> None:
    """Serve reads until the mailbox closes; those that come together cross the thread together.

    A turn is a bounded number of gets, in keys and in bytes, then one page, however many are
    wanted. A file that
    contradicts itself is told to whoever met it, and stops the platform.
    """
    reader = engine.open_reader()
    gets: deque[Fetch] = deque()
    pages: deque[Read] = deque()
    with mailbox.serving():
        while not mailbox.closed or len(mailbox) or gets or pages:
            reads = mailbox.take(requests_max=limits.page_rows_max, bytes_max=limits.page_bytes_max)
            _hold(engine, reads)
            gets.extend(read for read in reads if isinstance(read, Fetch))
            pages.extend(read for read in reads if not isinstance(read, Fetch))
            fetches = _take_some(gets)
            if fetches:
                work = partial(_fetch, reader, fetches, limits.page_bytes_max)
                await _bounded(reader, hop, work, limits)
                _let_go(engine, [read for read in fetches if not _is_owed(read)])
                gets.extendleft(read for read in reversed(fetches) if _is_owed(read))
            if pages:
                same = _take_equal(pages)
                if not all(read.reply.abandoned for read in same):
                    await _bounded(reader, hop, partial(_answer, reader, same, limits), limits)
                _let_go(engine, same)
            elif not fetches:
                await mailbox.bell.wait()


def _hold(engine: Engine, reads: Sequence[Read]) -> None:
    # An asker that is cancelled lets go of its Version, while the thread may still be reading it:
    # blocks that are removed under it look like a file that contradicts itself.
    for read in reads:
        if isinstance(read, Fetch | Scan | Reduce):
            engine.pin(read.version)


def _let_go(engine: Engine, reads: Sequence[Read]) -> None:
    for read in reads:
        if isinstance(read, Fetch | Scan | Reduce):
            engine.unpin(read.version)


def _take_some(gets: deque[Fetch]) -> list[Fetch]:
    """The next gets, as many as one turn of the thread is for."""
    taken: list[Fetch] = []
    keys = 0
    while gets and (not taken or keys + len(gets[0].keys) <= TURN_KEYS_MAX):
        taken.append(gets.popleft())
        keys += len(taken[-1].keys)
    return taken


def _is_owed(read: Read) -> bool:
    return not (read.reply.settled or read.reply.abandoned)


def _take_equal(pages: deque[Read]) -> list[Read]:
    """The next page that is wanted, and whoever else wants the very same page of the log."""
    first = pages.popleft()
    if not isinstance(first, ReadLog):
        return [first]
    equal = [
        read
        for read in pages
        if isinstance(read, ReadLog) and (read.after, read.through) == (first.after, first.through)
    ]
    for read in equal:
        pages.remove(read)
    return [first, *equal]


async def _bounded(
    reader: Reader, hop: Hop, work: Callable[[], Callable[[], None]], limits: Limits
) -> None:
    """Run ``work`` on the reader thread, interrupted at the deadline; then give its answers."""

    async def interrupt_at_deadline() -> None:
        await trio.sleep(limits.query_seconds_max)
        log.warning("query interrupted", seconds=limits.query_seconds_max)
        reader.interrupt()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupt_at_deadline)
        give_answers = await hop(work)
        nursery.cancel_scope.cancel()
    give_answers()


def _fetch(reader: Reader, fetches: Sequence[Fetch], bytes_max: int) -> Callable[[], None]:
    """Fetch what the first of them want, up to about ``bytes_max`` of values, the keys of each
    Version together; answer on the loop.
    """
    by_version: dict[tuple[int, bool], list[Fetch]] = {}
    for fetch in fetches:
        by_version.setdefault((id(fetch.version), fetch.values), []).append(fetch)
    answers: list[Callable[[], None]] = []
    for same in by_version.values():
        if bytes_max <= 0:
            break
        keys = [key for fetch in same for key in fetch.keys]
        try:
            first = same[0]
            rows = reader.fetch(first.version, keys, bytes_max=bytes_max, values=first.values)
        except ExoStreamError as error:
            answers.append(partial(_fail, same, error))
            continue
        bytes_max -= sum(len(row.value) for row in rows if row is not None and row.value)
        answers += _shares(same, rows)

    def give_answers() -> None:
        for answer in answers:
            answer()

    return give_answers


def _shares(fetches: Sequence[Fetch], rows: Sequence[Row | None]) -> list[Callable[[], None]]:
    """Give each its part of the rows, as far as they reach."""
    answers: list[Callable[[], None]] = []
    start = 0
    for fetch in fetches:
        part = list(rows[start : start + len(fetch.keys)])
        if part:
            answers.append(partial(fetch.reply.set, part))
        start += len(fetch.keys)
    return answers


def _answer(reader: Reader, same: Sequence[Read], limits: Limits) -> Callable[[], None]:
    """Read once what all of ``same`` want; answer on the loop."""
    try:
        result = _result(reader, same[0], limits)
    except ExoStreamError as error:
        return partial(_fail, same, error)

    def give_answers() -> None:
        for read in same:
            read.reply.set(result)

    return give_answers


def _fail(reads: Sequence[Read], error: ExoStreamError) -> None:
    for read in reads:
        read.reply.fail(error.again())
    if isinstance(error, CorruptionError):
        raise error


def _result(reader: Reader, read: Read, limits: Limits) -> Any:
    # Any: each kind of read has its own answer, and its reply the type of that.
    match read:
        case Reduce(reducing=reducing):
            return reducing.run(reader)
        case Scan(plan=plan):
            return plan.run(reader)
        case ReadLog(after=after, through=through):
            return reader.log_page(
                after,
                through=through,
                batches_max=limits.page_rows_max,
                bytes_max=limits.page_bytes_max,
            )
        case FindTime(committed_at=committed_at):
            return reader.sequence_at(committed_at)
        case FindCutoff(retention=retention, now=now):
            return reader.cutoff(retention, now)
        case SumLog(floor=floor):
            return reader.log_bytes(floor)
        case Fetch():
            raise AssertionError("fetches are served together")
    assert_never(read)
