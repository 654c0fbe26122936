"""What is decided about streams, when every row may have to be fetched first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from exo_stream.decision import Answer, Need, Refuse, Write
from exo_stream.limits import Limits
from exo_stream.model import Batch, Entry, Keyspace
from exo_stream.stream_errors import (
    ContentTypeMismatchError,
    ForkFromTombstoneError,
    ForkOffsetBeyondTailError,
    OffsetEvictedError,
    StreamGoneError,
    StreamNotFoundError,
    StreamPathBlockedError,
)
from exo_stream.streams import ending, looking
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.appending import Append, Refused, append
from exo_stream.streams.changes import stream_change
from exo_stream.streams.creation import Create, Fork, ForkPoint, LookAgain, create, fork
from exo_stream.streams.looking import Trim
from exo_stream.streams.record import (
    SECOND,
    Record,
    decode_record,
    producer_key,
    stream_key,
)
from exo_stream.streams.removal import LEVELS_MAX, look_key, remainder_key
from exo_stream.streams.values import StreamConfig, StreamProducer
from tests.test_producers import Table

MESSAGES = st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=6)


def record_of(incarnation: int = 5, **fields: Any) -> Record:
    config = fields.pop("config", StreamConfig("text/plain", ttl_seconds=80))
    record = Record(incarnation, config, 10, 2, False, False, 1, 2, 3)
    return record._replace(last_start=5, **fields)


# --- decisions, whose rows may have to be fetched ----------------------------------------------


class Cold(Table):
    """A table of which every row has to be fetched once."""

    def __init__(self, now: int = 0) -> None:
        super().__init__()
        self.now = now
        self.accesses = Accesses(0)

    def carry_out(self, decision: Any) -> Any:
        """The answer, once all that was asked for has been fetched; every row but that is cold."""
        self.cold = {row.key[1:] for row in self.found.values()}
        for _ in range(8):
            verdict = decision(self, self.now)
            match verdict:
                case Need(keys=keys):
                    assert keys, verdict
                    assert self.cold >= {key for _, key in keys}, "asked for twice"
                    self.cold -= {key for _, key in keys}
                case Write(entries=entries, answer=answer):
                    self.write(entries)
                    return answer
                case Answer(answer=answer):
                    return answer
                case Refuse(error=error):
                    raise error
                case _:
                    raise AssertionError(verdict)
        raise AssertionError("it keeps asking")

    def record(self, name: str) -> Record | None:
        row = self.found.get(bytes([Keyspace.STREAM]) + stream_key(name))
        return None if row is None or row.value is None else decode_record(row.value)

    def rows_of(self, keyspace: Keyspace) -> list[bytes]:
        return [
            row.key[1:]
            for row in self.found.values()
            if row.key[0] == keyspace and row.value is not None
        ]

    def create(self, name: str, config: StreamConfig | None = None, *messages: bytes) -> Any:
        request = Create(name, config or StreamConfig(), messages)
        return self.carry_out(create(request, self.accesses))

    def append(self, name: str, *messages: bytes, **options: Any) -> Any:
        request = Append(name, messages, **options)
        return self.carry_out(append(request, self.accesses, Limits()))

    def fork(self, name: str, source: str, **options: Any) -> Any:
        record = self.record(source)
        point = options.pop("point", ForkPoint(record.incarnation if record else 0, None))
        return self.carry_out(fork(Fork(name, source, point, **options), self.accesses))

    def delete(self, name: str) -> Any:
        return self.carry_out(ending.delete(name, self.accesses))


def test_what_is_not_in_memory_is_asked_for() -> None:
    table = Cold()
    table.create("s", None, b"x")
    table.append("s", b"y", producer=StreamProducer("p", 0, 0))
    assert table.append("s", b"y", producer=StreamProducer("p", 0, 0)).duplicate
    table.fork("f", "s")
    assert not table.fork("f", "s").created
    table.delete("s")
    with pytest.raises(StreamGoneError):
        table.append("s", b"z")
    table.delete("f")
    assert table.record("s") is None
    assert len(table.rows_of(Keyspace.STREAM_UPKEEP)) == 2  # both have messages left


def test_the_first_entry_of_a_batch_is_the_record_of_its_stream() -> None:
    """Who follows a stream by name looks at no other."""
    table = Cold()
    seen: list[tuple[int, bytes]] = []
    write = table.write

    def noting(entries: Any) -> int:
        seen.append(entries[0][:2])
        return write(entries)

    table.write = noting  # type: ignore[method-assign]  # notes what is written
    table.create("s", StreamConfig(ttl_seconds=5, retention_bytes=1), b"x")
    table.append("s", b"y", close=True)
    table.fork("f", "s")
    table.delete("s")
    table.delete("f")
    assert seen == [(Keyspace.STREAM, name) for name in (b"s", b"s", b"f", b"s", b"f")]


def test_a_fork_costs_the_same_however_deep_it_is_and_however_much_it_shares() -> None:
    table = Cold()
    written: list[list[int]] = []
    asked: list[int] = []
    write, row = table.write, table.row

    def noting(entries: Any) -> int:
        written.append([keyspace for keyspace, _, _ in entries])
        return write(entries)

    def reading(keyspace: int, key: bytes) -> Any:
        asked.append(keyspace)
        return row(keyspace, key)

    table.create("0", None, *[b"x" * 1_000] * 1_000)
    table.write = noting  # type: ignore[method-assign]  # notes what is written
    table.row = reading  # type: ignore[method-assign]  # and what is read
    costs = []
    for depth in range(1, 101):
        asked.clear()
        table.fork(str(depth), str(depth - 1))
        costs.append((written.pop(), len(asked)))
        table.append(str(depth), b"y" * depth)
        written.clear()
    # Two records, its own and its source's, and no message.
    assert costs == [([Keyspace.STREAM, Keyspace.STREAM], costs[0][1])] * 100


def test_a_long_chain_is_let_go_of_a_few_at_a_time() -> None:
    table = Cold()
    table.create("0")
    for number in range(1, 10):
        table.fork(str(number), str(number - 1))
        table.delete(str(number - 1))
    incarnation = (table.record("9") or record_of()).incarnation
    table.delete("9")
    left = [name for name in map(str, range(10)) if table.record(name) is not None]
    assert len(left) == 9 - LEVELS_MAX
    rounds = 0
    while any(table.record(name) for name in left):
        rounds += 1
        assert table.carry_out(looking.let_go(incarnation)) is None
        assert rounds < 10
    table.carry_out(looking.let_go(incarnation))
    assert table.carry_out(looking.let_go(999)) is None


def test_an_expired_stream_is_removed_by_whoever_meets_it() -> None:
    config = StreamConfig(expires_at=10)
    for meet, *asked in ((Cold.append, "s", b"x"), (Cold.delete, "s")):
        table = Cold()
        table.create("s", config, b"x")
        table.now = 10
        answer = meet(table, *asked)
        assert isinstance(answer, Refused)
        assert isinstance(answer.error, StreamNotFoundError)
        assert table.record("s") is None


def test_an_expired_stream_with_forks_becomes_a_tombstone() -> None:
    table = Cold()
    table.create("s", StreamConfig(expires_at=10), b"x")
    table.fork("f", "s", expires_at=1_000)
    table.now = 10
    assert isinstance(table.append("s", b"x").error, StreamGoneError)
    assert table.record("s") is not None

    table = Cold()
    table.create("s", StreamConfig(expires_at=10), b"x")
    table.fork("f", "s", expires_at=1_000)
    table.now = 10
    answer = table.create("s")
    assert isinstance(answer.error, StreamPathBlockedError)
    found = table.record("s")
    assert found is not None
    assert found.deleted


def test_a_fork_is_looked_up_again_when_its_source_is_another_by_now() -> None:
    table = Cold()
    table.create("s", None, b"xyz")
    answer = table.fork("f", "s", point=ForkPoint(999, 2))
    assert isinstance(answer, LookAgain)
    assert table.record("f") is None


def test_a_fork_of_what_was_evicted_or_has_expired_meanwhile_is_refused() -> None:
    table = Cold()
    table.create("s", StreamConfig(expires_at=10), b"xyz")
    record = table.record("s")
    assert record is not None
    table.write([record._replace(low=2).entry("s")])
    with pytest.raises(OffsetEvictedError):
        table.fork("f", "s", point=ForkPoint(record.incarnation, 1))
    table.now = 10
    with pytest.raises(StreamNotFoundError):
        table.fork("f", "s", point=ForkPoint(record.incarnation, 2))


def test_an_expiry_that_was_planned_heeds_what_happened_meanwhile() -> None:
    table = Cold()
    table.create("s", StreamConfig(ttl_seconds=10), b"x")
    record = table.record("s")
    assert record is not None
    planned = ending.expire("s", record.incarnation, table.accesses)
    assert table.carry_out(planned) is False
    assert table.carry_out(ending.expire("s", 999, table.accesses)) is False
    assert table.carry_out(ending.expire("t", 999, table.accesses)) is False
    table.now = 3 * SECOND
    table.carry_out(ending.renew("s", record.incarnation, table.accesses))
    renewed = table.record("s")
    assert renewed is not None
    assert renewed.touched_at == 3 * SECOND
    table.now = 13 * SECOND
    table.carry_out(ending.renew("s", record.incarnation, table.accesses))
    assert table.record("s") == renewed
    assert table.carry_out(planned) is True
    assert table.carry_out(planned) is False


def test_a_look_moves_to_when_there_is_something_to_see() -> None:
    table = Cold()
    table.create("s", StreamConfig(ttl_seconds=10), b"x")
    record = table.record("s")
    assert record is not None
    at, incarnation = record.look_at, record.incarnation
    assert at == 10 * SECOND
    table.now = 5 * SECOND
    table.append("s", b"y")
    table.now = at
    look = looking.look("s", at, incarnation, table.accesses, None)
    assert table.carry_out(look) is False
    record = table.record("s")
    assert record is not None
    assert record.look_at == 15 * SECOND
    assert table.rows_of(Keyspace.STREAM_UPKEEP) == [look_key(15 * SECOND, incarnation)]
    assert table.carry_out(look) is False  # done already
    table.now = 15 * SECOND
    again = looking.look("s", 15 * SECOND, incarnation, table.accesses, None)
    assert table.carry_out(again) is True
    assert table.rows_of(Keyspace.STREAM_UPKEEP) == [remainder_key(incarnation)]


def test_a_look_at_a_stream_that_is_no_more_is_dropped() -> None:
    table = Cold()
    table.create("s", StreamConfig(ttl_seconds=10), b"x")
    record = table.record("s")
    assert record is not None
    table.delete("s")
    look = looking.look("s", record.look_at, record.incarnation, table.accesses, None)
    assert table.carry_out(look) is False
    assert table.rows_of(Keyspace.STREAM_UPKEEP) == [remainder_key(record.incarnation)]


def test_a_trim_that_was_planned_heeds_what_happened_meanwhile() -> None:
    table = Cold(now=5)
    table.create("s", StreamConfig(retention_bytes=1), b"one")
    table.append("s", b"two")
    record = table.record("s")
    assert record is not None
    assert record.look_at
    look = look_key(record.look_at, record.incarnation)
    assert look in table.rows_of(Keyspace.STREAM_UPKEEP)
    late = Trim(was=999, low=3, low_messages=1, oldest_at=0)
    args = ("s", record.look_at, record.incarnation, table.accesses)
    assert table.carry_out(looking.look(*args, late)) is False
    unchanged = table.record("s")
    assert unchanged is not None
    assert unchanged.low == 0
    assert unchanged.look_at == table.now  # there is still something to let go of


def test_what_is_left_is_deleted_blindly_and_its_mark_last() -> None:
    table = Cold()
    rows = [(int(Keyspace.STREAM_PRODUCER), producer_key(5, "p"))]
    for last, expected in ((False, 1), (True, 2)):
        verdict = looking.drop(5, rows, last=last)(table, 0)
        assert isinstance(verdict, Write)
        assert len(verdict.entries) == expected
        assert all(entry.value is None for entry in verdict.entries)


def test_everything_that_a_refusal_rests_on_is_asked_for() -> None:
    table = Cold()
    table.create("s", None, b"xyz")
    table.fork("f", "s", expires_at=10)
    table.now = 10
    assert isinstance(table.append("f", b"x"), Refused)  # which lets go of its source
    source = table.record("s")
    assert source is not None
    assert source.references == 0
    with pytest.raises(ForkOffsetBeyondTailError):
        table.fork("g", "s", point=ForkPoint(source.incarnation, 4))
    with pytest.raises(ContentTypeMismatchError):
        table.fork("g", "s", content_type="text/plain")
    table.fork("g", "s")
    table.delete("s")
    with pytest.raises(ForkFromTombstoneError):
        table.fork("h", "s")


def test_what_forks_share_is_let_go_of_when_they_are_gone() -> None:
    """Retention moves on meanwhile, and deletes nothing."""
    table = Cold(now=5)
    table.create("s", StreamConfig(retention_bytes=1), b"one")
    table.append("s", b"two")
    table.fork("f", "s")
    record = table.record("s")
    assert record is not None
    trim = Trim(0, 3, 1, 5, doomed=[b"a row"], trimmed=3)
    args = ("s", record.look_at, record.incarnation, table.accesses)
    assert table.carry_out(looking.look(*args, trim)) is False
    record = table.record("s")
    assert record is not None
    assert (record.low, record.trimmed, record.look_at) == (3, 0, 0)
    table.delete("f")
    record = table.record("s")
    assert record is not None
    assert record.trim_due_at(77) == 77
    assert record.look_at == table.now  # somebody will come for the rows


def test_a_batch_that_lets_go_of_messages_appends_none() -> None:
    record = record_of(config=StreamConfig())
    batch = Batch(
        1,
        2,
        (
            record.entry("s"),
            Entry(Keyspace.STREAM_DATA, b"k", None),
            Entry(Keyspace.STREAM, b"t", b""),
        ),
        "0" * 32,
    )
    change = stream_change(batch)
    assert change is not None
    assert change.messages == ()


def test_a_look_that_another_has_overtaken_is_dropped() -> None:
    table = Cold(now=5)
    table.create("s", StreamConfig(ttl_seconds=10, retention_bytes=1), b"one")
    record = table.record("s")
    assert record is not None
    late = record.look_at
    table.append("s", b"two")
    record = table.record("s")
    assert record is not None
    assert record.look_at == 5 < late
    look = looking.look("s", late, record.incarnation, table.accesses, None)
    assert table.carry_out(look) is False
    assert table.record("s") == record
    assert table.rows_of(Keyspace.STREAM_UPKEEP) == [look_key(5, record.incarnation)]
