"""Live seats: frames written without waking anybody, and never a gap or a duplicate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Platform
from exo_stream.actors import fanout
from exo_stream.feed import CaughtUp
from exo_stream.interest import Seat
from exo_stream.keys import MatchKey
from exo_stream.limits import Limits
from exo_stream.matchers import StoreMatcher
from exo_stream.model import Entry
from exo_stream.payload import EncodedBatch
from exo_stream.regex.pattern import compile_regex
from exo_stream.selectors import AnySelector, ExactValue, Selector, StoreSelector, ValueRegex
from exo_stream.starts import Oldest
from exo_stream.subscription import Delivered, Subscription
from tests.worlds import in_memory, put_one_by_one


@dataclass(frozen=True, slots=True)
class Part:
    """One of the two halves of a batch; only with the second is the batch received."""

    sequence: int
    finished: int | None


@dataclass(slots=True)
class Encodings:
    """Encodes, and remembers what."""

    asked: list[list[int]] = field(default_factory=list)

    def encode(self, batches: Sequence[EncodedBatch]) -> list[Part]:
        self.asked.append([batch.sequence for batch in batches])
        return [
            part
            for batch in batches
            for part in (Part(batch.sequence, None), Part(batch.sequence, batch.sequence))
        ]


class Reader:
    """A connection with one subscription: it pulls until it follows, then takes a seat."""

    def __init__(self, platform: Platform, selector: AnySelector) -> None:
        self.received: list[int] = []
        self.room = 1_000_000
        self.wants_seats = True
        self.seat: Seat[Part] | None = None
        self.subscription = Subscription(platform.sources, selector)
        self.scope = trio.CancelScope()
        self._half: int | None = None
        self._encode = Encodings().encode

    def try_send(self, part: Part) -> bool:
        """Take one part, if there is room for it."""
        if not self.room:
            return False
        self.room -= 1
        if part.finished is None:
            self._half = part.sequence
        else:
            assert self._half == part.sequence, "the halves of a batch come together"
            self.received.append(part.sequence)
        return True

    def share(self, encodings: Encodings) -> None:
        """Let equal seats share what ``encodings`` encodes."""
        self._encode = encodings.encode

    def leave(self) -> None:
        """Give the seat up in the middle of whatever the fan-out is doing."""
        seat, self.seat = self.seat, None
        if seat is not None:
            self.subscription.leave_seat(seat)
            seat.lost.set()

    async def run(self) -> None:
        """Read for ever; ``scope`` interrupts a pull."""
        await self.subscription.start(Oldest())
        while True:
            if self.subscription.following and self.wants_seats:
                self.seat = self.subscription.take_seat(self._encode, self.try_send)
                await self.seat.lost.wait()
                self.leave()
                self.room = 1_000_000
            else:
                with trio.CancelScope() as self.scope:
                    message = await self.subscription.pull()
                    if isinstance(message, Delivered):
                        self.received += [batch.sequence for batch in message.batches]


async def reader_of(
    nursery: trio.Nursery,
    platform: Platform,
    wanted: bytes | AnySelector = b"",
    encodings: Encodings | None = None,
) -> Reader:
    """A reader that has a seat."""
    selector = Selector(wanted) if isinstance(wanted, bytes) else wanted
    reader = Reader(platform, selector)
    if encodings is not None:
        reader.share(encodings)
    nursery.start_soon(reader.run)
    await wait_all_tasks_blocked()
    assert reader.seat is not None
    return reader


async def test_equal_selectors_are_encoded_once_and_others_for_themselves() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        encodings = Encodings()
        readers = [
            await reader_of(nursery, platform, prefix, encodings)
            for prefix in (b"", b"a", b"a", b"b", b"a", b"", b"c")
        ]
        await put_one_by_one(platform, [b"a1", b"b1", b"a2"])
        await wait_all_tasks_blocked()
        assert sorted(encodings.asked) == [[1], [1], [2], [2], [3], [3]]
        assert [reader.received for reader in readers] == [
            [1, 2, 3],
            [1, 3],
            [1, 3],
            [2],
            [1, 3],
            [1, 2, 3],
            [],
        ]
        nursery.cancel_scope.cancel()


HAS_AN_A = StoreSelector((MatchKey(0, 0, "a"),))


async def test_equal_match_keys_are_matched_and_encoded_once() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        encodings = Encodings()
        equal = StoreSelector((MatchKey(0, 0, "a"),))
        readers = [await reader_of(nursery, platform, s, encodings) for s in (HAS_AN_A, equal)]
        seats = [reader.seat for reader in readers]
        await put_one_by_one(platform, [b"a1", b"b1", b"ba"])
        await wait_all_tasks_blocked()
        assert encodings.asked == [[1], [3]]
        assert [reader.received for reader in readers] == [[1, 3], [1, 3]]
        assert [reader.seat for reader in readers] == seats
        nursery.cancel_scope.cancel()


async def test_a_regex_is_compiled_and_searched_for_once_whoever_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[bytes] = []
    takes = StoreMatcher.takes

    def counted(matcher: StoreMatcher, entry: Entry) -> bool:
        looked_at.append(entry.key)
        return takes(matcher, entry)

    monkeypatch.setattr(StoreMatcher, "takes", counted)
    compile_regex.cache_clear()
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        for _ in range(50):
            equal = StoreSelector((MatchKey(0, 0, "equal+"),), (ValueRegex("^value"),))
            await reader_of(nursery, platform, equal)
        await put_one_by_one(platform, [b"equal", b"other", b"equall"])
        await wait_all_tasks_blocked()
        assert looked_at == [b"equal", b"other", b"equall"]
        nursery.cancel_scope.cancel()
    assert compile_regex.cache_info().misses == 2


async def test_a_seat_for_which_a_group_is_too_much_work_is_lost_and_taken_again() -> None:
    async with (
        in_memory()(limits=Limits(match_steps_max=1)) as platform,
        trio.open_nursery() as nursery,
    ):
        readers = [await reader_of(nursery, platform, HAS_AN_A) for _ in range(2)]
        other = await reader_of(nursery, platform, b"")
        seats = [reader.seat for reader in readers]
        parked = Subscription(platform.sources, HAS_AN_A)
        await parked.start(Oldest())
        await parked.pull()  # it has caught up
        found: list[int] = []

        async def pull() -> None:
            message = await parked.pull()
            assert isinstance(message, Delivered)
            found.extend(batch.sequence for batch in message.batches)

        nursery.start_soon(pull)
        await wait_all_tasks_blocked()
        await put_one_by_one(platform, [b"b1", b"b2", b"a1"])
        await wait_all_tasks_blocked()
        assert [reader.received for reader in readers] == [[3], [3]]
        assert found == [3]
        assert other.received == [1, 2, 3]
        assert all(seat is not None and seat.lost.is_set() for seat in seats)
        assert all(reader.seat is not None for reader in readers), "they sit again"
        nursery.cancel_scope.cancel()


async def test_no_task_is_woken_for_a_seat() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        reader = await reader_of(nursery, platform)
        seat = reader.seat
        await put_one_by_one(platform, [b"k"] * 5)
        await wait_all_tasks_blocked()
        assert reader.received == [1, 2, 3, 4, 5]
        assert reader.seat is seat
        assert reader.subscription.position == 0, "until it leaves, the seat knows its position"
        reader.leave()
        assert reader.subscription.position == 5
        nursery.cancel_scope.cancel()


async def test_a_seat_lost_between_the_parts_of_a_batch_is_given_the_whole_batch_again() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        reader = await reader_of(nursery, platform)
        reader.room = 3  # one batch and a half
        await put_one_by_one(platform, [b"k"] * 4)
        await wait_all_tasks_blocked()
        assert reader.received == [1, 2, 3, 4]
        assert reader.seat is not None, "it has caught up, and sits again"
        nursery.cancel_scope.cancel()


async def test_a_seat_that_is_lost_goes_on_after_what_did_not_match_it() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        reader = await reader_of(nursery, platform, b"mine")
        await put_one_by_one(platform, [b"mine", b"other", b"other"])
        await wait_all_tasks_blocked()
        reader.wants_seats = False
        reader.leave()
        assert reader.subscription.position == 3
        nursery.cancel_scope.cancel()


async def test_leaving_while_others_are_written_to_neither_loses_nor_repeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fanout, "SEATS_PER_CHECKPOINT", 1)
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        readers = [await reader_of(nursery, platform) for _ in range(6)]
        for number in range(30):
            nursery.start_soon(platform.put_batch, [(b"k", b"%d" % number)])
            for _ in range(number % 5):
                await trio.lowlevel.checkpoint()
            readers[number % 6].leave()
        await wait_all_tasks_blocked()
        for reader in readers:
            assert reader.received == list(range(1, 31))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("fails", ["encode", "try_send"])
async def test_an_error_of_one_seat_costs_that_seat_only(
    autojump_clock: MockClock, fails: str
) -> None:
    def crash(_: object) -> Any:
        raise ZeroDivisionError

    async with in_memory()() as platform, trio.open_nursery() as nursery:
        healthy, broken = Reader(platform, Selector(b"")), Reader(platform, Selector(b""))
        nursery.start_soon(healthy.run)
        bad = broken.subscription
        await bad.start(Oldest())
        assert isinstance(await bad.pull(), CaughtUp)
        if fails == "encode":
            seat = bad.take_seat(crash, lambda _: True)
        else:
            seat = bad.take_seat(Encodings().encode, crash)
        await trio.sleep(1)
        with capture_logs() as logs:
            await put_one_by_one(platform, [b"a", b"b"])
            await trio.sleep(1)
        assert [entry["event"] for entry in logs] == ["seat lost"]
        assert seat.lost.is_set()
        assert healthy.received == [1, 2]
        bad.leave_seat(seat)
        found = await bad.pull()
        assert isinstance(found, Delivered)
        assert [batch.sequence for batch in found.batches] == [1, 2]
        nursery.cancel_scope.cancel()


Step = tuple[Literal["put", "pass", "leave", "interrupt", "room", "seats"], int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "pass", "leave", "interrupt", "room", "seats"]),
        st.integers(0, 17),
    ),
    max_size=60,
)
WANTED: list[tuple[AnySelector, set[bytes]]] = [
    (Selector(), {b"a", b"b", b"ab", b"c"}),
    (Selector(), {b"a", b"b", b"ab", b"c"}),
    (Selector(b"a"), {b"a", b"ab"}),
    (Selector(b"a"), {b"a", b"ab"}),
    (Selector(b"ab"), {b"ab"}),
    (StoreSelector((MatchKey(0, 0, "b"),)), {b"b", b"ab"}),
    (StoreSelector((MatchKey(0, 0, "b"),)), {b"b", b"ab"}),
    (StoreSelector((MatchKey(8, 0x61, ".*"), MatchKey(8, 0x63, ".*"))), {b"a", b"ab", b"c"}),
    (StoreSelector((), (ExactValue(b"other"),)), set()),
]
"""What readers ask for, and the keys of which that is."""
KEYS = [b"a", b"b", b"ab", b"c"]


async def live(steps: list[Step], limits: Limits) -> None:
    async with in_memory()(limits=limits) as platform, trio.open_nursery() as nursery:
        readers = [Reader(platform, selector) for selector, _ in WANTED]
        shared = Encodings()
        for reader in readers:
            reader.share(shared)
            nursery.start_soon(reader.run)
        keys: dict[int, bytes] = {}

        async def put(key: bytes) -> None:
            keys[await platform.put_batch([(key, b"")])] = key

        for step, number in steps:
            reader = readers[number % len(readers)]
            match step:
                case "put":
                    nursery.start_soon(put, KEYS[number % len(KEYS)])
                case "pass":
                    for _ in range(number):
                        await trio.lowlevel.checkpoint()
                case "leave":
                    reader.leave()
                case "interrupt":
                    reader.scope.cancel()
                case "room":
                    reader.room = number // len(readers)
                case "seats":
                    reader.wants_seats = not reader.wants_seats
        await trio.sleep(60)
        for reader, (_, wanted) in zip(readers, WANTED, strict=True):
            assert reader.received == [number for number in sorted(keys) if keys[number] in wanted]
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@settings(max_examples=150)
@given(STEPS, st.sampled_from([1, 2_000, Limits().match_steps_max]))
def test_whatever_happens_to_a_seat_every_batch_comes_once(
    steps: list[Step], match_steps_max: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanout, "SEATS_PER_CHECKPOINT", 1)
        limits = Limits(match_steps_max=match_steps_max)
        trio.run(live, steps, limits, clock=MockClock(autojump_threshold=0))
