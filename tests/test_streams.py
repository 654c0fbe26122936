"""The Storage methods, sentence by sentence, on both handles: embedded and through a client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
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
    ForkFromTombstoneError,
    ForkOffsetBeyondTailError,
    InvalidOffsetError,
    InvalidProducerStateError,
    InvalidStreamNameError,
    OffsetConflictError,
    OffsetEvictedError,
    StreamClosedError,
    StreamConfigMismatchError,
    StreamGoneError,
    StreamNotFoundError,
    StreamPathBlockedError,
    StreamSeqConflictError,
    StreamTooLargeError,
)
from exo_stream.streams.offset import Offset
from exo_stream.streams.values import (
    AppendResult,
    ProducerAppendResult,
    StreamConfig,
    StreamMessage,
    StreamProducer,
)
from tests.stream_worlds import Open, World, at, embedded, remote

TEXT = StreamConfig("text/plain")
JSON = StreamConfig("application/json")


@pytest.fixture(params=[embedded, remote], ids=["embedded", "client"])
async def world(request: pytest.FixtureRequest, autojump_clock: MockClock) -> AsyncIterator[World]:
    open_: Open = request.param
    async with open_() as world:
        yield world


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


# --- reading ---------------------------------------------------------------------------------


async def test_a_read_begins_after_its_offset(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    for data in (b"one", b"two", b"three"):
        await world.streams.append("s", data)

    for offset, found in (
        ("-1", [b"one", b"two", b"three"]),
        (Offset.start(), [b"one", b"two", b"three"]),
        (at(3), [b"two", b"three"]),
        (str(at(6)), [b"three"]),
        (at(4), [b"wo", b"three"]),
        (at(11), []),
        (at(99), []),
        ("9999999999999999_9999999999999999", []),
        ("now", []),
        (Offset.now(), []),
    ):
        page = await world.streams.read("s", offset)
        assert [m.data for m in page.messages] == found, offset
        assert (page.next_offset, page.up_to_date, page.closed) == (at(11), True, False)


@pytest.mark.parametrize("offset", ["", "0", "0_0", "0" * 16 + "_" + "0" * 16 + "\n", "NOW", None])
async def test_what_is_no_offset_is_refused(world: World, offset: Any) -> None:
    await world.streams.create_stream("s", TEXT)
    with pytest.raises(InvalidOffsetError):
        await world.streams.read("s", offset)


async def test_a_page_of_json_ends_between_two_values(world: World) -> None:
    await world.streams.create_stream("s", JSON)
    await world.streams.batch_append("s", [b"11", b"22", b"33"])
    await world.streams.batch_append("s", [b'"larger than a page"'])

    bodies, offset = [], Offset.start()
    while True:
        page = await world.streams.read("s", offset, bytes_max=5)
        bodies.append(page.body)
        offset = page.next_offset
        if page.up_to_date:
            break
    assert bodies == [b"[11,22]", b"[33]", b'["larger than a page"]']
    assert (await world.streams.read("s", offset)).body == b"[]"
    assert (await world.streams.read("s")).body == b'[11,22,33,"larger than a page"]'


async def test_a_page_of_text_ends_between_two_characters(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    await world.streams.append("s", "aé€😀z".encode())
    pages, offset = [], Offset.start()
    while offset != at(11):
        page = await world.streams.read("s", offset, bytes_max=4)
        pages.append(page.body.decode())
        offset = page.next_offset
    assert pages == ["aé", "€", "😀", "z"]


async def test_a_page_of_octets_is_as_long_as_it_may_be(world: World) -> None:
    await world.streams.create_stream("s")
    await world.streams.append("s", b"0123456789")
    await world.streams.append("s", b"ab")
    pages, offset = [], Offset.start()
    while offset != at(12):
        page = await world.streams.read("s", offset, bytes_max=4)
        assert page.up_to_date == (page.next_offset == at(12))
        pages.append(page.body)
        offset = page.next_offset
    assert pages == [b"0123", b"4567", b"89ab"]


async def test_the_tag_of_a_read_changes_with_data_closing_and_stream(world: World) -> None:
    tags = []
    await world.streams.create_stream("s", TEXT)
    for change in (
        world.streams.append("s", b"x"),
        world.streams.append("s", b"y"),
        world.streams.close_stream("s"),
        world.streams.delete("s"),
    ):
        tags.append((await world.streams.read("s")).etag)
        await change
    await world.streams.create_stream("s", TEXT)
    tags.append((await world.streams.read("s")).etag)
    assert len(set(tags)) == 5


async def test_a_subscription_gives_what_is_there_then_what_comes_until_the_close(
    world: World,
) -> None:
    await world.streams.create_stream_with_data("s", TEXT, [b"one"])
    await world.streams.create_stream_with_data("s2", TEXT, [b"not this"])
    found: list[bytes] = []
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            async with world.streams.subscribe("s") as feed:
                async for page in feed:
                    found.extend(message.data for message in page.messages)
                assert feed.offset == at(9)

        nursery.start_soon(follow)
        for data in (b"two", b"end"):
            await trio.testing.wait_all_tasks_blocked()
            await world.streams.append("s2", b"nor this")
            await world.streams.append("s", data)
        await trio.testing.wait_all_tasks_blocked()
        await world.streams.close_stream("s")
    assert found == [b"one", b"two", b"end"]


async def test_a_subscription_to_a_stream_that_is_deleted_ends_with_that(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            with pytest.raises(StreamNotFoundError):
                async with world.streams.subscribe("s", "now") as feed:
                    await feed.__anext__()

        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        await world.streams.delete("s")


# --- deleting, listing -----------------------------------------------------------------------


async def test_a_stream_that_was_deleted_and_created_again_shows_nothing_old(world: World) -> None:
    await world.streams.create_stream_with_data("s", TEXT, [b"old"], close=True)
    await world.streams.delete("s")
    with pytest.raises(StreamNotFoundError):
        await world.streams.read("s")
    await world.streams.create_stream("s", JSON)
    page = await world.streams.read("s")
    assert (page.messages, page.next_offset, page.closed) == ([], at(0), False)


async def test_streams_are_listed_by_prefix_page_by_page(world: World) -> None:
    names = ["a", "a/1", "a/2", "a/é", "b", "b/x"]
    for name in reversed(names):
        await world.streams.create_stream(name, TEXT)
    assert [s.name for s in (await world.streams.list_streams()).streams] == names
    page = await world.streams.list_streams("a/", limit=2)
    assert ([s.name for s in page.streams], page.resume) == (["a/1", "a/2"], "a/2")
    page = await world.streams.list_streams("a/", after=page.resume, limit=2)
    assert ([s.name for s in page.streams], page.resume) == (["a/é"], None)
    assert (await world.streams.list_streams("c")).streams == ()
    with pytest.raises(InvalidRequestError):
        await world.streams.list_streams(limit=0)


# --- expiry ----------------------------------------------------------------------------------


async def test_a_time_to_live_slides_with_every_access_but_not_with_head(world: World) -> None:
    await world.streams.create_stream_with_data("s", StreamConfig("text/plain", 60), [b"x"])
    producer = StreamProducer("p", 0, 0)
    for touch, *asked in (
        (world.streams.read, "s"),
        (world.streams.read, "s", "now"),
        (world.streams.append, "s", b"y"),
        (world.streams.append_with_producer, "s", [b"z"], None, producer),
        (world.streams.close_stream, "s"),
    ):
        world.clock.advance(59)
        assert (await world.streams.head("s")).config.ttl_seconds == 60
        await touch(*asked)
    world.clock.advance(59)
    await world.streams.head("s")
    world.clock.advance(1)
    with pytest.raises(StreamNotFoundError):
        await world.streams.head("s")


async def test_a_time_of_expiry_does_not_slide(world: World) -> None:
    config = StreamConfig("text/plain", expires_at=world.clock() + 60_000_000)
    await world.streams.create_stream("s", config)
    world.clock.advance(59)
    await world.streams.append("s", b"x")
    assert (await world.streams.head("s")).expires_at == config.expires_at
    world.clock.advance(1)
    assert not await world.streams.exists("s")
    with pytest.raises(StreamNotFoundError):
        await world.streams.append("s", b"x")


async def test_a_stream_that_expires_at_once_never_was(world: World) -> None:
    await world.streams.create_stream("s", StreamConfig(ttl_seconds=0))
    assert not await world.streams.exists("s")
    await world.streams.create_stream("t", StreamConfig(expires_at=1))
    with pytest.raises(StreamNotFoundError):
        await world.streams.append("t", b"x")


async def test_what_has_expired_is_created_anew_with_any_configuration(world: World) -> None:
    await world.streams.create_stream_with_data("s", StreamConfig("text/plain", 1), [b"old"])
    world.clock.advance(1)
    result = await world.streams.create_stream_with_data("s", JSON, [b"1"])
    assert result.created
    assert (await world.streams.read("s")).body == b"[1]"


async def test_expired_streams_are_counted_when_they_are_cleaned_up(world: World) -> None:
    for number in range(5):
        await world.streams.create_stream(f"s{number}", StreamConfig(ttl_seconds=number + 1))
    world.clock.advance(3)
    assert [s.name for s in (await world.streams.list_streams()).streams] == ["s3", "s4"]
    assert await world.streams.cleanup_expired_streams() == 3
    assert await world.streams.cleanup_expired_streams() == 0


# --- forks -----------------------------------------------------------------------------------


async def forked(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    for data in (b"one", b"two", b"three"):
        await world.streams.append("s", data)


async def test_a_fork_has_what_its_source_had_and_then_its_own(world: World) -> None:
    await forked(world)
    result = await world.streams.create_fork("f", "s", offset=at(6))
    assert (result.created, result.next_offset, result.config) == (True, at(6), TEXT)
    await world.streams.append("f", b"THREE")
    await world.streams.append("s", b"four")
    assert await world.text("f") == b"onetwoTHREE"
    assert await world.text("s") == b"onetwothreefour"
    assert await world.text("f", at(3)) == b"twoTHREE"
    head = await world.streams.head("f")
    assert (head.next_offset, head.total_bytes, head.message_count) == (at(11), 11, 3)


@pytest.mark.parametrize("position", [0, 1, 3, 4, 6, 11])
async def test_a_fork_may_leave_at_every_offset(world: World, position: int) -> None:
    await forked(world)
    await world.streams.create_fork("f", "s", offset=at(position), messages=[b"!"])
    assert await world.text("f") == b"onetwothree"[:position] + b"!"


async def test_a_fork_without_an_offset_leaves_at_the_tail(world: World) -> None:
    await forked(world)
    await world.streams.create_fork("f", "s")
    await world.streams.append("s", b"more")
    assert await world.text("f") == b"onetwothree"
    again = await world.streams.create_fork("f", "s")
    assert (again.created, again.next_offset) == (False, at(11))


@pytest.mark.parametrize(
    ("content_type", "messages", "offset", "sub_offset", "expected"),
    [
        ("text/plain", [b"hello", b"world"], 0, 3, b"hel"),
        ("text/plain", [b"hello", b"world"], 0, 5, b"hello"),
        ("text/plain", [b"hello", b"world"], 0, 6, None),
        ("text/plain", [b"hello", b"world"], 5, 5, b"helloworld"),
        ("text/plain", [b"hello", b"world"], 10, 1, None),
        ("text/plain", [b"hello", b"world"], None, 1, None),
        ("text/plain", [], 0, 1, None),
        ("application/json", [b"1", b"2"], 0, 1, b"1"),
        ("application/json", [b"1", b"2"], 0, 2, None),
    ],
)
async def test_a_sub_offset_cuts_the_append_that_follows(
    world: World,
    content_type: str,
    *,
    messages: list[bytes],
    offset: int | None,
    sub_offset: int,
    expected: bytes | None,
) -> None:
    await world.streams.create_stream("s", StreamConfig(content_type))
    for message in messages:
        await world.streams.append("s", message)
    where = None if offset is None else at(offset)
    if expected is None:
        with pytest.raises(InvalidOffsetError):
            await world.streams.create_fork("f", "s", offset=where, sub_offset=sub_offset)
        return
    await world.streams.create_fork("f", "s", offset=where, sub_offset=sub_offset)
    assert await world.text("f") == expected
    again = await world.streams.create_fork("f", "s", offset=where, sub_offset=sub_offset)
    assert not again.created
    with pytest.raises(StreamConfigMismatchError):
        await world.streams.create_fork("f", "s", offset=where)


async def test_sub_offsets_of_json_count_values_and_compose(world: World) -> None:
    await world.streams.create_stream("s", JSON)
    await world.streams.batch_append("s", [b"1", b"22", b"333", b"4"])
    await world.streams.create_fork("f", "s", offset="-1", sub_offset=3)
    await world.streams.create_fork("g", "f", offset="-1", sub_offset=2)
    assert (await world.streams.read("g")).body == b"[1,22]"
    assert (await world.streams.head("g")).message_count == 2
    with pytest.raises(InvalidOffsetError):
        await world.streams.create_fork("h", "s", offset=at(2))  # inside of 22
    await world.streams.create_fork("h", "s", offset=at(3))
    assert (await world.streams.read("h")).body == b"[1,22]"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"offset": at(12)}, ForkOffsetBeyondTailError),
        ({"offset": "9999999999999999_9999999999999999"}, ForkOffsetBeyondTailError),
        ({"offset": "nonsense"}, InvalidOffsetError),
        ({"content_type": "application/json"}, ContentTypeMismatchError),
        ({"source": "absent"}, StreamNotFoundError),
        ({"sub_offset": -1}, InvalidRequestError),
        ({"source": ".."}, InvalidStreamNameError),
    ],
)
async def test_a_fork_that_cannot_be_takes_no_reference(
    world: World, options: dict[str, Any], error: type[Exception]
) -> None:
    await forked(world)
    with pytest.raises(error):
        await world.streams.create_fork("f", **{"source": "s", **options})
    await world.streams.delete("s")
    with pytest.raises(StreamNotFoundError):
        await world.streams.head("s")


async def test_a_fork_of_a_closed_stream_is_open(world: World) -> None:
    await world.streams.create_stream_with_data("s", TEXT, [b"x"], close=True)
    result = await world.streams.create_fork("f", "s")
    assert not result.closed
    await world.streams.append("f", b"y", close=True)
    assert (await world.streams.read("f")).closed


async def test_a_fork_begins_without_producers_and_without_a_seq(world: World) -> None:
    await world.streams.create_stream("s", TEXT)
    producer = StreamProducer("p", 7, 0)
    await world.streams.append_with_producer("s", [b"x"], None, producer, seq="m")
    await world.streams.create_fork("f", "s")
    result = await world.streams.append_with_producer(
        "f", [b"y"], None, StreamProducer("p", 0, 0), seq="a"
    )
    assert not result.duplicate


async def test_a_fork_inherits_the_expiry_unless_it_has_its_own(world: World) -> None:
    await world.streams.create_stream("s", StreamConfig("text/plain", 60))
    inherited = await world.streams.create_fork("f", "s")
    own = await world.streams.create_fork("g", "s", ttl_seconds=600)
    absolute = await world.streams.create_fork("h", "s", expires_at=1 << 60)
    assert inherited.config.ttl_seconds == 60
    assert own.config.ttl_seconds == 600
    assert (absolute.config.ttl_seconds, absolute.config.expires_at) == (None, 1 << 60)


async def test_a_deleted_source_is_kept_for_its_forks_alone(world: World) -> None:
    await forked(world)
    await world.streams.create_fork("f", "s", offset=at(6))
    await world.streams.delete("s")
    for ask in (
        world.streams.head("s"),
        world.streams.read("s"),
        world.streams.append("s", b"x"),
        world.streams.delete("s"),
        world.streams.close_stream("s"),
    ):
        with pytest.raises(StreamGoneError):
            await ask
    with pytest.raises(StreamPathBlockedError):
        await world.streams.create_stream("s", TEXT)
    with pytest.raises(ForkFromTombstoneError):
        await world.streams.create_fork("g", "s")
    assert not await world.streams.exists("s")
    assert await world.text("f") == b"onetwo"

    await world.streams.delete("f")
    with pytest.raises(StreamNotFoundError):
        await world.streams.head("s")
    await world.streams.create_stream("s", JSON)


async def test_letting_go_goes_up_the_chain(world: World) -> None:
    await world.streams.create_stream_with_data("f0", TEXT, [b"0"])
    for number in range(1, 11):
        await world.streams.create_fork(f"f{number}", f"f{number - 1}", messages=[b"x"])
        await world.streams.delete(f"f{number - 1}")
    assert await world.text("f10") == b"0" + b"x" * 10
    await world.streams.delete("f10")
    await world.upkeep()
    for number in range(11):
        with pytest.raises(StreamNotFoundError):
            await world.streams.head(f"f{number}")


async def test_an_expired_source_is_gone_while_it_has_forks(world: World) -> None:
    await world.streams.create_stream_with_data("s", StreamConfig("text/plain", 60), [b"x"])
    await world.streams.create_fork("f", "s", ttl_seconds=600)
    world.clock.advance(60)
    with pytest.raises(StreamGoneError):
        await world.streams.read("s")
    assert await world.text("f") == b"x"
    world.clock.advance(600)
    await world.upkeep()
    with pytest.raises(StreamNotFoundError):
        await world.streams.read("f")
    with pytest.raises(StreamNotFoundError):
        await world.streams.read("s")


async def test_a_fork_of_an_expired_source_cannot_be_made(world: World) -> None:
    await world.streams.create_stream("s", StreamConfig("text/plain", 60))
    world.clock.advance(60)
    with pytest.raises(StreamNotFoundError):
        await world.streams.create_fork("f", "s")


async def test_an_expired_fork_makes_way_for_another_of_the_same_source(world: World) -> None:
    await forked(world)
    await world.streams.create_fork("f", "s", ttl_seconds=1)
    world.clock.advance(1)
    result = await world.streams.create_fork("f", "s", offset=at(3))
    assert result.created
    await world.streams.delete("s")
    assert await world.text("f") == b"one"
    await world.streams.delete("f")
    with pytest.raises(StreamNotFoundError):
        await world.streams.head("s")


async def test_a_fork_a_hundred_deep_reads_all_of_it(world: World) -> None:
    await world.streams.create_stream_with_data("f0", TEXT, [b"0;"])
    for number in range(1, 101):
        await world.streams.create_fork(f"f{number}", f"f{number - 1}")
        await world.streams.append(f"f{number}", b"%d;" % number)
    assert await world.text("f100") == b"".join(b"%d;" % number for number in range(101))
    assert (await world.streams.read("f100", bytes_max=7)).body == b"0;1;2;3"


# --- retention -------------------------------------------------------------------------------


async def test_the_oldest_beyond_so_many_bytes_are_let_go_of(world: World) -> None:
    await world.streams.create_stream("s", StreamConfig("text/plain", retention_bytes=10))
    for number in range(10):
        await world.streams.append("s", b"%04d" % number)
    await world.upkeep()
    head = await world.streams.head("s")
    assert (head.oldest_offset, head.next_offset, head.total_bytes) == (at(32), at(40), 8)
    assert head.message_count == 2
    with pytest.raises(OffsetEvictedError) as caught:
        await world.streams.read("s", at(4))
    assert caught.value.oldest_offset == str(at(32))
    page = await world.streams.read("s", "-1")
    assert (page.start_offset, page.body) == (at(32), b"00080009")


async def test_what_is_too_old_is_let_go_of(world: World) -> None:
    await world.streams.create_stream("s", StreamConfig("text/plain", retention_seconds=60))
    await world.streams.append("s", b"old")
    world.clock.advance(30)
    await world.streams.append("s", b"new")
    world.clock.advance(30)
    await world.upkeep()
    assert await world.text("s") == b"new"
    world.clock.advance(30)
    await world.upkeep()
    head = await world.streams.head("s")
    assert (head.oldest_offset, head.total_bytes, head.message_count) == (at(6), 0, 0)
    await world.streams.append("s", b"again")
    assert await world.text("s") == b"again"


async def test_the_newest_append_stays_however_large(world: World) -> None:
    await world.streams.create_stream("s", StreamConfig("text/plain", retention_bytes=3))
    await world.streams.append("s", b"one")
    await world.streams.append("s", b"larger")
    await world.upkeep()
    assert (await world.streams.read("s")).body == b"larger"


async def test_what_a_fork_shares_outlives_the_source_s_retention(world: World) -> None:
    await world.streams.create_stream("s", StreamConfig("text/plain", retention_bytes=4))
    await world.streams.append("s", b"one")
    await world.streams.create_fork("f", "s")
    await world.streams.append("s", b"two2")
    await world.upkeep()
    assert (await world.streams.read("s")).body == b"two2"
    assert await world.text("f") == b"one"
    with pytest.raises(OffsetEvictedError):
        await world.streams.create_fork("g", "s", offset=at(1))
    assert (await world.streams.create_fork("g", "s", offset="-1")).next_offset == at(3)
