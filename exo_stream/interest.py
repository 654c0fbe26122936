"""Who wants to hear of which entries: parked subscribers and live seats, by selector.

A group is matched against all prefixes at once, by a hash per prefix length; a thousand
subscribers with a thousand prefixes cost one look-up per entry and length.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import trio

from exo_stream.model import Entry
from exo_stream.payload import EncodedBatch
from exo_stream.selectors import Selector


class Body(Protocol):
    """What all seats of a selector share of one frame.

    Whoever has taken it has received everything up to ``finished``; None if the rest of a batch
    is still to come.
    """

    @property
    def finished(self) -> int | None: ...


B = TypeVar("B", bound=Body)

Encoder = Callable[[Sequence[EncodedBatch]], Sequence[B]]
"""Makes the bodies of some matched batches; one function for all seats that can share them."""


class Parked:
    """A subscriber that has caught up and sleeps until something matches.

    ``found`` is then what did, the matching entries only, of a group that ended with batch
    ``through``; nothing else did, from where the subscriber stood.
    """

    __slots__ = ("found", "through", "woken")

    def __init__(self) -> None:
        self.found: Sequence[EncodedBatch] | None = None
        self.through = 0
        self.woken = trio.Event()


class Seat(Generic[B]):
    """A caught-up subscriber that the fan-out may write to directly.

    ``try_send(body)`` never blocks and answers whether it took it; the seat is lost when it did
    not. ``sequence`` is the last one that the seat took.
    """

    __slots__ = ("encode", "lost", "selector", "sequence", "try_send")

    def __init__(
        self,
        selector: Selector,
        sequence: int,
        encode: Encoder[B],
        try_send: Callable[[B], bool],
    ) -> None:
        self.selector = selector
        self.sequence = sequence
        self.encode = encode
        self.try_send = try_send
        self.lost = trio.Event()


@dataclass(slots=True)
class Interested:
    """All that share one selector."""

    parked: set[Parked] = field(default_factory=set)
    seats: dict[Seat[Any], None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.parked or self.seats)


class Interest:
    """The index. Subscribers enter and leave it synchronously; the fan-out actor reads it.

    ``through`` is the last sequence that has been matched and handed to everybody: whoever has
    been in the index since before ``through`` and was not woken has missed nothing.
    """

    def __init__(self, through: int) -> None:
        self.through = through
        self.closed = False
        self._all: dict[Selector, Interested] = {}
        self._by_prefix: dict[tuple[int, int], dict[bytes, Selector]] = {}

    def __len__(self) -> int:
        return sum(len(some.parked) + len(some.seats) for some in self._all.values())

    @property
    def seats(self) -> int:
        """How many live seats there are."""
        return sum(len(some.seats) for some in self._all.values())

    def park(self, selector: Selector) -> Parked:
        """Be woken by the next group that matches."""
        parked = Parked()
        self._interested(selector).parked.add(parked)
        return parked

    def unpark(self, selector: Selector, parked: Parked) -> None:
        """Leave, woken or not."""
        self._all[selector].parked.discard(parked)
        self._forget_if_empty(selector)

    def take_seat(self, seat: Seat[Any]) -> None:
        """Have the fan-out write to it what follows ``seat.sequence``, which is the frontier.

        The fan-out may still be busy with groups up to the frontier; it skips them here.
        """
        assert seat.sequence >= self.through, (seat.sequence, self.through)
        self._interested(seat.selector).seats[seat] = None

    def leave_seat(self, seat: Seat[Any]) -> int:
        """Give the seat up, lost already or not; the answer is the last sequence it took."""
        some = self._all.get(seat.selector)
        if some is not None and seat in some.seats:
            del some.seats[seat]
            self._forget_if_empty(seat.selector)
            seat.sequence = max(seat.sequence, self.through)
        return seat.sequence

    def lose_seat(self, seat: Seat[Any]) -> None:
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

    def interested(self, selector: Selector) -> Interested | None:
        """Who shares ``selector``, if anybody still does."""
        return self._all.get(selector)

    def match(self, batches: Sequence[EncodedBatch]) -> dict[Selector, list[EncodedBatch]]:
        """What each selector of the index finds in these batches, its matching entries only.

        One pass over the entries for each length of prefix: whoever is interested looks at none
        but its own, however many others there are.
        """
        matched: dict[Selector, list[EncodedBatch]] = {}
        lengths = [(keyspace, n, table) for (keyspace, n), table in self._by_prefix.items()]
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
        return matched

    def _interested(self, selector: Selector) -> Interested:
        some = self._all.get(selector)
        if some is None:
            some = self._all[selector] = Interested()
            length = (int(selector.keyspace), len(selector.prefix))
            self._by_prefix.setdefault(length, {})[selector.prefix] = selector
        return some

    def _forget_if_empty(self, selector: Selector) -> None:
        if not self._all[selector]:
            del self._all[selector]
            length = (int(selector.keyspace), len(selector.prefix))
            del self._by_prefix[length][selector.prefix]
            if not self._by_prefix[length]:
                del self._by_prefix[length]


def _by_prefix(
    batch: EncodedBatch, keyspace: int, length: int, wanted: Container[bytes]
) -> dict[bytes, list[Entry]]:
    """The entries with a wanted prefix of this length, in their order."""
    found: dict[bytes, list[Entry]] = {}
    for entry in batch.entries:
        if entry[0] == keyspace and (prefix := entry[1][:length]) in wanted:
            found.setdefault(prefix, []).append(entry)
    return found
