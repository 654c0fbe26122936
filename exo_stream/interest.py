"""Who wants to hear of which entries: parked subscribers and live seats, by selector.

A group is matched against all prefixes at once, by a hash per prefix length; a thousand
subscribers with a thousand prefixes cost one look-up per entry and length. Other selectors are
found in the same way, by how their keys begin; only then is there more to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from exo_stream.matchers import Matcher, about_stream, narrowed
from exo_stream.model import Entry, Keyspace
from exo_stream.payload import EncodedBatch
from exo_stream.selectors import AnySelector, Selector, StoreSelector, StreamSelector


class Body(Protocol):
    """What all seats of a selector share of one frame.

    Whoever has taken it has received everything up to ``finished``; None if the rest of a batch
    is still to come.
    """

    @property
    def finished(self) -> int | None: ...


B = TypeVar("B", bound=Body)
V = TypeVar("V")

LOOK_STEPS: Final = 500
"""What finding one entry for one matcher costs, in the steps that matchers count."""

Encoder = Callable[[Sequence[EncodedBatch]], Sequence[B]]
"""Makes the bodies of some matched batches; one function for all seats that can share them."""


class Parked:
    """A subscriber that has caught up and sleeps until something matches.

    ``found`` is then what did, the matching entries only, of a group that ended with batch
    ``through``; nothing else did, from where the subscriber stood. Or it ``must_look``: the group
    was too much work to be matched for it.
    """

    __slots__ = ("found", "must_look", "through", "woken")

    def __init__(self) -> None:
        self.found: Sequence[EncodedBatch] | None = None
        self.through = 0
        self.must_look = False
        self.woken = trio.Event()


class Seat(Generic[B]):
    """A caught-up subscriber that the fan-out may write to directly.

    ``try_send(body)`` never blocks and answers whether it took it; the seat is lost when it did
    not. ``sequence`` is the last one that the seat took.
    """

    __slots__ = ("encode", "lost", "selector", "sequence", "try_send")

    def __init__(
        self,
        selector: AnySelector,
        sequence: int,
        encode: Encoder[B],
        try_send: Callable[[B], bool],
    ) -> None:
        self.selector = selector
        self.sequence = sequence
        self.encode = encode
        self.try_send = try_send
        self.lost = trio.Event()


AnySeat = Seat[Any]
"""A seat of any connection: its ``encode`` makes what its ``try_send`` takes, whatever that is."""


@dataclass(slots=True, eq=False)
class Interested:
    """All that share one selector, and what carries it out."""

    selector: AnySelector
    matcher: Matcher
    parked: set[Parked] = field(default_factory=set)
    seats: dict[AnySeat, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.parked or self.seats)


class Interest:
    """The index. Subscribers enter and leave it synchronously; the fan-out actor reads it.

    ``through`` is the last sequence that has been matched and handed to everybody: whoever has
    been in the index since before ``through`` and was not woken has missed nothing.
    """

    def __init__(
        self, through: int, matcher_of: Callable[[AnySelector], Matcher], *, steps_max: int
    ) -> None:
        self.through = through
        self.closed = False
        self._matcher_of = matcher_of
        self._steps_max = steps_max
        self._all: dict[AnySelector, Interested] = {}
        self._by_prefix: _Index[Selector] = _Index()
        self._by_lead: _Index[dict[Interested, None]] = _Index()
        self._by_name: dict[bytes, StreamSelector] = {}
        self._by_name_prefix: _Index[StreamSelector] = _Index()

    def __len__(self) -> int:
        return sum(len(some.parked) + len(some.seats) for some in self._all.values())

    @property
    def seats(self) -> int:
        """How many live seats there are."""
        return sum(len(some.seats) for some in self._all.values())

    def park(self, selector: AnySelector) -> Parked:
        """Be woken by the next group that matches."""
        parked = Parked()
        self._interested(selector).parked.add(parked)
        return parked

    def unpark(self, selector: AnySelector, parked: Parked) -> None:
        """Leave, woken or not."""
        self._all[selector].parked.discard(parked)
        self._forget_if_empty(selector)

    def take_seat(self, seat: AnySeat) -> None:
        """Have the fan-out write to it what follows ``seat.sequence``, which is the frontier.

        The fan-out may still be busy with groups up to the frontier; it skips them here.
        """
        assert seat.sequence >= self.through, (seat.sequence, self.through)
        self._interested(seat.selector).seats[seat] = None

    def leave_seat(self, seat: AnySeat) -> int:
        """Give the seat up, lost already or not; the answer is the last sequence it took."""
        some = self._all.get(seat.selector)
        if some is not None and seat in some.seats:
            del some.seats[seat]
            self._forget_if_empty(seat.selector)
            seat.sequence = max(seat.sequence, self.through)
        return seat.sequence

    def lose_seat(self, seat: AnySeat) -> None:
        """Take a seat away from a subscriber that could not take a frame, and tell it."""
        self.leave_seat(seat)
        seat.lost.set()

    def close(self) -> None:
        """Nothing more will match: wake the parked and take the seats away."""
        self.closed = True
        for some in list(self._all.values()):
            for parked in some.parked:
                parked.woken.set()
            for seat in list(some.seats):
                self.lose_seat(seat)

    def interested(self, selector: AnySelector) -> Interested | None:
        """Who shares ``selector``, if anybody still does."""
        return self._all.get(selector)

    def match(self, batches: Sequence[EncodedBatch]) -> dict[AnySelector, list[EncodedBatch]]:
        """What each selector of the index finds in these batches, its matching entries only.

        One pass over the entries for each length of prefix: whoever is interested looks at none
        but its own, however many others there are. An empty list is of a selector that may find
        something, but at too much work: those who share it must look for themselves.
        """
        matched: dict[AnySelector, list[EncodedBatch]] = {}
        lengths = self._by_prefix.tables()
        for batch in batches if lengths else ():
            for keyspace, length, table in lengths:
                if not length:
                    selector = table[b""]
                    whole = selector.select(batch)
                    if whole is not None:
                        matched.setdefault(selector, []).append(whole)
                    continue
                for prefix, entries in _by_prefix(batch, keyspace, length, table).items():
                    part = EncodedBatch(batch.sequence, batch.committed_at, entries=tuple(entries))
                    matched.setdefault(table[prefix], []).append(part)
        if self._by_lead:
            matched.update(self._match_others(batches))
        if self._by_name or self._by_name_prefix:
            self._match_streams(batches, matched)
        return matched

    def _match_streams(
        self, batches: Sequence[EncodedBatch], matched: dict[AnySelector, list[EncodedBatch]]
    ) -> None:
        """What those find who follow streams: one look at each batch, whatever its size."""
        lengths = self._by_name_prefix.tables()
        for batch in batches:
            if not batch.entries or batch.entries[0][0] != Keyspace.STREAM:
                continue
            key = batch.entries[0][1]
            wanted = [table.get(key[:length]) for _, length, table in lengths]
            found = [selector for selector in (self._by_name.get(key), *wanted) if selector]
            part = about_stream(batch) if found else batch
            for selector in found:
                matched.setdefault(selector, []).append(part)

    def _match_others(
        self, batches: Sequence[EncodedBatch]
    ) -> dict[AnySelector, list[EncodedBatch]]:
        """What those find that ask for more than how keys begin; of each an empty list if that is
        too much work. The cheapest come first, so that they never pay for the dear ones.
        """
        looks_left = self._steps_max // LOOK_STEPS
        costs: Counter[Interested] = Counter()
        asked: list[tuple[EncodedBatch, dict[Interested, list[Entry]]]] = []
        for batch in batches:
            candidates = _candidates(batch, self._by_lead, looks_left)
            if candidates is None:
                return {s: [] for s in self._all if isinstance(s, StoreSelector)}
            looks_left -= sum(map(len, candidates.values()))
            costs.update({some: some.matcher.steps(found) for some, found in candidates.items()})
            asked.append((batch, candidates))
        matched: dict[AnySelector, list[EncodedBatch]] = {}
        left = self._steps_max
        for some, cost in sorted(costs.items(), key=itemgetter(1)):
            left -= cost
            parts = [
                narrowed(some.matcher, batch, candidates[some])
                for batch, candidates in asked
                if left >= 0 and some in candidates
            ]
            found = [part for part in parts if part is not None]
            if found or left < 0:
                matched[some.selector] = found
        return matched

    def _interested(self, selector: AnySelector) -> Interested:
        some = self._all.get(selector)
        if some is None:
            some = self._all[selector] = Interested(selector, self._matcher_of(selector))
            for lead in some.matcher.leads:
                match selector:
                    case Selector():
                        self._by_prefix.setdefault(lead, selector)
                    case StreamSelector(is_prefix=True):
                        self._by_name_prefix.setdefault(lead, selector)
                    case StreamSelector():
                        self._by_name[lead[1]] = selector
                    case _:
                        self._by_lead.setdefault(lead, {})[some] = None
        return some

    def _forget_if_empty(self, selector: AnySelector) -> None:
        some = self._all[selector]
        if some:
            return
        del self._all[selector]
        for lead in some.matcher.leads:
            match selector:
                case Selector():
                    self._by_prefix.remove(lead)
                case StreamSelector(is_prefix=True):
                    self._by_name_prefix.remove(lead)
                case StreamSelector():
                    del self._by_name[lead[1]]
                case _:
                    sharing = self._by_lead.setdefault(lead, {})
                    del sharing[some]
                    if not sharing:
                        self._by_lead.remove(lead)


class _Index(Generic[V]):
    """Values by a keyspace and the beginning of a key, one table for each length of beginning."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], dict[bytes, V]] = {}

    def __bool__(self) -> bool:
        return bool(self._tables)

    def tables(self) -> list[tuple[int, int, dict[bytes, V]]]:
        """Every keyspace and length that somebody asked for, and what begins so."""
        return [(keyspace, n, table) for (keyspace, n), table in self._tables.items()]

    def setdefault(self, lead: tuple[int, bytes], value: V) -> V:
        keyspace, start = lead
        return self._tables.setdefault((keyspace, len(start)), {}).setdefault(start, value)

    def remove(self, lead: tuple[int, bytes]) -> None:
        keyspace, start = lead
        table = self._tables[keyspace, len(start)]
        del table[start]
        if not table:
            del self._tables[keyspace, len(start)]


def _candidates(
    batch: EncodedBatch, index: _Index[dict[Interested, None]], looks_max: int
) -> dict[Interested, list[Entry]] | None:
    """The entries that each has to look at, in their order; None if they are too many."""
    found: dict[Interested, list[Entry]] = {}
    last: dict[Interested, int] = {}
    tables = index.tables()
    for number, entry in enumerate(batch.entries):
        for keyspace, length, table in tables:
            if entry[0] != keyspace:
                continue
            for some in table.get(entry[1][:length], ()):
                if last.get(some) != number:  # begun by two of its leads
                    last[some] = number
                    found.setdefault(some, []).append(entry)
                    looks_max -= 1
        if looks_max < 0:
            return None
    return found


def _by_prefix(
    batch: EncodedBatch, keyspace: int, length: int, wanted: Container[bytes]
) -> dict[bytes, list[Entry]]:
    """The entries with a wanted prefix of this length, in their order."""
    found: dict[bytes, list[Entry]] = {}
    for entry in batch.entries:
        if entry[0] == keyspace and (prefix := entry[1][:length]) in wanted:
            found.setdefault(prefix, []).append(entry)
    return found
