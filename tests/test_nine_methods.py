"""The store face on a backend with only the nine methods: what it serves, and what it refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
import trio

from exo_stream import Platform, Producer, Retention, open_platform
from exo_stream.errors import (
    BatchEvictedError,
    InvalidRequestError,
    LimitExceededError,
    StoreError,
    UnsupportedError,
)
from exo_stream.feed import CaughtUp
from exo_stream.model import Cursor
from exo_stream.storage.hop import in_place
from tests.nine_methods import NineMethods

LOG_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def store() -> NineMethods:
    return NineMethods()


@pytest.fixture
async def platform(store: NineMethods) -> AsyncIterator[Platform]:
    async with open_platform(engine=store, log_id=LOG_ID, hop=in_place) as platform:
        yield platform


async def test_writes_answer_the_backends_own_numbers(platform: Platform) -> None:
    assert await platform.put_batch([(b"a", b"1"), (b"b", b"2")]) == 10
    assert await platform.delete_batch([b"a"]) == 20
    assert await platform.current_sequence() == 20
    assert platform.cursor == Cursor(LOG_ID, 20)


async def test_writes_that_wait_together_each_get_their_own_number(platform: Platform) -> None:
    numbers: list[int] = []

    async def put(key: bytes) -> None:
        numbers.append(await platform.put_batch([(key, b"")]))

    async with trio.open_nursery() as nursery:
        for i in range(5):
            nursery.start_soon(put, b"%d" % i)
    assert sorted(numbers) == [10, 20, 30, 40, 50]


async def test_reads_are_of_the_present(platform: Platform) -> None:
    await platform.put_batch([(b"%d" % i, b"v") for i in range(5)])
    assert await platform.get(b"3", min_sequence=10) == b"v"
    assert await platform.get_many([b"3", b"x", b"3"]) == [(b"3", b"v"), (b"x", None), (b"3", b"v")]
    assert await platform.range_scan(b"1", b"3") == [(b"1", b"v"), (b"2", b"v"), (b"3", b"v")]
    assert await platform.range_scan(limit=2, forward=False) == [(b"4", b"v"), (b"3", b"v")]


async def test_a_batch_is_read_back_and_pruned(platform: Platform) -> None:
    for i in range(3):
        await platform.put_batch([(b"%d" % i, b"")])
    batch = await platform.get_batch(20)
    assert batch is not None
    assert [entry.key for entry in batch.entries] == [b"1"]
    assert await platform.get_batch(25) is None
    assert await platform.prune_batch_log(25) == 2
    assert await platform.oldest_retained_batch() == 30
    with pytest.raises(BatchEvictedError):
        await platform.get_batch(20)


async def test_a_feed_replays_and_goes_on_live(platform: Platform, store: NineMethods) -> None:
    await platform.put_batch([(b"old", b"")])
    async with open_platform(engine=store, log_id=LOG_ID, hop=in_place) as later:
        async with later.subscribe() as feed:
            messages = feed.messages()
            replayed = await anext(messages)
            assert isinstance(await anext(messages), CaughtUp)
            await later.put_batch([(b"new", b"")])
            live = await anext(messages)
    assert [getattr(message, "sequence", None) for message in (replayed, live)] == [10, 20]


async def test_without_a_log_live_works_and_a_cursor_is_refused(store: NineMethods) -> None:
    store.keeps_log = False
    async with open_platform(engine=store, log_id=LOG_ID, hop=in_place) as platform:
        await platform.put_batch([(b"0", b"")])
    async with open_platform(engine=store, log_id=LOG_ID, hop=in_place) as platform:
        with pytest.raises(UnsupportedError, match="keeps no log"):
            async with platform.subscribe(after=Cursor(LOG_ID, 0)):
                pass
        async with platform.subscribe(start="now") as feed:
            for i in range(3):
                await platform.put_batch([(b"%d" % i, b"")])
            assert [(await anext(feed)).sequence for _ in range(3)] == [20, 30, 40]


Verb = Callable[[Platform], Coroutine[object, object, object]]


async def _enter_scan(platform: Platform) -> None:
    async with platform.scan():
        pass


async def _enter_snapshot(platform: Platform) -> None:
    async with platform.subscribe(snapshot=True):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "names"),
    [
        pytest.param(
            lambda p: p.write(puts=[(b"a", b"")], deletes=[b"b"]), "either puts", id="mixed"
        ),
        pytest.param(
            lambda p: p.write(puts=[(b"a", b"")], require={b"a": "absent"}),
            "versions",
            id="precondition",
        ),
        pytest.param(
            lambda p: p.write(puts=[(b"a", b"")], producer=Producer(b"p", 0, 0)),
            "producers",
            id="producer",
        ),
        pytest.param(lambda p: p.get_entry(b"a"), "versions", id="get_entry"),
        pytest.param(_enter_scan, "snapshots", id="scan"),
        pytest.param(_enter_snapshot, "snapshots", id="snapshot"),
        pytest.param(lambda p: p.streams.create_stream("s"), "streams", id="streams"),
        pytest.param(lambda p: p.canonical.open(), "transactions", id="canonical"),
        pytest.param(lambda p: p.backup_to("copy"), "backups", id="backup"),
    ],
)
async def test_every_other_verb_is_refused_and_says_what_is_missing(
    platform: Platform, verb: Verb, names: str
) -> None:
    with pytest.raises(UnsupportedError, match=names) as caught:
        await verb(platform)
    assert caught.value.code == "unsupported"
    assert await platform.current_sequence() == 0


async def test_a_backend_that_fails_fails_its_caller_and_nothing_else(
    platform: Platform, store: NineMethods
) -> None:
    store.broken = True
    with pytest.raises(StoreError, match="RuntimeError"):
        await platform.put_batch([(b"a", b"")])
    store.broken = False
    assert await platform.put_batch([(b"a", b"")]) == 10


async def test_a_backend_with_rules_of_its_own_refuses_its_caller_and_nobody_else(
    platform: Platform, store: NineMethods, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_asked: object) -> int:
        raise LimitExceededError("value_bytes_max", 3, 5)

    assert await platform.put_batch([(b"a", b"")]) == 10
    with monkeypatch.context() as patched:
        patched.setattr(store, "put_batch", refuse)
        patched.setattr(store, "prune_batch_log", refuse)
        with pytest.raises(LimitExceededError):
            await platform.put_batch([(b"a", b"12345")])
        with pytest.raises(LimitExceededError):
            await platform.prune_batch_log(11)
    assert await platform.put_batch([(b"a", b"")]) == 20


async def test_what_is_written_is_not_refused_because_the_backend_then_falls_silent(
    platform: Platform, store: NineMethods, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall_silent() -> int:
        raise OSError("no route to host")

    with monkeypatch.context() as patched:
        patched.setattr(store, "current_sequence", fall_silent)
        assert await platform.put_batch([(b"a", b"1")]) == 10
        assert await platform.get(b"a", min_sequence=10) == b"1"
    assert await platform.put_batch([(b"a", b"2")]) == 20


@pytest.mark.parametrize("retention", [Retention(seconds_max=1), Retention(bytes_max=1)])
async def test_retention_that_it_cannot_judge_is_refused(
    store: NineMethods, retention: Retention
) -> None:
    with pytest.raises(UnsupportedError):
        async with open_platform(engine=store, retention=retention, hop=in_place):
            await trio.sleep_forever()


async def test_a_file_keeps_its_own_log_id(store: NineMethods) -> None:
    with pytest.raises(InvalidRequestError):
        async with open_platform(":memory:", log_id=LOG_ID):
            pass
