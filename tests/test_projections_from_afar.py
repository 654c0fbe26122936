"""Projections that run beside a server: how they are, and what they put aside, for its clients."""

from __future__ import annotations

from pathlib import Path

import cbor2
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from exo_stream.canonical.projection_rules import (
    DeadLetterQueue,
    FailFast,
    ProjectorConfig,
)
from exo_stream.canonical.projections import open_projections
from exo_stream.errors import (
    InvalidRequestError,
    InvalidStateError,
    OutcomeUnknownError,
    ProjectionError,
    RemoteProtocolError,
)
from exo_stream.limits import Limits
from exo_stream.protocol import codec
from exo_stream.protocol import projection_messages as pm
from exo_stream.testing import FakeClock
from tests.network import connected_over, networked
from tests.projections import TABLES, Handler, append, hop_in_place, see, seen
from tests.worlds import in_memory

pytestmark = pytest.mark.slow  # files are made

ASIDE = ProjectorConfig(error_strategy=DeadLetterQueue(), replay_retries_max=1)
FAIL_FAST = ProjectorConfig(error_strategy=FailFast())


async def test_a_client_sees_the_projections_of_the_process_it_speaks_to(tmp_path: Path) -> None:
    clock = FakeClock()
    async with (
        in_memory()(clock=clock) as platform,
        networked(platform) as network,
        connected_over(network) as client,
    ):
        canonical = platform.canonical
        assert await client.canonical.projection_statuses() == []
        await append(canonical, b"0", b"1", b"2")
        async with (
            canonical.projections(tmp_path / "one") as first,
            canonical.projections(tmp_path / "other") as second,
        ):
            good = await first.add("good", see, tables=TABLES)
            aside = await first.add("aside", Handler({1: 9}), tables=TABLES, config=ASIDE)
            failed = await second.add("failed", Handler({1: 9}), tables=TABLES, config=FAIL_FAST)
            await second.add("idle", see, tables=TABLES, run=False)
            await good.wait_applied(2)
            await aside.wait_applied(2)
            with pytest.raises(ProjectionError):
                await failed.wait_applied(2)
            clock.advance(5)
            found = await client.canonical.projection_statuses()
            assert found == await canonical.projection_statuses()
            assert [(one.name, one.state, one.cursor, one.lag) for one in found] == [
                ("good", "running", 2, 0),
                ("aside", "running", 2, 0),
                ("failed", "failed", 0, 2),
                ("idle", "stopped", None, 3),
            ]
            assert [one.lag_seconds for one in found] == [0, 0, 5, 5]
            assert found[1].dead_letters == 1
            assert found[2].error == "projection failed at event 1: raised KeyError: 1"
            await canonical.seal()
            assert [one.sealed for one in await client.canonical.projection_statuses()] == [
                *(True, True, False, False)
            ]
        assert await client.canonical.projection_statuses() == []


async def test_dead_letters_are_listed_and_replayed_from_afar(tmp_path: Path) -> None:
    async with (
        in_memory()() as platform,
        networked(platform) as network,
        connected_over(network) as client,
        platform.canonical.projections(tmp_path) as projections,
    ):
        far = client.canonical
        handler = Handler({0: 1, 1: 9, 3: 1})
        projector = await projections.add("seen", handler, tables=TABLES, config=ASIDE)
        await append(platform.canonical, *[b"%d" % number for number in range(5)])
        await projector.wait_applied(4)
        letters = await far.dead_letters("seen")
        assert letters == await projector.dead_letters()
        assert [(one.event_id, one.event_bytes) for one in letters] == [
            *((0, b"0"), (1, b"1"), (3, b"3"))
        ]
        assert [one.event_id for one in await far.dead_letters("seen", 1, 1)] == [1]
        await far.replay_dead_letter("seen", 3)
        handler.bad[0] = 0
        assert await far.replay_dead_letters("seen") == (1, 1)
        with pytest.raises(ProjectionError) as raised:
            await far.replay_dead_letter("seen", 1)
        assert (raised.value.projection, raised.value.event_id) == ("seen", 1)
        [left] = await far.dead_letters("seen")
        assert (left.event_id, left.permanent, left.retry_count) == (1, True, 2)
        assert sorted([number for number, _ in await seen(projector)]) == [0, 2, 3, 4]
        with pytest.raises(InvalidStateError, match="not put aside"):
            await far.replay_dead_letter("seen", 2)


