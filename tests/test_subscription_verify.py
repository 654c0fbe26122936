"""``exo-stream verify`` and subscriptions: a sound file is sound, every contradiction is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exo_stream.model import Keyspace
from exo_stream.opening import open_platform
from exo_stream.storage.verify import verify
from exo_stream.streams.subscriptions import making
from exo_stream.streams.subscriptions.record import (
    Link,
    SubscriptionConfig,
    Wake,
    decode_link,
    decode_subscription,
    link_key,
    subscription_key,
)
from exo_stream.streams.subscriptions.step import Ack, State
from exo_stream.streams.subscriptions.waking import Report
from exo_stream.streams.values import StreamConfig
from exo_stream.streams.verify import StreamCheck
from tests.subscription_worlds import ID, World, ready

KEYSPACE = int(Keyspace.STREAM_SUBSCRIPTION)
JSON = StreamConfig("application/json")

Rows = dict[tuple[int, bytes], bytes]
Change = Callable[[Rows], None]


def rows_of(world: World) -> Rows:
    """What a file would have of it."""
    return {
        (row.key[0], row.key[1:]): row.value
        for row in world.table.found.values()
        if row.value is not None
    }


def complaints(rows: Rows) -> list[str]:
    check = StreamCheck()
    for (keyspace, key), value in sorted(rows.items()):
        if keyspace in check.heads:
            check.take(keyspace, key, value[: check.heads[keyspace]], len(value))
    return check.problems()


def lived(kind: Any = "webhook") -> World:
    """A subscription with a stream by name and one by pattern, and a wake that is leased."""
    world = ready(kind)
    world.do(making.keep_secret(b"s" * 32))
    world.do(making.name_streams(ID, ["manual"], world.accesses))
    state = world.advance("events/a")
    state = world.report(state, ("events/a", 1)) if kind == "webhook" else claimed(world)
    assert isinstance(state, State)
    world.append("events/a")
    return world


def claimed(world: World) -> State:
    state = world.do(world.waking.claim(world.attempt("events/a"), "worker"))
    assert isinstance(state, State)
    return state


def changed(**fields: Any) -> Change:
    def change(rows: Rows) -> None:
        key = (KEYSPACE, subscription_key(ID))
        entry = decode_subscription(rows[key])._replace(**fields).entry(ID)
        assert entry.value is not None
        rows[key] = entry.value

    return change


def linked(name: str, link: Link, *, id_: str = ID) -> Change:
    def change(rows: Rows) -> None:
        value = link.entry(id_, name).value
        assert value is not None
        rows[KEYSPACE, link_key(id_, name)] = value

    return change


def ahead(rows: Rows) -> None:
    key = (KEYSPACE, link_key(ID, "events/a"))
    link = decode_link(rows[key])
    assert link.acked == 1
    linked("events/a", link._replace(acked=3))(rows)


def twice(rows: Rows) -> None:
    known = decode_subscription(rows[KEYSPACE, subscription_key(ID)])
    value = known._replace(named=0).entry("other").value
    assert value is not None
    rows[KEYSPACE, subscription_key("other")] = value


def put(key: bytes, value: bytes) -> Change:
    def change(rows: Rows) -> None:
        rows[KEYSPACE, key] = value

    return change


@pytest.mark.parametrize("kind", ["webhook", "pull-wake"])
def test_what_the_decisions_write_is_sound(kind: str) -> None:
    world = lived(kind)
    assert complaints(rows_of(world)) == []
    state = world.advance("events/a")
    world.report(state, ("events/a", 1), done=True)
    assert complaints(rows_of(world)) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (changed(named=2), "1 streams by name, not 2"),
        (changed(generation=0), "a wake without a generation"),
        (changed(wake=Wake("w", 5, 6)), "its wake is leased, and still to be told"),
        (changed(wake=Wake("w", 5, 0, "x")), "'x' has its wake without a lease"),
        (changed(wake=Wake("w", 0)), "its wake will never be told"),
        (changed(wake=Wake("w", 0, 5, "x")), "its wake will never be told"),
        (linked("other", Link(False, 1, 1)), "its place in 'other' is one that nothing means"),
        (linked("events/b", Link(False, 0, 1)), "is of no stream"),
        (linked("events/a", Link(False, 1, 1), id_="none"), "is of no subscription"),
        (ahead, "is at 3, but that ends at 2"),
        (twice, "2 of them were made by batch"),
        (put(b"\x00", b"short"), "a secret of 5 bytes"),
        (put(b"\x09?", b""), "a row of no kind, 093f"),
    ],
    ids=range(13),
)
def test_every_contradiction_is_named(change: Change, complaint: str) -> None:
    rows = rows_of(lived())
    assert complaints(rows) == []
    change(rows)
    assert any(complaint in sentence for sentence in complaints(rows)), complaints(rows)


def test_while_it_is_deleted_in_slices_a_subscription_is_sound_and_wakes_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A crash may leave it like that until it is deleted again."""
    monkeypatch.setattr(making, "_SLICE", 2)
    world = World()
    world.stream("events/1", b"1")
    world.stream("manual", b"1")
    known = [("events/1", Link(False, 1, 1)), ("manual", Link(True, 2, 1))]
    assert world.make(*known, ("x", Link(True, 0, None))).is_new
    assert world.do(making.unmake(ID)) is True
    assert (world.known.config.pattern, world.known.named) == (None, 1)
    assert complaints(rows_of(world)) == []
    assert world.advance("events/1", "manual").wake is None
    while world.do(making.unmake(ID)):
        pass
    assert [key for key in rows_of(world) if key[0] == KEYSPACE] == []


async def test_a_file_with_subscriptions_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    async with open_platform(path) as platform:
        streams, subscriptions = platform.streams, platform.streams.subscriptions
        await streams.create_stream("wakes", JSON)
        await streams.create_stream_with_data("events/a", JSON, [b"1"])
        await subscriptions.secret()
        config = SubscriptionConfig("pull-wake", "events/*", ("m",), "wakes", 1_000, None)
        await subscriptions.create("p", config, "http://h")
        await streams.append("events/a", b"2")
        state = await subscriptions.claim("p", "worker")
        assert isinstance(state, State)
        assert state.wake is not None
        acks = [Ack("events/a", 2)]
        report = Report(state.scope, 1, state.wake.id, acks, is_done=False)
        assert isinstance(await subscriptions.report("p", "pull-wake", report), State)
    assert verify(path, faces=(StreamCheck,)).findings == ()
