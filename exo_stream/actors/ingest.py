"""The ingest actor: the one writer, which numbers batches and makes them durable in groups.

A round is: take what waits, decide on each request, commit what was decided as one transaction,
make it visible, answer everybody, hand the group to fan-out; then one piece of work on the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, assert_never

import trio

from exo_stream.actors.keeping import Keeping
from exo_stream.actors.mailbox import AnyRequest, Bell, Mailbox, R
from exo_stream.actors.orders import AnyDecide, AnyVerdict, MoveFloor, Perform, Work
from exo_stream.actors.reads import Reads
from exo_stream.actors.view import GroupView
from exo_stream.decision import Answer, Need, Numbered, Refuse, Write
from exo_stream.errors import (
    CorruptionError,
    ExoStreamError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
)
from exo_stream.frontier import Frontier
from exo_stream.limits import Limits
from exo_stream.logger import log
from exo_stream.payload import EncodedBatch, is_of_one_face
from exo_stream.snapshots import Snapshots
from exo_stream.storage.engine import Engine, EngineStatistics, Group
from exo_stream.storage.hop import Hop
from exo_stream.tail import Tail

REOPEN_SECONDS: Final = 1.0
"""How often a file that ran out of space is tried again."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the actor works with. It alone writes to the engine, the tail and the frontier."""

    writes: Mailbox[AnyDecide]
    work: Mailbox[Work]
    engine: Engine
    hop: Hop
    reads: Reads
    committed: trio.MemorySendChannel[Sequence[EncodedBatch]]
    tail: Tail
    frontier: Frontier
    snapshots: Snapshots
    keeping: Keeping
    changed: Bell
    clock: Callable[[], int]
    limits: Limits


class _SpaceRanOut(Exception):  # noqa: N818  # nobody's error: a turn of the road
    """COMMIT or CHECKPOINT met "no space"; what was in it may be durable or not."""

    def __init__(
        self,
        group: Group,
        requests: Sequence[AnyDecide] = (),
        verdicts: Sequence[AnyVerdict] = (),
    ) -> None:
        super().__init__()
        self.group = group
        self.requests = requests
        self.verdicts = verdicts


async def run(means: Means) -> None:
    """Serve writes until their mailbox closes and is empty. The only task that commits."""
    with means.committed, means.writes.serving(), means.work.serving():
        while not means.writes.closed or len(means.writes):
            try:
                busy = await _round(means)
            except _SpaceRanOut as stop:
                await _wait_for_space(means, stop)
            else:
                if not busy:
                    await means.writes.bell.wait()
    means.changed.ring()  # compaction sees that no more work is taken


async def _round(means: Means) -> bool:
    """One group, unless both memtables are full, and at most one piece of work."""
    limits = means.limits
    requests: list[AnyDecide] = []
    if not means.engine.backlogged:
        requests = means.writes.take(
            requests_max=1 if means.engine.own_sequences else limits.group_batches_max,
            bytes_max=limits.group_bytes_max,
        )
    if requests:
        await _write(means, requests)
    pieces = means.work.take(requests_max=1, bytes_max=limits.group_bytes_max)
    for piece in pieces:
        await _work(means, piece)
    return bool(requests or pieces)


async def _write(means: Means, requests: Sequence[AnyDecide]) -> None:
    requests = _admitted(means, requests)
    if not requests:
        return
    now = max(means.clock(), means.engine.last_committed_at)
    try:
        verdicts = await _decide(means, requests, now)
    except ExoStreamError as error:  # what a decision needed could not be read
        log.warning("group refused", requests=len(requests), error=str(error))
        _refuse(requests, StoreError(str(error)))
        return
    batches: Sequence[EncodedBatch] = _number(verdicts, means.engine.version.frontier, now)
    if batches:
        group = Group(batches, floor=means.keeping.floor(batches, means.engine, means.snapshots))
        try:
            committed = await means.hop(partial(means.engine.commit, group))
        except StoreFullError:
            raise _SpaceRanOut(group, requests, verdicts) from None
        except (OutcomeUnknownError, CorruptionError) as error:
            _refuse(requests, error)
            raise
        except ExoStreamError as error:  # a backend of somebody's own may object to anything
            log.warning("group refused", requests=len(requests), error=str(error))
            _refuse(requests, error)
            return
        # From here to the last answer there is no checkpoint: what is durable is answered.
        _show(means, committed)
        batches = committed.batches
    if means.engine.own_sequences:
        verdicts = [_renumbered(verdict, batches) for verdict in verdicts]
    _answer_all(requests, verdicts)
    if batches:
        await means.committed.send(batches)


