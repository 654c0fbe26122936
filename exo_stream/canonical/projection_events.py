"""Where a projection's events come from, how far they go, and how old the next one is."""

from __future__ import annotations

from contextlib import suppress

import trio

from exo_stream.canonical.events import EventIter, event_row_key
from exo_stream.canonical.projection_rules import Event, ProjectorConfig, cut
from exo_stream.canonical.record import Record
from exo_stream.canonical.state import StateReads
from exo_stream.errors import EventGapError
from exo_stream.ground import Ground
from exo_stream.model import SEQUENCE_MAX
from exo_stream.storage.engine import Cold


class ProjectionEvents:
    """The events of one projection, in batches as its config says.

    ``take`` waits and is woken by the next event; ``present`` does not wait.
    """

    def __init__(self, ground: Ground, config: ProjectorConfig) -> None:
        self._ground = ground
        self._config = config
        self._state = StateReads(ground.sources.reads)
        self._following = self._iter(0, SEQUENCE_MAX + 1, follow=True)
        self._pending: list[Event] = []

    async def record(self) -> Record:
        """The store's record as of now."""
        record, _ = await self._state.record(self._ground.sources.reads.engine.version)
        return record

    async def target(self) -> int:
        """The id after the last event to be applied: one after the seal, or after the newest."""
        record = await self.record()
        sealed = record.sealed_event_id
        return record.next_event_id if sealed is None else sealed + 1

    def restart(self, first: int) -> None:
        """Have ``take`` go on with the event ``first``."""
        self._following = self._iter(first, SEQUENCE_MAX + 1, follow=True)
        self._pending = []

    async def take(self) -> list[Event]:
        """The next batch, as soon as there is an event. Cancelled, it has taken nothing."""
        config, pending = self._config, self._pending
        if not pending:
            pending.extend(await self._following.next_batch(config.batch_events_max))
        else:
            await trio.lowlevel.checkpoint()
        if config.batch_wait_ms:
            # A gap is told once what is before it has been taken.
            with trio.move_on_after(config.batch_wait_ms / 1_000), suppress(EventGapError):
                while self._is_small():
                    room = config.batch_events_max - len(pending)
                    pending.extend(await self._following.next_batch(room))
        count = cut(pending, config.batch_events_max, config.batch_bytes_max)
        self._pending = pending[count:]
        return pending[:count]

    async def present(self, first: int) -> list[Event]:
        """A batch of what is there from ``first`` to the target; empty if there is nothing."""
        config = self._config
        events = self._iter(first, await self.target(), follow=False)
        found = await events.next_batch(config.batch_events_max)
        return found[: cut(found, config.batch_events_max, config.batch_bytes_max)]

    async def age_seconds(self, event_id: int) -> float | None:
        """For how long an event has been there; None if it is missing, or the log has let go of
        its time.
        """
        sources = self._ground.sources
        key, version = event_row_key(event_id), sources.reads.engine.version
        row = sources.reads.engine.lookup(version, key)
        if isinstance(row, Cold):
            [row] = await sources.reads.rows(version, [key])
        if row is None or row.value is None:
            await trio.lowlevel.checkpoint()
            return None  # the event itself is
        before = row.sequence - 1
        if row.sequence < version.floor:
            await trio.lowlevel.checkpoint()
            return None
        page = sources.tail.since(before, batches_max=1, bytes_max=1)
        if not page:
            page = await sources.reads.log_page(before, row.sequence)
        else:
            await trio.lowlevel.checkpoint()
        if not page or page[0].sequence != row.sequence:
            return None
        return max(0, self._ground.clock() - page[0].committed_at) / 1_000_000

    def _is_small(self) -> bool:
        size = sum(len(event) for _, event in self._pending)
        config = self._config
        return len(self._pending) < config.batch_events_max and size < config.batch_bytes_max

    def _iter(self, first: int, end: int, *, follow: bool) -> EventIter:
        sources = self._ground.sources
        return EventIter(sources, lambda: sources.reads.engine.version, first, end, follow=follow)
