"""Forks of streams and their retention, sentence by sentence, on both handles."""

from __future__ import annotations

from typing import Any

import pytest

from exo_stream.errors import (
    InvalidRequestError,
)
from exo_stream.stream_errors import (
    ContentTypeMismatchError,
    ForkFromTombstoneError,
    ForkOffsetBeyondTailError,
    InvalidOffsetError,
    InvalidStreamNameError,
    OffsetEvictedError,
    StreamConfigMismatchError,
    StreamGoneError,
    StreamNotFoundError,
    StreamPathBlockedError,
)
from exo_stream.streams.values import (
    StreamConfig,
    StreamProducer,
)
from tests.stream_worlds import World, at, both_worlds

TEXT = StreamConfig("text/plain")
JSON = StreamConfig("application/json")


world = both_worlds()


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


async def test_a_fork_may_be_asked_for_again_when_its_source_is_gone(world: World) -> None:
    """The answer to the first request may have been lost."""
    await forked(world)
    await world.streams.create_fork("f", "s", offset=at(3), sub_offset=2, messages=[b"!"])
    await world.streams.delete("s")
    again = await world.streams.create_fork("f", "s", offset=at(3), sub_offset=2, messages=[b"!"])
    assert (again.created, again.next_offset) == (False, at(6))
    with pytest.raises(StreamConfigMismatchError):
        await world.streams.create_fork("f", "s", offset=at(3), sub_offset=1)
    with pytest.raises(StreamConfigMismatchError):
        await world.streams.create_fork("f", "another")
    with pytest.raises(ForkFromTombstoneError):
        await world.streams.create_fork("g", "s")
    assert await world.text("f") == b"onetw!"


async def test_a_fork_at_the_oldest_may_be_asked_for_again(world: World) -> None:
    config = StreamConfig("text/plain", retention_bytes=5)
    await world.streams.create_stream("s", config)
    for data in (b"one", b"two", b"three"):
        await world.streams.append("s", data)
    await world.upkeep()
    await world.streams.create_fork("f", "s", offset="-1")
    assert not (await world.streams.create_fork("f", "s", offset="-1")).created
    with pytest.raises(StreamConfigMismatchError):
        await world.streams.create_fork("f", "s", offset=at(11))


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
