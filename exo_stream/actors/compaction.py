"""The compaction actor: plans folds, merges, deletions, CHECKPOINTs, retention and expiry.

It only plans; ingest, the one writer, performs. It is woken after every group and by its timer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from exo_stream import producers
from exo_stream.actors.keeping import Keeping
from exo_stream.actors.mailbox import Bell, Mailbox
from exo_stream.actors.orders import AnyDecide, Decide, MoveFloor, Perform, Work
from exo_stream.actors.reads import Reads
from exo_stream.errors import (
    ExoStreamError,
    PlatformClosedError,
    StoreFullError,
    UnsupportedError,
)
from exo_stream.limits import Limits
from exo_stream.logger import log
from exo_stream.model import Keyspace, row_key
from exo_stream.pause import Pause
from exo_stream.policies.rules import RETENTION_KEY
from exo_stream.snapshots import Snapshots
from exo_stream.storage.engine import Engine

TICK_SECONDS: Final = 1.0
"""How often retention, held snapshots and idleness are looked at."""

EXPIRY_SECONDS_MAX: Final = 3600
"""How often producers are looked through; oftener where they expire sooner."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the actor works with. It owns the plans and the rules; it writes nothing itself."""

    engine: Engine
    work: Mailbox[Work]
    writes: Mailbox[AnyDecide]
    reads: Reads
    snapshots: Snapshots
    changed: Bell
    keeping: Keeping
    clock: Callable[[], int]
    limits: Limits
    pause: Pause = field(default_factory=Pause)
    """Retention and expiry wait for its end; the upkeep of the file does not."""


async def run(means: Means, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Keep the file in order until ingest stops taking work.

    It has started once the stored rules are read, and have been applied.
    """
    with suppress(PlatformClosedError):
        means.keeping.read(await _stored_rules(means))
        await _apply_retention(means)
    task_status.started()
    async with trio.open_nursery() as nursery:
        # Beside the jobs, not between them: expiry writes, and writes may have to wait for a fold.
        nursery.start_soon(_expire_now_and_then, means)
        await _keep_in_order(means)
        nursery.cancel_scope.cancel()


async def _keep_in_order(means: Means) -> None:
    last_change = next_tick = trio.current_time()
    try:
        while not means.work.closed:
            now = trio.current_time()
            if now >= next_tick:
                next_tick = now + TICK_SECONDS
                await _apply_retention(means)
            idle = now - last_change >= means.limits.idle_seconds
            if await _run_next_job(means, idle=idle):
                continue
            with trio.move_on_at(next_tick):
                await means.changed.wait()
                last_change = trio.current_time()
    except PlatformClosedError:
        return


async def _run_next_job(means: Means, *, idle: bool) -> bool:
    """Perform the most urgent job, whole; answer whether there was one and it succeeded."""
    job = means.engine.next_job(means.clock(), idle=idle)
    if job is None:
        return False
    try:
        while not await means.work.ask(Perform(job=job)):
            pass
    except PlatformClosedError:
        raise
    except StoreFullError:  # ingest says so, once; asked again every second
        return False
    except ExoStreamError as error:  # ingest has rolled it back; it is planned anew
        log.warning("job abandoned", job=job.name, error=str(error))
        return False
    return True


async def _stored_rules(means: Means) -> bytes | None:
    if means.engine.own_sequences:
        await trio.lowlevel.checkpoint()
        return None
    version = means.engine.version
    [row] = await means.reads.rows(version, [row_key(Keyspace.STORE_RULE, RETENTION_KEY)])
    return None if row is None else row.value


async def _apply_retention(means: Means) -> None:
    means.snapshots.expire()
    if means.pause.is_paused:
        return
    # As far as those that are still held allow, or snapshots that overlap would hold it for ever.
    cutoff = min([means.snapshots.wanted_floor, *means.snapshots.floors()])
    cutoff = max(cutoff, await _retention_cutoff(means))
    if cutoff > means.engine.version.floor:
        await _move_floor(means, cutoff)


async def _retention_cutoff(means: Means) -> int:
    try:
        return await means.keeping.cutoff(means.reads, means.clock())
    except (PlatformClosedError, UnsupportedError):
        raise
    except ExoStreamError as error:
        log.warning("retention postponed", error=str(error))
        return 0


async def _move_floor(means: Means, cutoff: int) -> None:
    try:
        with means.pause.writer():
            await means.work.ask(MoveFloor(cutoff=cutoff))
    except PlatformClosedError:
        raise
    except ExoStreamError as error:
        log.warning("retention postponed", error=str(error))


async def _expire_now_and_then(means: Means) -> None:
    seconds = max(TICK_SECONDS, min(EXPIRY_SECONDS_MAX, means.limits.producer_idle_seconds / 4))
    try:
        while True:
            await trio.sleep(seconds)
            await _expire_producers(means)
    except PlatformClosedError:
        return


async def _expire_producers(means: Means) -> None:
    before = means.clock() - means.limits.producer_idle_seconds * 1_000_000
    start: bytes | None = row_key(Keyspace.PRODUCER, b"")
    end = row_key(Keyspace.PRODUCER + 1, b"")
    while start is not None:
        try:
            page = await means.reads.page(
                means.engine.version,
                start,
                end,
                rows_max=means.limits.page_rows_max,
                forward=True,
            )
            for row in page.rows:
                key = row.key[1:]
                if producers.is_head(key) and _idle_since(row.value, before):
                    expire = producers.expire(key[1:], before=before)
                    with means.pause.writer():
                        await means.writes.ask(Decide(decide=expire, frees=True))
        except PlatformClosedError:
            raise
        except ExoStreamError as error:
            log.warning("expiry postponed", error=str(error))
            return
        start = page.resume


def _idle_since(value: bytes | None, before: int) -> bool:
    return value is not None and producers.decode_head(value).seen_at < before
