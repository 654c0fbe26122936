"""The Storage methods that change a stream, sentence by sentence, on both handles."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from exo_stream.errors import (
    InvalidRequestError,
    ProducerFencedError,
    ProducerGapError,
)
from exo_stream.limits import Limits
from exo_stream.stream_errors import (
    ContentTypeMismatchError,
    EmptyAppendError,
    InvalidOffsetError,
    InvalidProducerStateError,
    InvalidStreamNameError,
    OffsetConflictError,
    StreamClosedError,
    StreamConfigMismatchError,
    StreamNotFoundError,
    StreamSeqConflictError,
    StreamTooLargeError,
)
from exo_stream.streams.values import (
    AppendResult,
    ProducerAppendResult,
    StreamConfig,
    StreamMessage,
    StreamProducer,
)
from tests.stream_worlds import World, at, both_worlds, embedded

TEXT = StreamConfig("text/plain")
JSON = StreamConfig("application/json")


world = both_worlds()


# --- creating --------------------------------------------------------------------------------


async def test_a_stream_that_was_created_is_there_and_empty(world: World) -> None:
    result = await world.streams.create_stream("a/b c/é", TEXT)

    assert (result.created, result.next_offset, result.closed) == (True, at(0), False)
    head = await world.streams.head("a/b c/é")
    assert (head.config, head.closed, head.total_bytes, head.message_count) == (TEXT, False, 0, 0)
    assert (head.created_at, head.updated_at) == (world.clock(), world.clock())
    assert await world.streams.exists("a/b c/é")
    assert not await world.streams.exists("a/b")


async def test_the_type_of_a_stream_is_octets_unless_told(world: World) -> None:
    await world.streams.create_stream("s")
    assert (await world.streams.head("s")).config.content_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("first", "again", "same"),
    [
        (TEXT, StreamConfig("TEXT/plain; charset=utf-8"), True),
        (TEXT, JSON, False),
        (StreamConfig(ttl_seconds=60), StreamConfig(ttl_seconds=60), True),
        (StreamConfig(ttl_seconds=60), StreamConfig(ttl_seconds=61), False),
        (StreamConfig(ttl_seconds=60), StreamConfig(), False),
        (StreamConfig(expires_at=1 << 60), StreamConfig(expires_at=1 << 60), True),
        (StreamConfig(expires_at=1 << 60), StreamConfig(expires_at=1 << 59), False),
        (StreamConfig(closed=True), StreamConfig(closed=True), True),
        (StreamConfig(closed=True), StreamConfig(), False),
        (StreamConfig(), StreamConfig(closed=True), False),
        (StreamConfig(retention_bytes=9), StreamConfig(), False),
        (StreamConfig(retention_seconds=9), StreamConfig(retention_seconds=9), True),
    ],
)
async def test_creating_again_is_no_error_with_the_same_configuration_only(
    world: World, first: StreamConfig, again: StreamConfig, same: bool
) -> None:
    await world.streams.create_stream("s", first)
    if same:
        result = await world.streams.create_stream("s", again)
        assert (result.created, result.config) == (False, first)
        return
    with pytest.raises(StreamConfigMismatchError) as caught:
        await world.streams.create_stream("s", again)
    assert caught.value.name == "s"


async def test_creating_with_messages_and_closing_is_one_step(world: World) -> None:
    before = await world.platform.current_sequence()
    result = await world.streams.create_stream_with_data("s", TEXT, [b"one", b"two"], close=True)

    assert (result.created, result.next_offset, result.closed) == (True, at(6), True)
    assert await world.platform.current_sequence() == before + 1
    page = await world.streams.read("s")
    assert [m.data for m in page.messages] == [b"one", b"two"]
    assert page.closed
    assert page.up_to_date


async def test_creating_again_ignores_the_messages(world: World) -> None:
    await world.streams.create_stream_with_data("s", TEXT, [b"one"])
    result = await world.streams.create_stream_with_data("s", TEXT, [b"two", b"three"])

    assert (result.created, result.next_offset) == (False, at(3))
    assert await world.text("s") == b"one"


async def test_whether_it_is_closed_now_counts_for_creating_again(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    await world.streams.close_stream("s")
    with pytest.raises(StreamConfigMismatchError):
        await world.streams.create_stream("s", TEXT)
    again = await world.streams.create_stream("s", StreamConfig("text/plain", closed=True))
    assert (again.created, again.closed) == (False, True)


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", ".", "a/..", "a/./b", "__ds/x", "a\nb", "\x00", "é" * 513]
)
async def test_not_every_name_is_a_stream_s(world: World, name: str) -> None:
    with pytest.raises(InvalidStreamNameError):
        await world.streams.create_stream(name)
    with pytest.raises(InvalidStreamNameError):
        await world.streams.read(name)


async def test_the_longest_name_has_a_thousand_and_twenty_four_bytes(world: World) -> None:
    await world.streams.create_stream_with_data("é" * 512, TEXT, [b"x"])
    assert await world.text("é" * 512) == b"x"


@pytest.mark.parametrize(
    "config",
    [
        StreamConfig(ttl_seconds=1, expires_at=1),
        StreamConfig(ttl_seconds=-1),
        StreamConfig(expires_at=-1),
        StreamConfig(retention_bytes=-1),
        StreamConfig(retention_seconds=-1),
        StreamConfig(""),
        StreamConfig("text/plain\r\n"),
        StreamConfig("é/x"),
        StreamConfig("x" * 600),
    ],
)
async def test_a_configuration_that_cannot_be_is_refused(
    world: World, config: StreamConfig
) -> None:
    with pytest.raises(InvalidRequestError):
        await world.streams.create_stream("s", config)
    assert not await world.streams.exists("s")


async def test_a_time_to_live_beyond_counting_is_for_ever(world: World) -> None:
    await world.streams.create_stream("s", StreamConfig(ttl_seconds=10**18))
    await world.streams.create_stream("t", StreamConfig(expires_at=10**30))
    world.clock.advance(10**9)
    assert await world.streams.exists("s")
    assert await world.streams.exists("t")


# --- appending -------------------------------------------------------------------------------


async def test_an_append_says_where_it_begins_and_where_the_stream_ends(world: World) -> None:
    await world.streams.create_stream("s", TEXT)

    first = await world.streams.append("s", b"hello", "text/plain")
    second = await world.streams.batch_append("s", [b"a", b"bc"], "text/plain")

    assert first == AppendResult(at(0), at(5), closed=False)
    assert second == AppendResult(at(5), at(8), closed=False)
    page = await world.streams.read("s")
    assert page.messages == [
        StreamMessage(at(5), b"hello"),
        StreamMessage(at(6), b"a"),
        StreamMessage(at(8), b"bc"),
    ]
    head = await world.streams.head("s")
    assert (head.next_offset, head.total_bytes, head.message_count) == (at(8), 8, 3)


async def test_appending_and_closing_is_one_step(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    before = await world.platform.current_sequence()
    result = await world.streams.append("s", b"last", close=True)
    assert result == AppendResult(at(0), at(4), closed=True)
    assert await world.platform.current_sequence() == before + 1
    assert (await world.streams.head("s")).closed


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], EmptyAppendError),
        ([b"a", b""], EmptyAppendError),
        (["text"], InvalidRequestError),
        (b"bytes", InvalidRequestError),
        ([b"x" * 11], StreamTooLargeError),
        ([b"x"] * 5, StreamTooLargeError),
    ],
)
async def test_what_is_no_append_changes_nothing(
    autojump_clock: MockClock, messages: Any, error: type[Exception]
) -> None:
    limits = Limits(stream_append_bytes_max=10, stream_append_messages_max=4)
    async with embedded(limits=limits) as world:
        await world.streams.create_stream("s", TEXT)
        with pytest.raises(error):
            await world.streams.batch_append("s", messages, "text/plain")
        assert (await world.streams.head("s")).next_offset == at(0)


async def test_a_stream_may_be_full(autojump_clock: MockClock) -> None:
    async with embedded(limits=Limits(stream_bytes_max=10)) as world:
        await world.streams.create_stream_with_data("s", TEXT, [b"12345678"])
        with pytest.raises(StreamTooLargeError) as caught:
            await world.streams.append("s", b"901")
        assert (caught.value.bound, caught.value.actual) == (10, 11)
        await world.streams.append("s", b"90")


async def test_the_type_must_agree_whatever_its_case_and_parameters(world: World) -> None:
    await world.streams.create_stream("s", StreamConfig("text/plain; charset=utf-8"))
    await world.streams.append("s", b"a", "TEXT/PLAIN")
    with pytest.raises(ContentTypeMismatchError) as caught:
        await world.streams.append("s", b"b", "application/json")
    assert caught.value.content_type == "text/plain; charset=utf-8"
    assert await world.text("s") == b"a"


@pytest.mark.parametrize(
    ("seqs", "refused"),
    [
        (["1", "1"], 1),
        (["2", "10"], 1),
        (["09", "10"], None),
        (["a", "B"], 1),
        (["a", "b", "ab"], 2),
        (["z", "é"], None),
        (["\uffff", "\U00010000"], None),
    ],
)
async def test_a_seq_is_greater_than_the_one_before_byte_by_byte(
    world: World, seqs: list[str], refused: int | None
) -> None:
    await world.streams.create_stream("s", TEXT)
    for number, seq in enumerate(seqs):
        if number == refused:
            with pytest.raises(StreamSeqConflictError) as caught:
                await world.streams.append("s", b"x", seq=seq)
            assert caught.value.last_seq == seqs[number - 1]
            assert caught.value.next_offset == str(at(number))
        else:
            await world.streams.append("s", b"x", seq=seq)
    await world.streams.append("s", b"without one")


async def test_an_append_may_expect_the_tail_to_be_where_it_saw_it(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    await world.streams.append("s", b"one", expected_offset=at(0))
    for expected in (at(0), at(4), "9999999999999999_9999999999999999"):
        with pytest.raises(OffsetConflictError) as caught:
            await world.streams.append("s", b"two", expected_offset=expected)
        assert caught.value.next_offset == str(at(3))
    await world.streams.append("s", b"two", expected_offset=str(at(3)))
    with pytest.raises(InvalidOffsetError):
        await world.streams.append("s", b"three", expected_offset="now")
    assert await world.text("s") == b"onetwo"


async def test_of_a_stream_that_is_not_there_nothing_can_be_had(world: World) -> None:
    producer = StreamProducer("p", 0, 0)
    for ask in (
        world.streams.append("s", b"x"),
        world.streams.read("s"),
        world.streams.head("s"),
        world.streams.delete("s"),
        world.streams.close_stream("s"),
        world.streams.append_with_producer("s", [b"x"], None, producer),
    ):
        with pytest.raises(StreamNotFoundError) as caught:
            await ask
        assert caught.value.name == "s"


# --- closing ---------------------------------------------------------------------------------


async def test_a_closed_stream_takes_nothing_more_whatever_else_is_wrong(world: World) -> None:
    await world.streams.create_stream_with_data("s", TEXT, [b"all"])
    assert await world.streams.close_stream("s") == AppendResult(at(3), at(3), closed=True)
    assert await world.streams.close_stream("s") == AppendResult(at(3), at(3), closed=True)
    for options in ({}, {"content_type": "x/y"}, {"close": True}, {"expected_offset": at(0)}):
        with pytest.raises(StreamClosedError) as caught:
            await world.streams.append("s", b"more", **options)
        assert caught.value.next_offset == str(at(3))
    assert await world.text("s") == b"all"


# --- producers -------------------------------------------------------------------------------


async def test_a_producer_s_numbers_are_judged_by_the_table(world: World) -> None:
    """Section b.4 of the protocol, row by row."""
    await world.streams.create_stream("s", TEXT)

    async def send(epoch: int, seq: int, data: bytes = b"x") -> Any:
        producer = StreamProducer("p", epoch, seq)
        return await world.streams.append_with_producer("s", [data], "text/plain", producer)

    with pytest.raises(ProducerGapError) as gap:
        await send(0, 3)
    assert (gap.value.expected_seq, gap.value.received_seq) == (0, 3)
    assert await send(5, 0) == ProducerAppendResult(False, 5, 0, at(1), False)
    assert await send(5, 1) == ProducerAppendResult(False, 5, 1, at(2), False)
    assert await send(5, 0) == ProducerAppendResult(True, 5, 1, at(2), False)
    with pytest.raises(ProducerFencedError) as fenced:
        await send(4, 0)
    assert fenced.value.current_epoch == 5
    with pytest.raises(ProducerGapError) as gap:
        await send(5, 3)
    assert (gap.value.expected_seq, gap.value.received_seq) == (2, 3)
    with pytest.raises(InvalidProducerStateError):
        await send(6, 1)
    assert await send(6, 0) == ProducerAppendResult(False, 6, 0, at(3), False)
    assert (await send(6, 0, b"another body")).duplicate
    assert await world.text("s") == b"xxx"


async def test_what_is_refused_leaves_the_producer_as_it_was(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    producer = StreamProducer("p", 0, 0)
    await world.streams.append("s", b"x", seq="b")
    with pytest.raises(ContentTypeMismatchError):
        await world.streams.append_with_producer("s", [b"y"], "x/y", producer)
    with pytest.raises(StreamSeqConflictError):
        await world.streams.append_with_producer("s", [b"y"], "text/plain", producer, seq="a")
    with pytest.raises(OffsetConflictError):
        await world.streams.append_with_producer("s", [b"y"], None, producer, expected_offset="-1")
    with pytest.raises(EmptyAppendError):
        await world.streams.append_with_producer("s", [], None, producer)
    result = await world.streams.append_with_producer("s", [b"y"], None, producer, seq="c")
    assert not result.duplicate


async def test_a_duplicate_is_told_before_anything_else_is_looked_at(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    producer = StreamProducer("p", 0, 0)
    await world.streams.append_with_producer("s", [b"x"], None, producer, seq="a")
    again = await world.streams.append_with_producer("s", [b"x"], "x/y", producer, seq="a")
    assert again == ProducerAppendResult(True, 0, 0, at(1), False)


async def test_a_producer_that_closes_may_retry_and_nobody_else(world: World) -> None:
    await world.streams.create_stream("s", TEXT)

    async def close(id_: str, epoch: int, seq: int, *messages: bytes) -> Any:
        producer = StreamProducer(id_, epoch, seq)
        return await world.streams.append_with_producer(
            "s", list(messages), None, producer, close=True
        )

    assert await close("p", 0, 0, b"end") == ProducerAppendResult(False, 0, 0, at(3), True)
    assert await close("p", 0, 0, b"end") == ProducerAppendResult(True, 0, 0, at(3), True)
    assert await close("p", 0, 0) == ProducerAppendResult(True, 0, 0, at(3), True)
    for id_, epoch, seq in (("q", 0, 0), ("p", 0, 1), ("p", 1, 0)):
        with pytest.raises(StreamClosedError):
            await close(id_, epoch, seq)


async def test_closing_alone_moves_a_producer_s_numbers(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    producer = StreamProducer("p", 0, 0)
    first = await world.streams.append_with_producer("s", [], "x/y", producer, close=True)
    again = await world.streams.append_with_producer("s", [], None, producer, close=True)
    assert (first.duplicate, again.duplicate, again.closed) == (False, True, True)


@pytest.mark.parametrize(
    "producer",
    [
        StreamProducer("", 0, 0),
        StreamProducer("x" * 513, 0, 0),
        StreamProducer("p", -1, 0),
        StreamProducer("p", 0, 1 << 53),
        StreamProducer("p", True, 0),
    ],
)
async def test_a_producer_s_fields_have_their_ranges(
    world: World, producer: StreamProducer
) -> None:
    await world.streams.create_stream("s", TEXT)
    with pytest.raises(InvalidRequestError):
        await world.streams.append_with_producer("s", [b"x"], None, producer)
