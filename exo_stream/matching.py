"""The matchers in use on one platform: one for all who ask the same, and what is heavy done once.

A regex takes linear time, but a large value and a large program can still make that long: such a
selection is done by threads, in turns, for all subscribers that ask the same. What a single search
may take for minutes, and nobody can stop it, has threads of its own: it waits for its like.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import trio

from exo_stream.errors import OverloadedError
from exo_stream.limits import MIB, Limits
from exo_stream.matchers import Matcher, matcher_of
from exo_stream.model import Entry
from exo_stream.payload import EncodedBatch
from exo_stream.selectors import AnySelector, StoreSelector

THREADS: Final = 2
"""Threads that compile and select for all subscribers of a platform, and as many for what may take
them long."""

TURN_STEPS: Final = 50_000_000
"""What a thread does before others have their turn, at worst a second or two. A single entry that
may cost more is looked at in the other threads, a search at a time."""

KEPT_MAX: Final = 16
"""Heavy selections kept for others who want the same;"""
KEPT_BYTES_MAX: Final = 16 * MIB
"""and what they hold together. One that holds more than its share is not kept: those that wait
for it have it, and who comes later makes it again."""

Elsewhere = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls a function where it disturbs nobody, as in a thread; its answer may be anything."""


def in_threads() -> Elsewhere:
    """Calls in threads, few at once. Who is cancelled does not wait for one that has begun."""
    few = trio.CapacityLimiter(THREADS)

    async def call(fn: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(fn, abandon_on_cancel=True, limiter=few)

    return call


@dataclass(slots=True)
class _Held:
    matcher: Matcher
    holders: int = 0


@dataclass(slots=True)
class _Heavy:
    """A heavy selection: under way, or its outcome; neither if whoever made it was cancelled."""

    done: trio.Event = field(default_factory=trio.Event)
    found: EncodedBatch | None = None
    is_known: bool = False


class Matching:
    """The matchers that subscriptions hold; equal selectors share one."""

    def __init__(self, limits: Limits, elsewhere: Elsewhere, long: Elsewhere | None = None) -> None:
        self._limits = limits
        self._elsewhere = elsewhere
        self._long = long or elsewhere
        self._held: dict[AnySelector, _Held] = {}
        self._regexes: Counter[str] = Counter()
        self._special = 0
        self._heavy: dict[tuple[Matcher, int], _Heavy] = {}

    def __len__(self) -> int:
        return len(self._held)

    async def hold(self, selector: AnySelector) -> Matcher:
        """The matcher of ``selector``, until ``release``.

        Raises InvalidSelectorError if it breaks a rule, OverloadedError if too many different
        ones are in use.
        """
        await trio.lowlevel.checkpoint()
        if selector not in self._held:
            if not isinstance(selector, StoreSelector):
                matcher = matcher_of(selector)
            else:
                matcher = await self._elsewhere(partial(matcher_of, selector))
            if selector not in self._held:
                self._admit(selector, matcher)
        held = self._held[selector]
        held.holders += 1
        return held.matcher

    def matcher_of(self, selector: AnySelector) -> Matcher:
        """The matcher that somebody holds; one without regexes need not be held."""
        held = self._held.get(selector)
        return matcher_of(selector) if held is None else held.matcher

    def release(self, selector: AnySelector) -> None:
        """Give back what one ``hold`` gave."""
        held = self._held[selector]
        held.holders -= 1
        if not held.holders:
            del self._held[selector]
            self._regexes -= Counter(held.matcher.regexes)
            self._special -= isinstance(selector, StoreSelector)
            for key, heavy in list(self._heavy.items()):
                if key[0] is held.matcher and heavy.is_known:
                    del self._heavy[key]

    async def select(self, matcher: Matcher, batches: Sequence[EncodedBatch]) -> list[EncodedBatch]:
        """What ``matcher`` finds in each of some batches; others get their turns meanwhile."""
        matching, steps = list[EncodedBatch](), 0
        for batch in batches:
            cost = matcher.steps(batch.entries)
            if cost > self._limits.match_steps_max:
                found = await self._select_heavy(matcher, batch)
            else:
                steps += cost
                if steps > self._limits.match_steps_max:
                    await trio.lowlevel.checkpoint()
                    steps = cost
                found = matcher.select(batch)
            if found is not None:
                matching.append(found)
        await trio.lowlevel.checkpoint()
        return matching

    async def narrow(self, matcher: Matcher, rows: Sequence[Entry]) -> list[Entry]:
        """Those of some rows that match, in their order."""
        await trio.lowlevel.checkpoint()
        if matcher.steps(rows) <= self._limits.match_steps_max:
            return [row for row in rows if matcher.takes(row)]
        return await self._take_turns(matcher, rows)

    async def _take_turns(self, matcher: Matcher, entries: Sequence[Entry]) -> list[Entry]:
        """Those of ``entries`` that match, found by threads that others use between two turns."""
        await trio.lowlevel.checkpoint_if_cancelled()
        found = list[Entry]()
        at = 0
        while at < len(entries):
            if matcher.steps(entries[at : at + 1]) > TURN_STEPS:
                if await self._takes_long(matcher.looks(entries[at])):
                    found.append(entries[at])
                at += 1
            else:
                more, at = await self._elsewhere(partial(_turn, matcher, entries, at))
                found += more
        return found

    async def _takes_long(self, looks: Iterator[bool]) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        look = partial(next, looks, None)
        while (takes := await self._long(look)) is not None:
            if takes:
                return True
        return False

    def _admit(self, selector: AnySelector, matcher: Matcher) -> None:
        if isinstance(selector, StoreSelector):
            if self._special >= self._limits.special_selectors_max:
                raise OverloadedError(
                    f"{self._special} different selectors with match keys or value filters are"
                    " followed; try again when one is let go"
                )
            new = sum(regex not in self._regexes for regex in matcher.regexes)
            if new and len(self._regexes) + new > self._limits.regexes_max:
                raise OverloadedError(
                    f"{len(self._regexes)} different regexes are in use; try again later"
                )
            self._special += 1
        self._regexes += Counter(matcher.regexes)
        self._held[selector] = _Held(matcher)

    async def _select_heavy(self, matcher: Matcher, batch: EncodedBatch) -> EncodedBatch | None:
        """By threads, once for all who want it; whoever is cancelled leaves it to the next."""
        key = (matcher, batch.sequence)
        while (known := self._heavy.get(key)) is not None:
            await known.done.wait()
            if known.is_known:
                return known.found
        heavy = self._heavy[key] = _Heavy()
        try:
            matching = tuple(await self._take_turns(matcher, batch.entries))
            if matching:
                heavy.found = EncodedBatch(batch.sequence, batch.committed_at, entries=matching)
            heavy.is_known = True
        finally:
            heavy.done.set()
            if not heavy.is_known or _bytes(heavy.found) > KEPT_BYTES_MAX // KEPT_MAX:
                del self._heavy[key]
        for old, other in list(self._heavy.items())[:-KEPT_MAX]:
            if other.is_known:
                del self._heavy[old]
        return heavy.found


def _turn(matcher: Matcher, entries: Sequence[Entry], at: int) -> tuple[list[Entry], int]:
    """Those that match of a turn's worth of ``entries`` from ``at`` on, and where it ended."""
    found = list[Entry]()
    steps = 0
    while at < len(entries):
        steps += matcher.steps(entries[at : at + 1])
        if steps > TURN_STEPS:
            break
        if matcher.takes(entries[at]):
            found.append(entries[at])
        at += 1
    return found, at


def _bytes(found: EncodedBatch | None) -> int:
    return sum([len(key) + len(value or b"") for _, key, value in found.entries]) if found else 0
