"""The journal: what a child said before it died, kept outside of it, and what follows from that.

A child speaks in lines over a pipe, so what it has said is known even if it was killed in the very
next instruction. Every line is checked against all that was said and found before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from exo_stream.model import Entry
from tests.torture import workload

Author = tuple[int, int]
"""A writer, and which of its batches."""


class Journal:
    """What was acknowledged to whom, over all lives of one file, and the state that it adds up to.

    ``next_numbers`` is where each writer goes on in the next life; ``table`` the fold of all
    batches up to ``judged``, a key's value with the sequence that wrote it.
    """

    def __init__(self, seed: str, *, writers: int) -> None:
        self.seed = seed
        self.next_numbers = [0] * writers
        self.authors: dict[int, Author] = {}
        self.acknowledged = 0
        self.shown = 0
        self.judged = 0
        self.floor = 1
        self.floor_asked = 1
        self.log_id = ""
        self.table: dict[bytes, tuple[bytes | None, int]] = {}
        self.refusals: list[tuple[Author, str]] = []
        self._sequences: dict[Author, int] = {}
        self._not_before: dict[Author, int] = {}
        self._folded_numbers = [0] * writers

    def hear(self, line: str) -> None:
        """Take one line of a child's."""
        match line.split():
            case ["opened", log_id, frontier, floor]:
                self._open(log_id, int(frontier), int(floor))
            case ["try", writer, number]:
                self._not_before.setdefault((int(writer), int(number)), self.acknowledged)
            case ["ack", writer, number, sequence]:
                self._acknowledge((int(writer), int(number)), int(sequence))
            case ["refused", writer, number, code]:
                self.refusals.append(((int(writer), int(number)), code))
            case ["shown", sequence]:
                self.shown = max(self.shown, int(sequence))
            case ["prune", cutoff]:
                self.floor_asked = max(self.floor_asked, int(cutoff))
            case ["pruned", cutoff, count]:
                self._evict(int(cutoff), int(count))
            case ["started", _] | ["closed"] | ["stopped", _]:
                pass
            case _:
                raise AssertionError(line)

    def _open(self, log_id: str, frontier: int, floor: int) -> None:
        assert self.log_id in ("", log_id), "the log has changed its identity"
        self.log_id = log_id
        newest = max(self.acknowledged, self.shown, self.judged)
        assert frontier >= newest, f"the log ends at {frontier}, but {newest} was known"
        assert self.floor <= floor <= self.floor_asked, (self.floor, floor, self.floor_asked)
        self.floor = floor

    def _evict(self, cutoff: int, count: int) -> None:
        assert 0 <= count <= max(0, cutoff - self.floor), (self.floor, cutoff, count)
        self.floor += count

    def _acknowledge(self, author: Author, sequence: int) -> None:
        self.place(author, sequence)
        self.acknowledged = max(self.acknowledged, sequence)
        writer, number = author
        self.next_numbers[writer] = max(self.next_numbers[writer], number + 1)

    def everybody_acknowledged(self) -> int:
        """Every batch up to this one is acknowledged, if each writer has one under way at most."""
        newest = [
            self._sequences[writer, number - 1] if number else 0
            for writer, number in enumerate(self.next_numbers)
        ]
        return min(newest)

    def place(self, author: Author, sequence: int) -> None:
        """The batch has this number, now and for ever; no other has it."""
        known = self.authors.setdefault(sequence, author)
        assert known == author, f"batch {sequence} is {known}, and now {author}"
        before = self._sequences.setdefault(author, sequence)
        assert before == sequence, f"{author} took effect as {before} and as {sequence}"
        bound = self._not_before.get(author, 0)
        assert sequence > bound, f"{author} is {sequence}, but {bound} was acknowledged before it"

    def see(self, sequence: int, entries: Sequence[Entry]) -> None:
        """A batch was found in the log; it is whole, and the one that was acknowledged."""
        author = workload.author(entries)
        expected = workload.work(self.seed, *author).entries
        assert tuple(entries) == expected, f"batch {sequence}, of {author}, is torn"
        self.place(author, sequence)

    def conclude(self, frontier: int) -> None:
        """The log ends at ``frontier``; every batch up to it is known, in each writer's order."""
        newest = max(self.acknowledged, self.shown, self.judged)
        assert frontier >= newest, f"the log ends at {frontier}, but {newest} was known"
        for sequence in range(self.judged + 1, frontier + 1):
            assert sequence in self.authors, f"batch {sequence} is missing"
            writer, number = self.authors[sequence]
            assert number == self._folded_numbers[writer], (sequence, writer, number)
            self._folded_numbers[writer] += 1
            for _, key, value in workload.work(self.seed, writer, number).entries:
                self.table[key] = (value, sequence)
        self.judged = frontier
