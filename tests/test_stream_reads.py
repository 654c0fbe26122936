"""Reading, following, listing and expiring streams, sentence by sentence, on both handles."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from exo_stream.errors import (
    InvalidRequestError,
)
from exo_stream.stream_errors import (
    InvalidOffsetError,
    StreamNotFoundError,
)
from exo_stream.streams.offset import Offset
from exo_stream.streams.values import (
    StreamConfig,
    StreamProducer,
)
from tests.stream_worlds import World, at, both_worlds

TEXT = StreamConfig("text/plain")
JSON = StreamConfig("application/json")


world = both_worlds()


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
