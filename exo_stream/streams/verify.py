"""Whether the streams of a file hold together: what every record says against what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from exo_stream.model import Keyspace
from exo_stream.streams.looking import read_remainder
from exo_stream.streams.messages import SPAN_BYTES, read_key, span
from exo_stream.streams.record import Record, decode_record
from exo_stream.streams.removal import LOOK, look_key
from exo_stream.streams.subscriptions.verify import SubscriptionCheck

WHOLE: Final = 1 << 20
"""More than a record has."""
HEADS: Final = {
    int(Keyspace.STREAM): WHOLE,
    int(Keyspace.STREAM_DATA): SPAN_BYTES,
    int(Keyspace.STREAM_PRODUCER): WHOLE,
    int(Keyspace.STREAM_UPKEEP): WHOLE,
    int(Keyspace.STREAM_SUBSCRIPTION): WHOLE,
}


@dataclass(slots=True)
class _Found:
    """What the rows of one incarnation say together."""

    first: int | None = None
    end: int | None = None
    through: int = 0


@dataclass(slots=True)
class StreamCheck:
    """Give it every live row of the streams' keyspaces, in the table's order; then ask.

    ``exo-stream verify`` does so with a file.
    """

    _records: dict[str, Record] = field(default_factory=dict)
    _data: dict[int, _Found] = field(default_factory=dict)
    _producers: set[int] = field(default_factory=set)
    _looks: set[bytes] = field(default_factory=set)
    _remainders: dict[int, str | None] = field(default_factory=dict)
    _subscriptions: SubscriptionCheck = field(default_factory=SubscriptionCheck)
    _problems: list[str] = field(default_factory=list)

    @property
    def heads(self) -> Mapping[int, int]:
        """The streams' keyspaces; of messages only what tells how many and how long they are."""
        return HEADS

    def take(self, keyspace: int, key: bytes, head: bytes, size: int) -> None:
        """One live row: its key, how its value begins, and how long that is."""
        match keyspace:
            case Keyspace.STREAM:
                self._records[key.decode()] = decode_record(head)
            case Keyspace.STREAM_DATA:
                self._take_data(key, head, size)
            case Keyspace.STREAM_PRODUCER:
                self._producers.add(int.from_bytes(key[:8], "big"))
            case Keyspace.STREAM_SUBSCRIPTION:
                self._subscriptions.take(key, head)
            case Keyspace.STREAM_UPKEEP if key.startswith(LOOK):
                self._looks.add(key)
            case _:
                origin = read_remainder(head)
                incarnation = int.from_bytes(key[1:], "big")
                self._remainders[incarnation] = None if origin is None else origin.name

    def _take_data(self, key: bytes, head: bytes, size: int) -> None:
        incarnation, end = read_key(key)
        start, count, through = span(end, head, size)
        found = self._data.setdefault(incarnation, _Found())
        if found.end is not None and start != found.end:
            self._problems.append(f"stream messages {incarnation}: {start} follows {found.end}")
        if found.end is not None and through != found.through + count:
            self._problems.append(f"stream messages {incarnation}: miscounted at {end}")
        found.first = start if found.first is None else found.first
        found.end, found.through = end, through

    def problems(self) -> list[str]:
        """Every contradiction, in a sentence; none if all is well."""
        return [
            *self._problems,
            *self._problems_of_records(),
            *self._problems_of_references(),
            *self._problems_of_what_is_nobodys(),
            *self._subscriptions.problems(self._records),
        ]

    def _problems_of_records(self) -> Iterator[str]:
        for name, record in self._records.items():
            found = self._data.get(record.incarnation, _Found())
            if not record.low <= record.tail or record.base > record.tail:
                yield f"stream {name!r}: its offsets contradict each other"
            elif found.end is not None and found.end != record.tail:
                yield f"stream {name!r}: it ends at {record.tail}, its messages at {found.end}"
            elif found.end is None and max(record.base, record.trimmed) < record.tail:
                yield f"stream {name!r}: its messages are missing"
            elif found.first is not None and found.first > max(record.base, record.trimmed):
                yield f"stream {name!r}: its first messages are missing"
            elif found.end is not None and found.through != record.messages:
                yield f"stream {name!r}: {found.through} messages, not {record.messages}"
            if record.deleted and not record.references:
                yield f"stream {name!r}: deleted, and kept for nobody"
            look = look_key(record.look_at, record.incarnation)
            if record.look_at and not record.deleted and look not in self._looks:
                yield f"stream {name!r}: nobody will look at it"

    def _problems_of_references(self) -> Iterator[str]:
        held = Counter([r.origin.name for r in self._records.values() if r.origin is not None])
        held += Counter([name for name in self._remainders.values() if name is not None])
        for name, record in self._records.items():
            if record.references != held[name]:
                yield f"stream {name!r}: {held[name]} forks, not {record.references}"
            origin = record.origin
            source = None if origin is None else self._records.get(origin.name)
            if origin is not None and (source is None or source.incarnation != origin.incarnation):
                yield f"stream {name!r}: its source {origin.name!r} is missing"

    def _problems_of_what_is_nobodys(self) -> Iterator[str]:
        known = {record.incarnation for record in self._records.values()} | set(self._remainders)
        for incarnation in sorted((set(self._data) | self._producers) - known):
            yield f"stream messages {incarnation}: of no stream"
