"""The streams of one subscription that seem to have something pending: as many as are remembered.

It is a hint, made from what is heard of the log; a decision looks at the streams themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from exo_stream.streams.subscriptions.globs import matches
from exo_stream.streams.subscriptions.record import StreamInfo

NAMES_MAX: Final = 1_024
"""Streams that are remembered by name; of more it is known that there are more."""


class Pending:
    """Names in the order in which they were heard of, and whether they are all there are."""

    def __init__(self, *, names_max: int = NAMES_MAX) -> None:
        self._names: dict[str, int] = {}
        self._names_max = names_max
        self.heard = 0
        """How much has been heard so far; say it with what a decision saw that was asked then."""
        self.gone: dict[str, int] = {}
        """Streams that are no more."""
        self.is_whole = False
        """Whether nothing was left out; only a look at all streams can tell, at first."""

    def __len__(self) -> int:
        return len(self._names)

    def first(self, count: int) -> Sequence[str]:
        """Some of them, the oldest."""
        return [name for name, _ in zip(self._names, range(count), strict=False)]

    def hear(
        self, pattern: str | None, explicit: Iterable[str], name: str, *, is_gone: bool
    ) -> bool:
        """Something happened to a stream; answer whether that concerns the subscription."""
        if name not in explicit and (pattern is None or not matches(pattern, name)):
            return False
        self.heard += 1
        if is_gone:
            self._names.pop(name, None)
            self._remember(self.gone, name)
        else:
            self.gone.pop(name, None)
            self._remember(self._names, name)
        return True

    def add(self, names: Iterable[str]) -> None:
        """Streams that were looked up."""
        for name in names:
            self._remember(self._names, name)

    def learn(self, streams: Iterable[StreamInfo], asked: Iterable[str], heard: int) -> None:
        """What a decision saw of the streams it was ``asked`` about, when so much was ``heard``.

        What happened later it may not have seen.
        """
        pending = {info.path for info in streams if info.has_pending}
        for name in asked:
            if name not in pending and self._names.get(name, 0) <= heard:
                self._names.pop(name, None)

    def take_gone(self) -> Sequence[str]:
        """The streams that are no more, once."""
        gone = list(self.gone)
        self.gone.clear()
        return gone

    def _remember(self, names: dict[str, int], name: str) -> None:
        if name in names or len(names) < self._names_max:
            names[name] = self.heard
        else:
            self.is_whole = False
