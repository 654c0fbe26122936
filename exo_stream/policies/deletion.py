"""The deletion of judged rows as a decision: only what is still as it was when it was judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from exo_stream.decision import Answer, Decision, Need, Unknown, Verdict, View, Write
from exo_stream.model import Entry, Keyspace
from exo_stream.payload import encode_body, join_bodies
from exo_stream.policies.pruning import Doomed


@dataclass(frozen=True, slots=True)
class Deletion:
    """One batch of deletions, and how many rows it spared; ``sequence`` 0 if all of them."""

    sequence: int
    spared: int = 0
    spared_bytes: int = 0

    def numbered(self, sequence: int) -> Deletion:
        """The same under the number that a backend gave the batch."""
        return replace(self, sequence=sequence)


Changed = Callable[[View, Doomed, int], bool | Unknown]
"""Whether a row was written or deleted after it was seen at a sequence."""


Part = tuple[Sequence[Entry], bytes]
"""Some of a batch's deletions, and their encoding: a batch is as much work as it has rows."""


def deletion_part(doomed: Sequence[Doomed]) -> Part:
    """The part of a batch that deletes these rows."""
    entries = _entries(doomed)
    return entries, encode_body(entries)


def deletion(
    doomed: Sequence[Doomed], parts: Sequence[Part], since: int, changed: Changed
) -> Decision[Deletion]:
    """Delete these rows, which were seen at ``since``, but for those that have changed.

    ``parts`` are what deletes them all. If none are left it writes nothing, and takes no sequence.
    """
    entries = tuple([entry for part, _ in parts for entry in part])
    payload = join_bodies(len(entries), [body for _, body in parts])

    def decide(view: View, _now: int) -> Verdict[Deletion]:
        if view.sequence == since + 1:  # nobody has written anything
            return Write(entries, Deletion(view.sequence), payload)
        kept: list[Doomed] = []
        unknown: list[tuple[int, bytes]] = []
        spared_bytes = 0
        for row in doomed:
            has_changed = changed(view, row, since)
            if isinstance(has_changed, Unknown):
                unknown.append((int(Keyspace.STORE), row.key))
            elif has_changed:
                spared_bytes += row.size
            else:
                kept.append(row)
        if unknown:
            return Need(keys=unknown)
        if not kept:
            return Answer(Deletion(0, len(doomed), spared_bytes))
        if len(kept) == len(doomed):
            return Write(entries, Deletion(view.sequence), payload)
        spared = len(doomed) - len(kept)
        return Write(_entries(kept), Deletion(view.sequence, spared, spared_bytes))

    return decide


def written_since(view: View, row: Doomed, since: int) -> bool | Unknown:
    """Changed, where every write has its sequence."""
    return view.changed(Keyspace.STORE, row.key, since)


def value_differs(view: View, row: Doomed, _since: int) -> bool | Unknown:
    """Changed, where a backend tells no versions and rows were judged under their ``stamp``.

    The same value written anew is no change there.
    """
    found = view.row(Keyspace.STORE, row.key)
    if isinstance(found, Unknown):
        return found
    return found is None or found.value is None or stamp(found.value) != row.version


def stamp(value: bytes) -> int:
    """What stands for the version of a value that has none."""
    return int.from_bytes(blake2b(value, digest_size=16).digest(), "big")


def _entries(doomed: Sequence[Doomed]) -> tuple[Entry, ...]:
    store = int(Keyspace.STORE)
    return tuple([Entry(store, row.key, None) for row in doomed])