def _admitted(means: Means, requests: Sequence[AnyDecide]) -> Sequence[AnyDecide]:
    """Those that may be tried; below the low-disk mark the others are refused."""
    if not means.engine.space_low:
        return requests
    low = StoreFullError(_shortage(means.engine.statistics(), means.limits))
    _refuse([request for request in requests if not request.frees], low)
    return [request for request in requests if request.frees]


def _shortage(sizes: EngineStatistics, limits: Limits) -> str:
    held, most = sizes.memtable_bytes, limits.memory_bytes_max
    if not sizes.file_bytes and held > most:
        return f"the store in memory holds {held:,} bytes of at most {most:,}"
    mark = max(limits.free_bytes_min, 2 * sizes.wal_bytes)
    return f"free space is below the low-disk mark: {sizes.disk_free_bytes:,} bytes of {mark:,}"


def _renumbered(verdict: AnyVerdict, batches: Sequence[EncodedBatch]) -> AnyVerdict:
    """The verdict with the number that the backend gave its batch, which is the only one."""
    if not isinstance(verdict, Write):
        return verdict
    sequence = batches[0].sequence
    answer = verdict.answer
    return replace(
        verdict, answer=answer.numbered(sequence) if isinstance(answer, Numbered) else sequence
    )


async def _decide(means: Means, requests: Sequence[AnyDecide], now: int) -> list[AnyVerdict]:
    """A verdict for each request, none of them ``Need``; fetched together, round by round."""
    view = GroupView(means.reads, means.engine.version)
    verdicts: list[AnyVerdict] = []
    for _ in range(len(requests) * means.limits.decision_rounds_max):
        needs = _decide_until_need(view, requests, verdicts, now)
        if not needs:
            return verdicts
        await view.fetch(needs)
    raise AssertionError("a decision keeps asking for more")


def _decide_until_need(
    view: GroupView, requests: Sequence[AnyDecide], verdicts: list[AnyVerdict], now: int
) -> list[Need]:
    """Extend ``verdicts`` up to the first request that needs more; answer what it and those
    behind it need, as far as can be told without knowing its outcome.
    """
    needs: list[Need] = []
    for request in requests[len(verdicts) :]:
        verdict = request.decide(view, now)
        if isinstance(verdict, Need):
            needs.append(verdict)
        elif not needs:
            verdicts.append(verdict)
            if isinstance(verdict, Write):
                entries = verdict.entries
                assert len(entries) == 1 or is_of_one_face(entries), "a batch of two faces"
                view.write(entries)
    return needs


def _number(verdicts: Sequence[AnyVerdict], frontier: int, now: int) -> list[EncodedBatch]:
    """The batches of a group, numbered consecutively after ``frontier``."""
    writes = [verdict for verdict in verdicts if isinstance(verdict, Write)]
    return [
        EncodedBatch(sequence, now, write.payload, tuple(write.entries))
        for sequence, write in enumerate(writes, start=frontier + 1)
    ]


def _answer_all(requests: Sequence[AnyDecide], verdicts: Sequence[AnyVerdict]) -> None:
    for request, verdict in zip(requests, verdicts, strict=True):
        _answer(request, verdict)


def _answer(request: AnyDecide, verdict: AnyVerdict) -> None:
    if isinstance(verdict, (Write, Answer)):  # nearly all: a match costs a put a twentieth
        request.reply.set(verdict.answer)
        return
    match verdict:
        case Refuse(error=error):
            request.reply.fail(error)
        case Need():
            raise AssertionError("undecided")
        case _:
            assert_never(verdict)


def _refuse(requests: Sequence[AnyRequest], error: ExoStreamError) -> None:
    # Refusals and duplicates too: they may rest on a neighbour that never became durable.
    for request in requests:
        request.reply.fail(error.again())


