"""The Version: everything a reader needs, as one immutable object; and the pins that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from exo_stream.storage.engine import Version
from exo_stream.storage.memtable import Memtable
from exo_stream.storage.run import Run


@dataclass(frozen=True, slots=True, eq=False)
class TableVersion:
    """The table and the log at ``frontier``: memtables first, then runs from newest to oldest.

    It is read without a lock on any thread. Whoever uses it later than now pins it.
    """

    frontier: int
    floor: int
    live: Memtable
    frozen: Memtable | None = None
    runs: tuple[Run, ...] = ()

    @property
    def memtables(self) -> Iterator[Memtable]:
        """Those that hold entries, the newest first."""
        yield self.live
        if self.frozen is not None:
            yield self.frozen

    def bytes_beside(self, versions: Iterable[Version]) -> int:
        """What the memtables take that only those other Versions have."""
        held: dict[int, Memtable] = {}
        for version in versions:
            assert isinstance(version, TableVersion), version
            held.update((id(memtable), memtable) for memtable in version.memtables)
        for memtable in self.memtables:
            held.pop(id(memtable), None)
        return sum(memtable.bytes_held for memtable in held.values())


class Pins:
    """How often each Version is held; touched on the event loop only."""

    def __init__(self) -> None:
        self._counts: dict[TableVersion, int] = {}
        self._sorted: list[int] | None = []

    @property
    def frontiers(self) -> list[int]:
        """The held frontiers in rising order, each once."""
        # When asked, which a commit does: a read of one key holds a Version and lets it go again.
        if self._sorted is None:
            self._sorted = sorted({version.frontier for version in self._counts})
        return self._sorted

    def pin(self, version: Version) -> None:
        """Hold ``version`` once more."""
        assert isinstance(version, TableVersion), version
        count = self._counts.get(version, 0)
        self._counts[version] = count + 1
        if not count:
            self._sorted = None

    def unpin(self, version: Version) -> None:
        """Let go of it once."""
        assert isinstance(version, TableVersion), version
        assert version in self._counts, (version.frontier, self.frontiers)
        count = self._counts[version] - 1
        if count:
            self._counts[version] = count
        else:
            del self._counts[version]
            self._sorted = None

    def log_floor(self, floor: int) -> int:
        """The oldest batch that must stay in the file though the log's floor is at ``floor``.

        Whoever holds a Version may go on to follow the log from there.
        """
        return min(floor, self.frontiers[0] + 1) if self._counts else floor

    def __iter__(self) -> Iterator[TableVersion]:
        return iter(self._counts)

    def __contains__(self, version: object) -> bool:
        return version in self._counts
