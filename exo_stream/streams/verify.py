"""Whether the streams of a file hold together: what every record says against what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from exo_stream.model import Keyspace, Row
from exo_stream.streams.looking import read_remainder
from exo_stream.streams.messages import decode, read_key
from exo_stream.streams.record import Record, decode_record
from exo_stream.streams.removal import LOOK, look_key


@dataclass(slots=True)
class _Found:
    """What the rows of one incarnation say together."""

    first: int | None = None
    end: int | None = None
    through: int = 0


@dataclass(slots=True)
class StreamCheck:
    """Give it every live row of the streams' keyspaces, in the table's order; then ask."""

    _records: dict[str, Record] = field(default_factory=dict)
    _data: dict[int, _Found] = field(default_factory=dict)
    _producers: set[int] = field(default_factory=set)
    _looks: set[bytes] = field(default_factory=set)
    _remainders: dict[int, str | None] = field(default_factory=dict)
    _problems: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """One row; those of other keyspaces do not count."""
        key, value = row.key[1:], row.value or b""
        match row.key[0]:
            case Keyspace.STREAM:
                self._records[key.decode()] = decode_record(value)
            case Keyspace.STREAM_DATA:
                self._add_data(key, value)
            case Keyspace.STREAM_PRODUCER:
                self._producers.add(int.from_bytes(key[:8], "big"))
            case Keyspace.STREAM_UPKEEP if key.startswith(LOOK):
                self._looks.add(key)
            case Keyspace.STREAM_UPKEEP:
                origin = read_remainder(value)
                incarnation = int.from_bytes(key[1:], "big")
                self._remainders[incarnation] = None if origin is None else origin.name
            case _:
                pass

    def _add_data(self, key: bytes, value: bytes) -> None:
        incarnation, end = read_key(key)
        stored, found = decode(end, value), self._data.setdefault(incarnation, _Found())
        if found.end is not None and stored.start != found.end:
            self._problems.append(
                f"stream messages {incarnation}: {stored.start} follows {found.end}"
            )
        if found.end is not None and stored.through != found.through + stored.count:
            self._problems.append(f"stream messages {incarnation}: miscounted at {end}")
        found.first = stored.start if found.first is None else found.first
        found.end, found.through = end, stored.through

    def problems(self) -> list[str]:
        """Every contradiction, in a sentence; none if all is well."""
        return [
            *self._problems,
            *self._problems_of_records(),
            *self._problems_of_references(),
            *self._problems_of_what_is_nobodys(),
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


def stream_problems(rows: Iterable[Row]) -> list[str]:
    """What contradicts itself in these rows, which are all live ones in the table's order."""
    check = StreamCheck()
    for row in rows:
        check.add(row)
    return check.problems()