def _show(means: Means, group: Group) -> None:
    """Make a durable group visible. Synchronous: nobody sees half of it."""
    means.engine.install(group)
    if group.batches:
        means.keeping.adopt(group.batches)
        means.tail.push(group.batches)
        means.frontier.advance(group.batches[-1].sequence)
    if group.floor is not None:
        means.tail.evict_below(group.floor)
    means.changed.ring()


async def _work(means: Means, piece: Work) -> None:
    match piece:
        case MoveFloor():
            await _move_floor(means, piece)
        case Perform():
            await _perform(means, piece)
        case _:
            assert_never(piece)


async def _perform(means: Means, piece: Perform) -> None:
    try:
        done = await means.hop(piece.job.step)
    except StoreFullError:
        piece.reply.fail(StoreFullError(f"no space for a {piece.job.name}"))
        raise _SpaceRanOut(Group([])) from None
    except (OutcomeUnknownError, CorruptionError) as error:
        piece.reply.fail(error.again())
        raise
    except ExoStreamError as error:
        log.warning("job failed", job=piece.job.name, error=str(error))
        piece.reply.fail(error)
        if means.engine.backlogged:
            # What waits for this job would wait for ever if it failed for ever.
            _refuse_waiting(means, means.writes, StoreError(str(error)))
        return
    if done:
        piece.job.install()
    piece.reply.set(done)


async def _move_floor(means: Means, piece: MoveFloor) -> None:
    version = means.engine.version
    # What is not there yet is not asked for: the wish must not outlive today's log.
    cutoff = min(piece.cutoff, version.frontier + 1)
    floor = min([cutoff, *means.snapshots.floors()])
    if floor < cutoff:
        means.snapshots.wanted_floor = max(means.snapshots.wanted_floor, cutoff)
    if floor <= version.floor:
        piece.reply.set(0)
        return
    group = Group([], floor=floor)
    try:
        committed = await means.hop(partial(means.engine.commit, group))
    except StoreFullError:
        piece.reply.fail(OutcomeUnknownError("no space while the floor was moved"))
        raise _SpaceRanOut(Group([])) from None
    except (OutcomeUnknownError, CorruptionError) as error:
        piece.reply.fail(error.again())
        raise
    except ExoStreamError as error:
        piece.reply.fail(error)
        return
    _show(means, committed)
    evicted = committed.evicted
    piece.reply.set(floor - version.floor if evicted is None else evicted)


async def _wait_for_space(means: Means, stop: _SpaceRanOut) -> None:
    """Open the file again, and tell what became of the group that met "no space".

    Until that succeeds everything is refused, and nobody is told that one was durable: what a
    failed COMMIT left in the page cache is not, before a CHECKPOINT says so.
    """
    log.error("space ran out", batches=len(stop.group.batches))
    durable = await _reopen(means, stop.requests)
    if durable is None:
        return
    # Jobs planned on what the file was before it was opened again must not touch it now: one
    # would delete what turned out durable, or go on with what is about to be read anew.
    reopened = StoreError("the file was opened again meanwhile; ask again")
    _refuse_waiting(means, means.work, reopened)
    log.info("space came back", durable=durable)
    batches = stop.group.batches
    if batches and durable >= batches[-1].sequence:
        _show(means, stop.group)
        _answer_all(stop.requests, stop.verdicts)
        await means.committed.send(batches)
    else:
        _refuse(stop.requests, StoreFullError("no space; nothing was kept"))


async def _reopen(means: Means, requests: Sequence[AnyDecide]) -> int | None:
    """The last durable sequence once there is space again; None if the platform stops first."""
    while True:
        try:
            return await means.hop(means.engine.reopen)
        except StoreFullError:
            _refuse(requests, OutcomeUnknownError("no space; whether it was kept is not known yet"))
        with trio.move_on_after(REOPEN_SECONDS):
            while True:
                full = StoreFullError("there is no space for writes")
                _refuse_waiting(means, means.writes, full)
                _refuse_waiting(means, means.work, full)
                if means.writes.closed:
                    return None
                await means.writes.bell.wait()


def _refuse_waiting(means: Means, mailbox: Mailbox[R], error: ExoStreamError) -> None:
    """Refuse everything that waits in ``mailbox``."""
    limits = means.limits
    while waiting := mailbox.take(
        requests_max=limits.group_batches_max, bytes_max=limits.waiting_bytes_max
    ):
        _refuse(waiting, error)