async def test_letters_come_a_frame_at_a_time(tmp_path: Path) -> None:
    limits = Limits(frame_bytes_max=65_536)
    async with (
        in_memory()(limits=limits) as platform,
        networked(platform) as network,
        connected_over(network, limits=limits) as client,
        open_projections(
            platform._ground, tmp_path, open_hop=hop_in_place, among=platform.canonical._projections
        ) as projections,
    ):
        handler = Handler(dict.fromkeys(range(4), 9))
        projector = await projections.add("seen", handler, tables=TABLES, config=ASIDE)
        events = [bytes([number]) * 30_000 for number in range(3)] + [bytes(200_000)]
        await append(platform.canonical, *events)
        await projector.wait_applied(3)
        found: list[int] = []
        while page := await client.canonical.dead_letters("seen", len(found)):
            assert [letter.event_bytes for letter in page] == [
                events[letter.event_id] for letter in page
            ]
            found.extend([letter.event_id for letter in page])
            assert len(page) == 1 or len(page) * 30_000 < 65_536
        assert found == [0, 1, 2, 3]


async def test_what_cannot_be_asked_of_projections_is_refused(tmp_path: Path) -> None:
    async with (
        in_memory()() as platform,
        networked(platform) as network,
        connected_over(network) as client,
        platform.canonical.projections(tmp_path) as projections,
    ):
        await projections.add("seen", see, tables=TABLES)
        await wait_all_tasks_blocked()
        far = client.canonical
        for ask in (
            lambda: far.dead_letters("other"),
            lambda: far.replay_dead_letters("other"),
            lambda: far.dead_letters("x" * 65),
            lambda: far.dead_letters(7),  # type: ignore[arg-type]  # what is refused
            lambda: far.dead_letters("seen", -1),
            lambda: far.dead_letters("seen", 0, 0),
            lambda: far.dead_letters("seen", 0, 1_001),
            lambda: far.replay_dead_letters("seen", 0),
            lambda: far.replay_dead_letter("seen", 1 << 64),
        ):
            with pytest.raises(InvalidRequestError):
                await ask()
        assert [one.state for one in await far.projection_statuses()] == ["running"]


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(["projections_read", 1, 7], id="no array"),
        pytest.param(["projections_read", 1, [["a"]]], id="half a projection"),
        pytest.param(["projections_read", 1, [[]] * 4_097], id="too many"),
        pytest.param(["dead_letters_read", 1, [[0, "text", "", 0, 0, None, False]]], id="text"),
        pytest.param(
            ["dead_letters_read", 1, [[0, b"", "x" * 2_000, 0, 0, None, False]]], id="long"
        ),
        pytest.param(["replay_dead_letters", 1, "a", -1, 1], id="a negative id"),
    ],
)
def test_what_is_none_of_their_messages_is_refused(item: list[object]) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.decode(cbor2.dumps([item]), bytes_max=1 << 20)
    assert codec.name_of(pm.ReadProjections) == "read_projections"


async def test_a_replay_whose_answer_is_lost_is_not_tried_again(tmp_path: Path) -> None:
    async with (
        in_memory()() as platform,
        networked(platform) as network,
        connected_over(network) as client,
        platform.canonical.projections(tmp_path) as projections,
    ):
        handler = Handler({0: 1})
        projector = await projections.add("seen", handler, tables=TABLES, config=ASIDE)
        await append(platform.canonical, b"0")
        await projector.wait_applied(0)
        handler.hangs = True
        told: list[bool] = []

        async def replay() -> None:
            with pytest.raises(OutcomeUnknownError):
                await client.canonical.replay_dead_letter("seen", 0)
            told.append(True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replay)
            await handler.hanging.wait()
            await network.cut()
        assert told == [True]
        handler.hangs = False
        await projector.replay_dead_letter(0)
        assert [number for number, _ in await seen(projector)] == [0]
