"""Hearing: a subscription's seats in the fan-out's index, which note what its streams do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exo_stream.frontier import Frontier
from exo_stream.interest import Interest, Seat
from exo_stream.payload import EncodedBatch
from exo_stream.selectors import StreamSelector
from exo_stream.streams.subscriptions.globs import literal_prefix
from exo_stream.streams.subscriptions.subscriptions import Kept


@dataclass(frozen=True, slots=True)
class Changes:
    """The streams that a group was about, and whether each was removed."""

    names: Sequence[tuple[str, bool]]
    finished: int | None


def changes(batches: Sequence[EncodedBatch]) -> Sequence[Changes]:
    """What a group says to those who are to be woken; made once for all who share a selector."""
    # Such a batch begins with the record of the stream that it is about.
    records = [batch.entries[0] for batch in batches]
    names = {key.decode(): value is None for _, key, value in records}
    return [Changes(list(names.items()), batches[-1].sequence)]


class Hearing:
    """What happens to the streams of one subscription is noted while it is open.

    It takes no task: the fan-out calls it. Everything from when it was entered on is heard.
    """

    def __init__(
        self, interest: Interest, frontier: Frontier, kept: Kept, pattern: str | None
    ) -> None:
        self._interest = interest
        self._frontier = frontier
        self._kept = kept
        self._pattern = pattern
        self._explicit: frozenset[str] = frozenset()
        self._seats: list[Seat[Changes]] = []

    def open(self) -> None:
        """Hear of what the pattern means."""
        if self._pattern is not None:
            self._sit([StreamSelector(literal_prefix(self._pattern), is_prefix=True)])

    def name(self, names: Iterable[str]) -> None:
        """Hear of these streams too."""
        self._explicit = frozenset(names)
        self._sit([StreamSelector(name) for name in self._explicit])

    def close(self) -> None:
        """Hear of nothing any more."""
        for seat in self._seats:
            self._interest.leave_seat(seat)
        self._seats.clear()

    def _sit(self, selectors: Iterable[StreamSelector]) -> None:
        for selector in selectors:
            seat = Seat(selector, self._frontier.visible, changes, self._hear)
            self._interest.take_seat(seat)
            self._seats.append(seat)

    def _hear(self, heard: Changes) -> bool:
        pending = self._kept.pending
        is_concerned = False
        for name, is_gone in heard.names:
            if pending.hear(self._pattern, self._explicit, name, is_gone=is_gone):
                is_concerned = True
        if is_concerned:
            self._kept.bell.ring()
        return True
