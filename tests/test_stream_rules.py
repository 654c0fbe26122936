"""The rules of streams without a platform: offsets, messages, records, accesses, decisions."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.decision import Answer, Need, Refuse, Write
from exo_stream.errors import InvalidRequestError, RemoteProtocolError
from exo_stream.limits import Limits
from exo_stream.model import Batch, Entry, Keyspace
from exo_stream.protocol import codec
from exo_stream.selectors import Selector, StreamSelector
from exo_stream.stream_errors import (
    ContentTypeMismatchError,
    ForkFromTombstoneError,
    ForkOffsetBeyondTailError,
    InvalidOffsetError,
    OffsetEvictedError,
    StreamGoneError,
    StreamNotFoundError,
    StreamPathBlockedError,
)
from exo_stream.streams import checks, ending, looking
from exo_stream.streams.accesses import SLACK_SECONDS_MAX, Accesses, slack
from exo_stream.streams.appending import Append, Refused, append
from exo_stream.streams.changes import stream_change
from exo_stream.streams.creation import Create, Fork, ForkPoint, LookAgain, create, fork
from exo_stream.streams.looking import Trim
from exo_stream.streams.messages import SPAN_BYTES, Stored, decode, encode, span, unpacked
from exo_stream.streams.offset import NOW, POSITION_MAX, START, Offset, offset_of
from exo_stream.streams.record import (
    SECOND,
    Origin,
    Record,
    decode_record,
    producer_key,
    stream_key,
)
from exo_stream.streams.removal import LEVELS_MAX, look_key, remainder_key
from exo_stream.streams.values import StreamConfig, StreamProducer
from tests.test_producers import Table

MESSAGES = st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=6)


# --- offsets ---------------------------------------------------------------------------------


def test_offsets_are_written_so_that_text_sorts_as_they_do() -> None:
    positions = [0, 1, 9, 10, 10**15, POSITION_MAX]
    tokens = [str(Offset.at(position)) for position in positions]
    assert tokens == sorted(tokens)
    assert tokens[0] == "0000000000000000_0000000000000000"
    assert [Offset.parse(token).position for token in tokens] == positions


def test_the_sentinels_are_the_start_and_the_tail() -> None:
    assert Offset.parse("-1") == Offset.start() == START
    assert Offset.parse("now") == Offset.now() == NOW
    assert (str(NOW), NOW.is_now, START.is_now) == ("now", True, False)
    assert (NOW.within(7), START.within(7), Offset.at(9).within(7)) == (7, 0, 7)
    assert Offset.parse("9" * 16 + "_" + "9" * 16).within(7) == 7
    assert offset_of(START) is START


@pytest.mark.parametrize(
    "token",
    ["", "0", "0,1", "0 1", "-2", "NOW", "0" * 33, "0" * 16 + "_" + "0" * 15]
    + ["0" * 16 + "_" + "0" * 16 + tail for tail in ("\n", "\x00", " ", "0", "/..")]
    + ["\u0660" * 16 + "_" + "0" * 16],
    ids=repr,
)
def test_nothing_else_is_an_offset(token: str) -> None:
    with pytest.raises(InvalidOffsetError):
        Offset.parse(token)


def test_a_number_is_no_offset() -> None:
    with pytest.raises(InvalidOffsetError):
        offset_of(5)  # type: ignore[arg-type]  # that is the point


# --- messages --------------------------------------------------------------------------------


@given(MESSAGES, st.integers(0, 1_000))
def test_messages_come_back_as_they_were(messages: list[bytes], start: int) -> None:
    size = sum(map(len, messages))
    value = encode(messages, committed_at=7, through=50)
    stored = decode(start + size, value)
    assert [data for _, data in stored.messages()] == messages
    assert (stored.start, stored.end, stored.count) == (start, start + size, len(messages))
    assert (stored.committed_at, stored.through) == (7, 50)
    assert stored.joined == b",".join(messages)
    assert span(start + size, value[:SPAN_BYTES], len(value)) == (start, len(messages), 50)
    twin = unpacked(stored.end, 7, 50, stored.packed_lengths(), stored.joined)
    assert list(twin.messages()) == list(stored.messages())


def text_of(stored: Stored | None) -> bytes:
    return b"".join(data for _, data in stored.messages()) if stored else b""


@given(MESSAGES, st.data())
def test_a_part_of_some_messages_is_that_part(messages: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(messages)
    stored = decode(100 + len(whole), encode(messages, committed_at=0, through=9))
    at = data.draw(st.integers(0, len(whole) - 1))

    after = stored.after(100 + at, divisible=True)
    assert (text_of(after), after.start, after.through) == (whole[at:], 100 + at, 9)
    until = stored.until(100 + at, divisible=True)
    assert text_of(until) == whole[:at]
    assert until is None or (until.end, until.start) == (100 + at, 100)

    behind = stored.after(100 + at, divisible=False)
    assert whole.endswith(text_of(behind))
    assert behind.start <= 100 + at < behind.start + len(next(iter(behind.messages()))[1])
    before = stored.until(100 + at, divisible=False)
    assert whole.startswith(text_of(before))
    assert before is None or before.end <= 100 + at
    page = stored.page(at + 1, divisible=True, text=False)
    assert text_of(page) == whole[: at + 1]


@given(st.text(min_size=1, max_size=20), st.integers(1, 80))
def test_a_page_of_text_can_be_decoded(text: str, bytes_max: int) -> None:
    data = text.encode()
    stored = decode(len(data), encode([data], committed_at=0, through=1))
    page = text_of(stored.page(bytes_max, divisible=True, text=True))
    assert data.startswith(page)
    # A single character that is larger is cut rather than nothing told.
    if bytes_max >= 4 or len(page) == len(data):
        assert text.startswith(page.decode())
    assert page


def test_what_is_no_text_is_cut_where_it_is() -> None:
    data = b"ab" + b"\x80" * 9
    stored = decode(len(data), encode([data], committed_at=0, through=1))
    assert text_of(stored.page(6, divisible=True, text=True)) == data[:6]
    stored = decode(4, encode([b"\xe2\x82\xac!"], committed_at=0, through=1))
    assert text_of(stored.page(2, divisible=True, text=True)) == b"\xe2\x82"


# --- records and accesses --------------------------------------------------------------------


def record_of(incarnation: int = 5, **fields: Any) -> Record:
    config = fields.pop("config", StreamConfig("text/plain", ttl_seconds=80))
    record = Record(incarnation, config, 10, 2, False, False, 1, 2, 3)
    return record._replace(last_start=5, **fields)


@pytest.mark.parametrize("origin", [None, Origin("s", 3, 4, 5)])
def test_a_record_comes_back_as_it_was(origin: Origin | None) -> None:
    record = record_of(origin=origin, last_seq="é", references=2)
    assert decode_record(record.encode()) == record
    assert len(record.encode()) < 150


def test_a_read_is_written_down_only_when_what_is_written_is_old() -> None:
    record, accesses = record_of(touched_at=0), Accesses(0)
    assert slack(record) == 10 * SECOND
    assert not accesses.touch(record, 10 * SECOND)
    assert accesses.expires_at(record) == 90 * SECOND
    assert accesses.touch(record, 10 * SECOND + 1)
    assert len(accesses) == 0  # what is written counts
    assert accesses.expires_at(record) == 80 * SECOND


def test_after_an_opening_a_stream_lives_for_the_slack_more() -> None:
    record = record_of(touched_at=0)
    accesses = Accesses(1)
    assert accesses.expires_at(record) == 90 * SECOND
    assert accesses.expired(record, 90 * SECOND)
    assert not accesses.expired(record, 90 * SECOND - 1)
    assert accesses.earliest_expiry(record, 5 * SECOND) == 85 * SECOND
    assert not accesses.touch(record, 9 * SECOND)
    assert accesses.expires_at(record) == 89 * SECOND
    accesses.forget(5)
    assert accesses.expires_at(record) == 90 * SECOND


def test_no_more_accesses_are_kept_in_memory_than_that() -> None:
    accesses = Accesses(0, remembered_max=2)
    records = [record_of(number, touched_at=0) for number in range(3)]
    for second, record in enumerate(records, start=1):
        assert not accesses.touch(record, second * SECOND)
    assert len(accesses) == 2
    assert accesses.expires_at(records[0]) == 90 * SECOND  # later than its access asks for
    assert accesses.expires_at(records[1]) == 82 * SECOND


def test_who_never_expires_is_not_kept_in_memory() -> None:
    accesses = Accesses(0)
    forever, at_once = (
        record_of(config=StreamConfig()),
        record_of(config=StreamConfig("x", None, 9)),
    )
    assert not accesses.touch(forever, 100 * SECOND)
    assert accesses.expires_at(forever) is None
    assert not accesses.expired(forever, 1 << 62)
    assert accesses.earliest_expiry(forever, 5) is None
    assert accesses.earliest_expiry(at_once, 5) == 9
    assert len(accesses) == 0
    long = record_of(config=StreamConfig("x", 10**9))
    assert slack(long) == SLACK_SECONDS_MAX * SECOND


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

    table.write = noting  # type: ignore[method-assign]
    table.create("s", StreamConfig(ttl_seconds=5, retention_bytes=1), b"x")
    table.append("s", b"y", close=True)
    table.fork("f", "s")
    table.delete("s")
    table.delete("f")
    assert seen == [(Keyspace.STREAM, name) for name in (b"s", b"s", b"f", b"s", b"f")]


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


SURROGATE = "\ud800"
FIVE: Any = 5
TEXT: Any = "p"


@pytest.mark.parametrize(
    "check",
    [
        lambda: checks.check_name(FIVE),
        lambda: checks.check_name(SURROGATE),
        lambda: checks.checked_config(TEXT),
        lambda: checks.check_content_type(FIVE),
        lambda: checks.check_content_type(" "),
        lambda: checks.checked_messages([b"x"] * 3, Limits(stream_append_messages_max=2)),
        lambda: checks.checked_messages([FIVE], Limits()),
        lambda: checks.check_seq(FIVE),
        lambda: checks.check_seq(SURROGATE),
        lambda: checks.check_seq(""),
        lambda: checks.check_seq("x" * 1_025),
        lambda: checks.check_producer(TEXT, Limits()),
        lambda: checks.check_producer(StreamProducer(FIVE, 0, 0), Limits()),
        lambda: checks.check_producer(StreamProducer(SURROGATE, 0, 0), Limits()),
        lambda: checks.check_producer(StreamProducer("p", 0, 1 << 60), Limits()),
        lambda: checks.check_producer(StreamProducer("", 0, 0), Limits()),
        lambda: checks.check_text("a prefix", FIVE),
        lambda: checks.check_number("a number", True),
    ],
    ids=range(18),
)
def test_what_cannot_be_is_refused_with_a_sentence(check: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"^\w.* "):
        check()


def test_what_can_be_is_let_through() -> None:
    checks.check_seq(None)
    assert checks.checked_messages((), Limits()) == ()
    config = StreamConfig("a/b", retention_seconds=10**18, retention_bytes=10**30)
    clamped = checks.checked_config(config)
    assert (clamped.retention_seconds, clamped.retention_bytes) == (10**10, (1 << 63) - 1)
    assert checks.chosen_selector(b"p", None, None, None, None) == Selector(b"p")
    assert checks.chosen_selector(b"", None, None, "s", None) == StreamSelector("s")
    assert checks.chosen_selector(b"", None, None, None, "") == StreamSelector("", is_prefix=True)
    with pytest.raises(InvalidRequestError):
        checks.chosen_selector(b"", None, None, "s", "t")


@pytest.mark.parametrize(
    "stored",
    [
        [[5, 0, 1, b"\x00\x00\x00", b"abc"]],
        [[5, 0, 1, b"", b""]],
        [[5, 0, 1, b"\x00\x00\x00\x00", b""]],
        [[5, 0, 1, b"\x00\x00\x00\x02", b"abc"]],
        [[1, 0, 1, b"\x00\x00\x00\x02", b"ab"]],
        [[5, 0, 1, b"\x00\x00\x00\x01" * 2, b"ab"]],
        [[5, 0, 1]],
        5,
    ],
    ids=range(8),
)
def test_messages_from_elsewhere_are_as_long_as_they_say(stored: Any) -> None:
    setup = ["a/b", None, None, False, None, None]
    wire = ["stream_read", 1, setup, 1, "0_0", "0_5", True, False, 1, stored]
    with pytest.raises(RemoteProtocolError):
        codec.decode(cbor2.dumps([wire]), bytes_max=10_000)


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
