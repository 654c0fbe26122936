"""The one writer: groups that are durable, then visible, then answered, whatever fails."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Producer
from exo_stream.actors.orders import Decide
from exo_stream.decision import Write
from exo_stream.errors import (
    ConflictError,
    ExoStreamError,
    OutcomeUnknownError,
    PlatformClosedError,
    StoreError,
    StoreFullError,
)
from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace
from exo_stream.producers import expire
from exo_stream.testing import FakeClock
from tests.worlds import (
    Crash,
    Fault,
    FaultyEngine,
    GatedHop,
    OneJob,
    Outcomes,
    batches_until,
    in_memory,
    put,
    put_one_by_one,
    told,
)

# --- groups ---------------------------------------------------------------------------------


async def test_what_waits_together_is_committed_together() -> None:
    engine, hop = FaultyEngine(), GatedHop()
    outcomes: Outcomes = {}
    async with in_memory(engine)(hop=hop) as platform, trio.open_nursery() as nursery:
        nursery.start_soon(told, outcomes, "first", put(platform, b"k"))
        await hop.arrived.wait()
        for number in range(20):
            nursery.start_soon(told, outcomes, str(number), put(platform, b"k"))
        await wait_all_tasks_blocked()
        hop.gate.set()
    assert engine.commits == [1, 20]
    assert sorted(outcomes.values()) == list(range(1, 22))


@pytest.mark.parametrize(
    ("limits", "sizes", "commits"),
    [
        pytest.param(Limits(group_batches_max=3), [1] * 9, [1, 3, 3, 2], id="batches"),
        pytest.param(
            Limits(group_bytes_max=2_000),
            [1, 1, 1, 1, 1_500, 1_500, 5_000, 1],
            [1, 3, 1, 1, 1, 1],
            id="bytes",
        ),
        pytest.param(Limits(waiting_writes_max=2), [1] * 9, [1, 2, 2, 2, 2], id="waiting"),
        pytest.param(Limits(waiting_bytes_max=1_000), [400] * 9, [1, 2, 2, 2, 2], id="its bytes"),
    ],
)
async def test_a_group_is_bounded_and_so_is_what_waits_for_one(
    limits: Limits, sizes: list[int], commits: list[int]
) -> None:
    """Who finds no room waits at the door, and is in no group before there is."""
    engine, hop = FaultyEngine(), GatedHop()
    async with in_memory(engine)(hop=hop, limits=limits) as platform:
        async with trio.open_nursery() as nursery:
            for size in sizes:
                nursery.start_soon(platform.put_batch, [(b"k", b"v" * size)])
                await wait_all_tasks_blocked()
            hop.gate.set()
    assert engine.commits == commits


async def test_nothing_is_visible_or_answered_before_the_commit_has_returned() -> None:
    hop = GatedHop()
    outcomes: Outcomes = {}
    async with in_memory()(hop=hop) as platform, trio.open_nursery() as nursery:
        async with platform.subscribe() as feed:
            delivered: list[int] = []

            async def follow() -> None:
                async for batch in feed:
                    delivered.append(batch.sequence)

            nursery.start_soon(follow)
            nursery.start_soon(told, outcomes, "put", put(platform, b"k"))
            await hop.arrived.wait()
            await wait_all_tasks_blocked()
            assert outcomes == {}
            assert delivered == []
            assert await platform.get(b"k") is None
            assert await platform.current_sequence() == 0
            assert await platform.get_batch(1) is None
            hop.gate.set()
            await wait_all_tasks_blocked()
            assert outcomes == {"put": 1}
            assert delivered == [1]
            nursery.cancel_scope.cancel()


async def test_whoever_is_answered_reads_its_write() -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:

        async def put_and_get(key: bytes) -> None:
            for number in range(20):
                sequence = await platform.put_batch([(key, b"%d" % number)])
                value, version, served = await platform.get_entry(key)
                assert (value, version) == (b"%d" % number, sequence)
                assert served >= sequence
                batch = await platform.get_batch(sequence)
                assert batch is not None

        for key in (b"a", b"b", b"c"):
            nursery.start_soon(put_and_get, key)


async def test_refusals_and_duplicates_wait_for_the_commit_of_their_group() -> None:
    """They may rest on a neighbour that never becomes durable."""
    hop, engine = GatedHop(), FaultyEngine()
    outcomes: Outcomes = {}
    async with in_memory(engine)(hop=hop) as platform, trio.open_nursery() as nursery:
        nursery.start_soon(told, outcomes, "first", put(platform, b"x"))
        await hop.arrived.wait()
        for name, ask in {
            "new": put(platform, b"k", producer=Producer(b"p", 0, 0)),
            "duplicate": put(platform, b"k", producer=Producer(b"p", 0, 0)),
            "conflict": put(platform, b"k", require={b"k": "absent"}),
        }.items():
            nursery.start_soon(told, outcomes, name, ask)
            await wait_all_tasks_blocked()
        hop.arrived = trio.Event()
        hop.gate.set()
        hop.gate = trio.Event()
        await hop.arrived.wait()
        await wait_all_tasks_blocked()
        assert outcomes == {"first": 1}
        hop.gate.set()
    assert outcomes["new"] == outcomes["duplicate"] == 2
    assert isinstance(outcomes["conflict"], ConflictError)
    assert outcomes["conflict"].version == 2


async def test_a_refused_commit_fails_its_group_and_nothing_else() -> None:
    hop, engine = GatedHop(), FaultyEngine()
    outcomes: Outcomes = {}
    async with in_memory(engine)(hop=hop) as platform, trio.open_nursery() as nursery:
        nursery.start_soon(told, outcomes, "before", put(platform, b"x"))
        await hop.arrived.wait()
        engine.faults.extend([None, "refused"])
        for name, ask in {
            "new": put(platform, b"k", producer=Producer(b"p", 0, 0)),
            "duplicate": put(platform, b"k", producer=Producer(b"p", 0, 0)),
            "conflict": put(platform, b"k", require={b"k": "absent"}),
        }.items():
            nursery.start_soon(told, outcomes, name, ask)
            await wait_all_tasks_blocked()
        hop.gate.set()
        await wait_all_tasks_blocked()
        failed = [outcomes[name] for name in ("new", "duplicate", "conflict")]
        assert [type(error) for error in failed] == [StoreError] * 3
        assert len(set(map(id, failed))) == 3, "raising one error object twice changes it"
        assert await platform.get(b"k") is None
        assert await put(platform, b"k", require={b"k": "absent"})() == 2
        assert await put(platform, b"k", producer=Producer(b"p", 0, 0))() == 3
    assert outcomes["before"] == 1


async def test_a_later_decision_of_a_group_sees_the_earlier_ones() -> None:
    hop = GatedHop()
    outcomes: Outcomes = {}
    async with in_memory()(hop=hop) as platform, trio.open_nursery() as nursery:
        nursery.start_soon(told, outcomes, "first", put(platform, b"x"))
        await hop.arrived.wait()
        for number in range(3):
            ask = put(platform, b"k", require={b"k": "absent"})
            nursery.start_soon(told, outcomes, str(number), ask)
            await wait_all_tasks_blocked()
        hop.gate.set()
    assert outcomes["0"] == 2
    assert [outcomes["1"].version, outcomes["2"].version] == [2, 2]


async def test_a_decision_that_mixes_two_faces_is_a_bug_and_nothing_of_it_is_kept() -> None:
    engine = FaultyEngine()
    mixed = [Entry(Keyspace.STORE, b"k", b"v"), Entry(Keyspace.STREAM, b"s", b"v")]
    with pytest.raises(AssertionError, match="two faces"):
        async with in_memory(engine)() as platform:
            await platform._ground.decide(lambda _view, _now: Write(mixed, None))
    assert not engine.commits


async def test_time_never_goes_back_though_the_clock_does() -> None:
    clock = FakeClock()
    async with in_memory()(clock=clock) as platform:
        for seconds in (5, -3_600, 1, 7_200):
            await put_one_by_one(platform, [b"k"])
            clock.advance(seconds)
        batches = [await platform.get_batch(sequence) for sequence in range(1, 5)]
    times = [batch.committed_at for batch in batches if batch is not None]
    assert times == sorted(times)
    assert times[1] == times[2] == times[3]


# --- commits that fail ------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["unknown, kept", "unknown, lost"])
async def test_an_unknown_outcome_stops_the_platform_with_every_waiter_answered(
    fault: Fault,
) -> None:
    engine, hop = FaultyEngine(), GatedHop()
    engine.faults.append(fault)
    outcomes: Outcomes = {}
    async with trio.open_nursery() as outside:
        with pytest.raises(OutcomeUnknownError):
            async with in_memory(engine)(hop=hop) as platform:
                outside.start_soon(told, outcomes, "put", put(platform, b"k"))  # noqa: ASYNC111  it outlives the platform
                await hop.arrived.wait()
                outside.start_soon(told, outcomes, "later", put(platform, b"k"))  # noqa: ASYNC111  it outlives the platform
                ask = partial(platform.get, b"k", min_sequence=9)
                outside.start_soon(told, outcomes, "read", ask)
                outside.start_soon(told, outcomes, "prune", lambda: platform.prune_batch_log(1))  # noqa: ASYNC111  it outlives the platform
                await wait_all_tasks_blocked()
                hop.gate.set()
                await trio.sleep_forever()
    assert {name: type(outcome) for name, outcome in outcomes.items()} == {
        "put": OutcomeUnknownError,
        "later": PlatformClosedError,
        "read": PlatformClosedError,
        "prune": PlatformClosedError,
    }


async def test_the_crash_is_one_error_also_for_a_body_that_was_waiting() -> None:
    engine = FaultyEngine()
    engine.faults.append("unknown, lost")
    with pytest.raises(OutcomeUnknownError):
        async with in_memory(engine)() as platform:
            await platform.put_batch([(b"k", b"v")])


async def test_an_unexpected_error_of_the_engine_leaves_as_itself() -> None:
    engine = FaultyEngine()
    engine.faults.append("crash")
    with pytest.raises(Crash):
        async with in_memory(engine)() as platform:
            await platform.put_batch([(b"k", b"v")])


async def test_no_space_but_it_was_kept_is_answered_once_the_file_is_open_again() -> None:
    engine = FaultyEngine()
    engine.faults.append("full, kept")
    async with in_memory(engine)() as platform:
        assert await platform.put_batch([(b"k", b"v")]) == 1
        assert await platform.get(b"k") == b"v"
        assert await platform.put_batch([(b"k", b"v")]) == 2


async def test_no_space_and_nothing_kept_is_refused_and_the_number_given_again() -> None:
    engine = FaultyEngine()
    engine.faults.append("full, lost")
    async with in_memory(engine)() as platform:
        with pytest.raises(StoreFullError):
            await platform.put_batch([(b"k", b"v")])
        assert await platform.put_batch([(b"k", b"v")]) == 1


@pytest.mark.parametrize("fault", ["full, kept", "full, lost"])
async def test_as_long_as_there_is_no_space_outcomes_are_unknown_and_writes_refused(
    fault: Fault, autojump_clock: MockClock
) -> None:
    engine = FaultyEngine()
    engine.faults.append(fault)
    engine.full = True
    async with in_memory(engine)() as platform, platform.subscribe() as feed:
        with pytest.raises(OutcomeUnknownError):
            await platform.write(puts=[(b"k", b"v")], producer=Producer(b"p", 0, 0))
        for _ in range(3):
            with pytest.raises(StoreFullError):
                await platform.put_batch([(b"other", b"v")])
            await trio.sleep(2)
        assert await platform.get(b"k") is None, "what is not durable is not shown"
        assert await platform.current_sequence() == 0
        engine.full = False
        await trio.sleep(2)
        assert await platform.get(b"k") == (b"v" if fault == "full, kept" else None)
        # A retry as the same producer tells what became of it, and takes effect once.
        assert await platform.write(puts=[(b"k", b"v")], producer=Producer(b"p", 0, 0)) == 1
        assert [batch.sequence for batch in await batches_until(feed, 1)] == [1]


async def test_closing_without_space_answers_everybody_and_tries_no_more(
    autojump_clock: MockClock,
) -> None:
    engine = FaultyEngine()
    engine.faults.extend(["full, lost", "crash"])
    engine.full = True
    outcomes: Outcomes = {}
    async with trio.open_nursery() as outside:
        async with in_memory(engine)() as platform:
            with pytest.raises(OutcomeUnknownError):
                await platform.put_batch([(b"k", b"v")])
            for number in range(5):
                outside.start_soon(told, outcomes, str(number), put(platform, b"k"))  # noqa: ASYNC111  it outlives the platform
            # Leave before ingest is awake.
            while not (len(platform._ground.writes) or outcomes):  # noqa: ASYNC110  nobody announces it
                await trio.lowlevel.checkpoint()
    assert {type(outcome) for outcome in outcomes.values()} <= {StoreFullError, PlatformClosedError}
    assert len(outcomes) == 5
    assert list(engine.faults) == ["crash"], "nothing may be committed to a file that is not open"


async def test_below_the_low_disk_mark_writes_are_refused_before_they_are_tried() -> None:
    engine = FaultyEngine()
    async with in_memory(engine)() as platform:
        await put_one_by_one(platform, [b"a", b"b"])
        engine.low = True
        figures = r"below the low-disk mark: [\d,]+ bytes of 268,435,456"
        with pytest.raises(StoreFullError, match=figures):
            await platform.put_batch([(b"k", b"v")])
        assert await platform.get(b"a") is not None
        assert await platform.prune_batch_log(2) == 1, "what makes room passes the mark"
        expiry = Decide(decide=expire(b"p", before=0), frees=True)
        assert await platform._ground.writes.ask(expiry) is False
        engine.low = False
        assert await platform.put_batch([(b"k", b"v")]) == 3


# --- work on the file ---------------------------------------------------------------------------


async def test_when_both_memtables_are_full_only_work_is_taken(autojump_clock: MockClock) -> None:
    engine = FaultyEngine()
    async with in_memory(engine)() as platform, trio.open_nursery() as nursery:
        await platform.put_batch([(b"k", b"v")])
        engine.stuck = True
        outcomes: Outcomes = {}
        nursery.start_soon(told, outcomes, "put", put(platform, b"k"))
        await trio.sleep(5)
        assert outcomes == {}
        assert await platform.prune_batch_log(2) == 1

        def install() -> None:
            engine.stuck = False

        engine.jobs.append(OneJob(install=install))
        await trio.sleep(5)
        assert outcomes == {"put": 2}


async def test_expiring_producers_locks_up_nothing_while_memtables_are_full(
    autojump_clock: MockClock,
) -> None:
    """Expiry writes, writes wait for a fold, and the fold is planned by the one who expires."""
    engine, clock = FaultyEngine(), FakeClock()
    limits = Limits(producer_idle_seconds=4)
    async with in_memory(engine)(limits=limits, clock=clock) as platform:
        await platform.write(deletes=[b"k"], producer=Producer(b"p", 0, 0))
        engine.stuck = True
        clock.advance(100)
        await trio.sleep(100)

        def install() -> None:
            engine.stuck = False

        engine.jobs.append(OneJob(install=install))
        with trio.fail_after(60):
            assert await platform.put_batch([(b"k", b"v")]) >= 2


def failing(error: Exception) -> OneJob:
    def step() -> None:
        raise error

    return OneJob(step)


async def test_a_job_that_fails_is_given_up_and_nothing_else(autojump_clock: MockClock) -> None:
    engine = FaultyEngine()
    done: list[bool] = []
    engine.jobs += [failing(StoreError("injected")), OneJob(install=lambda: done.append(True))]
    async with in_memory(engine)() as platform:
        await trio.sleep(5)
        assert done == [True]
        assert await platform.put_batch([(b"k", b"v")]) == 1


async def test_a_job_that_always_fails_leaves_nobody_waiting_for_it(
    autojump_clock: MockClock,
) -> None:
    """Neither a writer while both memtables are full, nor the end of the platform."""
    engine = FaultyEngine()
    engine.jobs += [failing(StoreError("injected")) for _ in range(1_000)]
    with trio.fail_after(100):
        async with in_memory(engine)() as platform, trio.open_nursery() as nursery:
            engine.stuck = True
            with pytest.raises(StoreError, match="injected"):
                await platform.put_batch([(b"k", b"v")])
            outcomes: Outcomes = {}
            nursery.start_soon(told, outcomes, "put", put(platform, b"k"))
            await wait_all_tasks_blocked()
    assert type(outcomes["put"]) is StoreError


async def test_a_job_without_space_closes_the_door_until_there_is_some(
    autojump_clock: MockClock,
) -> None:
    engine = FaultyEngine()
    engine.full = True
    engine.jobs.append(failing(StoreFullError("injected")))
    async with in_memory(engine)() as platform:
        await trio.sleep(3)
        with pytest.raises(StoreFullError):
            await platform.put_batch([(b"k", b"v")])
        engine.full = False
        await trio.sleep(3)
        assert await platform.put_batch([(b"k", b"v")]) == 1


async def test_a_job_of_unknown_outcome_stops_the_platform() -> None:
    engine = FaultyEngine()
    engine.jobs.append(failing(OutcomeUnknownError("injected")))
    with pytest.raises(OutcomeUnknownError):
        async with in_memory(engine)():
            await trio.sleep_forever()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("refused", StoreError),
        ("full, lost", OutcomeUnknownError),
        ("full, kept", OutcomeUnknownError),
    ],
)
async def test_a_floor_that_could_not_be_moved_is_told(
    fault: Fault, error: type[ExoStreamError], autojump_clock: MockClock
) -> None:
    engine = FaultyEngine()
    async with in_memory(engine)() as platform:
        await put_one_by_one(platform, [b"a", b"b"])
        engine.faults.append(fault)
        with pytest.raises(error):
            await platform.prune_batch_log(2)
        await trio.sleep(1)
        assert await platform.prune_batch_log(2) == 1
        assert await platform.oldest_retained_batch() == 2


async def test_work_asked_for_while_there_is_no_space_is_to_be_asked_again(
    autojump_clock: MockClock,
) -> None:
    """It is planned on what the file was, and nobody knows for how long there is none."""
    engine = FaultyEngine()
    async with in_memory(engine)() as platform:
        await put_one_by_one(platform, [b"a", b"b"])
        engine.full = True
        engine.faults.append("full, lost")
        with pytest.raises(OutcomeUnknownError):
            await platform.put_batch([(b"c", b"")])
        outcomes: Outcomes = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told, outcomes, "prune", lambda: platform.prune_batch_log(2))
            await trio.sleep(3)
        assert type(outcomes["prune"]) is StoreFullError
        engine.full = False
        await trio.sleep(3)
        assert await platform.prune_batch_log(2) == 1


async def test_a_floor_of_unknown_outcome_stops_the_platform() -> None:
    engine = FaultyEngine()
    with pytest.raises(OutcomeUnknownError):
        async with in_memory(engine)() as platform:
            await put_one_by_one(platform, [b"a", b"b"])
            engine.faults.append("unknown, lost")
            await platform.prune_batch_log(2)
