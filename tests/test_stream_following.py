"""Following streams from the log's own cursor, on both handles and from the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from trio.testing import MockClock

from exo_stream.cli.stream_text import change_object, presented
from exo_stream.errors import InvalidRequestError
from exo_stream.feed import CaughtUp, Heartbeat, SnapshotPage
from exo_stream.model import Batch, Cursor, Entry, Keyspace
from exo_stream.stream_errors import InvalidStreamNameError
from exo_stream.streams.changes import StreamChange, stream_change
from exo_stream.streams.values import StreamConfig, StreamMessage
from exo_stream.testing import connected
from tests.stream_worlds import World, at, embedded
from tests.worlds import messages_until

TEXT = StreamConfig("text/plain")
LOG_ID = "0" * 32


@pytest.fixture(params=["embedded", "client"])
async def handle(
    request: pytest.FixtureRequest, autojump_clock: MockClock
) -> AsyncIterator[tuple[Any, World]]:
    async with embedded() as world:
        if request.param == "embedded":
            yield world.platform, world
            return
        async with connected(world.platform) as client:
            yield client, world


async def changes(handle: Any, **choice: Any) -> list[StreamChange | None]:
    """What a subscription brings until it has caught up."""
    async with handle.subscribe(**choice) as feed:
        messages = await messages_until(feed, CaughtUp)
    return [stream_change(message) for message in messages if isinstance(message, Batch)]


async def test_a_stream_is_followed_by_its_name(handle: tuple[Any, World]) -> None:
    follower, world = handle
    await world.streams.create_stream("a", TEXT)
    await world.streams.create_stream_with_data("ab", TEXT, [b"not this"])
    await follower.put_batch([(b"a", b"nor this")])
    await world.streams.batch_append("a", [b"one", b"two"])
    await world.streams.create_fork("f", "a")
    await world.streams.append("a", b"!", close=True)
    await world.streams.delete("a")

    assert await changes(follower, stream="a") == [
        StreamChange("a", (), at(0), closed=False, deleted=False),
        StreamChange(
            "a",
            (StreamMessage(at(3), b"one"), StreamMessage(at(6), b"two")),
            at(6),
            closed=False,
            deleted=False,
        ),
        StreamChange("a", (StreamMessage(at(7), b"!"),), at(7), closed=True, deleted=False),
        StreamChange("a", (), at(7), closed=True, deleted=True),  # the fork keeps it
    ]
    await world.streams.delete("f")
    assert (await changes(follower, stream="f"))[-1] == StreamChange(
        "f", (), None, closed=False, deleted=True
    )


async def test_streams_are_followed_by_how_their_names_begin(handle: tuple[Any, World]) -> None:
    follower, world = handle
    for name in ("a/1", "b", "a/2", "a"):
        await world.streams.create_stream_with_data(name, TEXT, [name.encode()])

    found = await changes(follower, streams_prefix="a/")
    assert [change.name for change in found if change] == ["a/1", "a/2"]
    assert len(await changes(follower, streams_prefix="")) == 4


async def test_a_follower_resumes_from_a_cursor_and_hears_what_is_new(
    handle: tuple[Any, World],
) -> None:
    follower, world = handle
    await world.streams.create_stream_with_data("a", TEXT, [b"old"])
    async with follower.subscribe(stream="a") as feed:
        await messages_until(feed, CaughtUp)
        await world.streams.append("a", b"new")
        batch = await feed.__anext__()
    change = stream_change(batch)
    assert change is not None
    assert change.messages == (StreamMessage(at(6), b"new"),)
    await world.streams.append("a", b"newer")
    [resumed] = await changes(follower, stream="a", after=batch.cursor)
    assert resumed is not None
    assert resumed.messages == (StreamMessage(at(11), b"newer"),)


async def test_a_snapshot_of_streams_is_their_records(handle: tuple[Any, World]) -> None:
    follower, world = handle
    for name in ("a", "ab", "b"):
        await world.streams.create_stream_with_data(name, TEXT, [b"x"])
    for choice, names in (({"stream": "a"}, [b"a"]), ({"streams_prefix": "a"}, [b"a", b"ab"])):
        async with follower.subscribe(snapshot=True, **choice) as feed:
            page = await feed.__anext__()
        assert isinstance(page, SnapshotPage)
        assert [entry.key for entry in page.entries] == names


@pytest.mark.parametrize(
    ("choice", "error"),
    [
        ({"stream": "a", "streams_prefix": "b"}, InvalidRequestError),
        ({"stream": "a", "prefix": b"b"}, InvalidRequestError),
        ({"stream": ".."}, InvalidStreamNameError),
        ({"streams_prefix": "\ud800"}, InvalidRequestError),
        ({"streams_prefix": "x" * 1_025}, InvalidRequestError),
    ],
)
async def test_a_subscription_is_to_streams_or_to_keys(
    handle: tuple[Any, World], choice: dict[str, Any], error: type[Exception]
) -> None:
    follower, _ = handle
    with pytest.raises(error):
        follower.subscribe(**choice)
    assert await follower.current_sequence() == 0


def test_a_batch_of_the_store_is_about_no_stream() -> None:
    assert stream_change(Batch(1, 2, (Entry(0, b"a", b"b"),), LOG_ID)) is None
    assert stream_change(Batch(1, 2, (), LOG_ID)) is None


async def test_the_command_line_shows_what_was_appended(autojump_clock: MockClock) -> None:
    async with embedded() as world:
        await world.streams.create_stream_with_data("a", TEXT, [b"one", b"\xff"])
        await world.streams.delete("a")
        async with world.platform.subscribe(stream="a") as feed:
            made, deleted, _ = await messages_until(feed, CaughtUp)
    assert isinstance(made, Batch)
    assert isinstance(deleted, Batch)
    assert change_object(made) == {
        "sequence": 1,
        "cursor": str(made.cursor),
        "stream": "a",
        "next_offset": str(at(4)),
        "closed": False,
        "deleted": False,
        "messages": [
            {"offset": str(at(3)), "data": "one"},
            {"offset": str(at(4)), "data_b64": "/w=="},
        ],
    }
    assert presented(made) == Batch(
        1,
        made.committed_at,
        (
            Entry(Keyspace.STREAM_DATA, b"a", b"one"),
            Entry(Keyspace.STREAM_DATA, b"a", b"\xff"),
        ),
        made.log_id,
    )
    gone = presented(deleted)
    assert isinstance(gone, Batch)
    assert gone.entries == (Entry(Keyspace.STREAM, b"a", None),)
    assert change_object(Batch(1, 2, (), LOG_ID)) == {
        "sequence": 1,
        "cursor": str(Cursor(LOG_ID, 1)),
        "entries": [],
    }
    page = SnapshotPage(7, (Entry(Keyspace.STREAM, b"a", b"a record"),))
    assert presented(page) == SnapshotPage(7, (Entry(Keyspace.STREAM, b"a", b""),))
    assert presented(Heartbeat(7)) == Heartbeat(7)
