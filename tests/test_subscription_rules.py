"""The rules of subscriptions without a platform: every decision about them and their wakes."""

from __future__ import annotations

from typing import Any

import pytest

from exo_stream.model import Entry
from exo_stream.streams.ending import delete
from exo_stream.streams.subscriptions import making
from exo_stream.streams.subscriptions.looking import NOT_FOUND, Denied
from exo_stream.streams.subscriptions.making import NAMED_MAX, SUBSCRIPTIONS_MAX, Made
from exo_stream.streams.subscriptions.record import (
    Link,
    StreamInfo,
    Subscription,
    SubscriptionConfig,
    Wake,
    decode_link,
    decode_subscription,
    link_key,
    read_link_key,
)
from exo_stream.streams.subscriptions.step import RETRY_SECONDS_MAX, Attempt
from exo_stream.streams.subscriptions.tokens import Scope
from exo_stream.streams.subscriptions.waking import Report
from tests.subscription_worlds import ID, LEASE, SECOND, World, code_of, ready

# --- what is kept ----------------------------------------------------------------------------


def test_a_subscription_and_a_link_are_what_was_written() -> None:
    config = SubscriptionConfig("webhook", "a/*", ("x", "y"), "https://h/", 1_000, None)
    for wake in (None, Wake("w_1", 5), Wake("w_1", 0, 9, "worker")):
        known = Subscription(4, config, "http://h", 3, 2, 7, 1, wake)
        entry = known.entry(ID)
        assert entry.value is not None
        assert decode_subscription(entry.value) == known
        assert hash(decode_subscription(entry.value).config) == hash(config)
    link = Link(is_explicit=True, incarnation=5, acked=None)
    entry = link.entry(ID, "a/ä")
    assert decode_link(entry.value or b"") == link
    assert read_link_key(entry.key) == (ID, "a/ä")


def test_the_longest_id_and_the_longest_name_fit_into_a_key() -> None:
    assert len(link_key("i" * 64, "n" * 1_024)) <= 1_100


# --- decisions -------------------------------------------------------------------------------


def test_a_subscription_is_made_once_and_confirmed_by_the_same_configuration() -> None:
    world = World()
    first = world.make()
    assert first == Made(world.known, is_new=True)
    assert world.make() == Made(world.known, is_new=False)
    world.config = world.config._replace(lease_ttl_ms=9_000)
    assert code_of(world.make()) == "SUBSCRIPTION_ALREADY_EXISTS"


def test_there_are_only_so_many_subscriptions() -> None:
    world = World()
    for number in range(SUBSCRIPTIONS_MAX):
        world.table.write([_some(f"s{number}")])
    assert code_of(world.make()) == "INVALID_REQUEST"


def _some(id_: str) -> Entry:
    config = SubscriptionConfig("webhook", "a", (), "https://h/", 1_000, None)
    return Subscription(1, config, "http://h", 3).entry(id_)


def test_a_secret_is_chosen_once() -> None:
    world = World()
    assert world.do(making.keep_secret(b"a" * 32)) == b"a" * 32
    assert world.do(making.keep_secret(b"b" * 32)) == b"a" * 32


def test_what_was_there_before_wakes_nobody() -> None:
    world = World()
    world.stream("events/a", b"1")
    world.make(("events/a", Link(is_explicit=False, incarnation=1, acked=1)))
    assert world.advance("events/a").wake is None
    world.append("events/a")
    assert world.advance("events/a").wake == Wake("w_2", world.now)


def test_what_was_born_later_wakes_by_its_first_message() -> None:
    world = World()
    world.make()
    world.stream("events/a")
    assert world.advance("events/a").wake is None
    world.append("events/a")
    state = world.advance("events/a")
    assert state.wake == Wake("w_2", world.now)
    assert state.subscription.generation == 1
    assert state.streams == (StreamInfo("events/a", False, 2, None, 1),)
    assert (state.streams[0].acked_offset, state.streams[0].tail_offset[-2:]) == ("-1", "01")


def test_a_stream_that_was_made_anew_has_nothing_acknowledged() -> None:
    world = ready()
    state = world.advance("events/a")
    assert world.report(state, ("events/a", 1), done=True).wake is None
    world.do(delete("events/a", world.accesses))
    assert world.advance("events/a").wake is None
    world.stream("events/a", b"1")
    assert world.advance("events/a").wake is not None


@pytest.mark.parametrize("name", ["other/a", "events/a/b", "wakes", "events/none"])
def test_what_does_not_concern_it_wakes_nobody(name: str) -> None:
    world = ready()
    if name not in {"wakes", "events/none"}:
        world.stream(name, b"1")
    assert world.advance(name).wake is None
    assert world.known.generation == 0


def test_an_expired_stream_wakes_nobody() -> None:
    world = ready()
    world.stream("events/short", b"1", ttl_seconds=1)
    world.now += 10 * SECOND
    assert world.advance("events/short").wake is None


def test_one_wake_is_under_way_at_a_time() -> None:
    world = ready()
    first = world.advance("events/a")
    world.append("events/a")
    assert world.advance("events/a").subscription == first.subscription


def test_a_webhook_that_was_taken_is_leased_and_its_lease_ends() -> None:
    world = ready()
    first = world.advance("events/a")
    assert first.wake is not None
    taken = world.do(world.waking.told(world.attempt(), first.scope, first.wake.id, None))
    assert taken.wake == Wake("w_1", 0, world.now + LEASE)
    world.now += LEASE - 1
    assert world.advance("events/a").wake == taken.wake
    world.now += 1
    second = world.advance("events/a")
    assert (second.scope.generation, second.wake) == (2, Wake("w_4", world.now))


def test_a_lease_that_ends_with_nothing_pending_leaves_nothing() -> None:
    world = ready()
    first = world.advance("events/a")
    assert first.wake is not None
    world.do(world.waking.told(world.attempt(), first.scope, first.wake.id, None))
    world.report(first, ("events/a", 1))
    world.now += LEASE
    assert world.advance("events/a").wake is None
    assert world.known.wake is None


def test_done_in_the_answer_acknowledges_what_was_told_and_no_more() -> None:
    world = ready()
    first = world.advance("events/a")
    assert first.wake is not None
    world.append("events/a")
    state = world.do(
        world.waking.told(world.attempt("events/a"), first.scope, first.wake.id, first.streams)
    )
    assert state.streams[0].acked == 1
    assert (state.scope.generation, state.wake) == (2, Wake("w_2", world.now))


def test_done_for_a_stream_that_was_made_anew_meanwhile_acknowledges_nothing() -> None:
    world = ready()
    first = world.advance("events/a")
    assert first.wake is not None
    world.do(delete("events/a", world.accesses))
    world.stream("events/a", b"1")
    state = world.do(
        world.waking.told(world.attempt("events/a"), first.scope, first.wake.id, first.streams)
    )
    assert state.streams[0].acked is None
    assert state.scope.generation == 2


def test_failures_are_retried_later_each_time_and_forgotten_by_success() -> None:
    world = ready()
    state = world.advance("events/a")
    assert state.wake is not None
    waits = []
    for _ in range(12):
        state = world.do(world.waking.failed(world.attempt(), state.scope, "w_1"))
        assert state.wake is not None
        assert state.subscription.status == "failed"
        waits.append((state.wake.due_at - world.now) // SECOND)
        world.now = state.wake.due_at
    assert waits == [1, 2, 4, 8, 16, 32, *[RETRY_SECONDS_MAX] * 6]
    state = world.do(world.waking.told(world.attempt(), state.scope, "w_1", None))
    assert (state.subscription.status, state.scope.generation) == ("active", 1)


@pytest.mark.parametrize(("jitter", "wait"), [(-1.0, 0.8), (1.0, 1.2)])
def test_not_everybody_comes_back_at_once(jitter: float, wait: float) -> None:
    world = ready()
    state = world.advance("events/a")
    attempt = Attempt(ID, (), "w_9", jitter)
    state = world.do(world.waking.failed(attempt, state.scope, "w_1"))
    assert state.wake is not None
    assert state.wake.due_at == world.now + round(wait * SECOND)


def test_whoever_called_back_has_heard_whatever_became_of_the_answer() -> None:
    world = ready()
    state = world.advance("events/a")
    leased = world.report(state, ("events/a", 1))
    after = world.do(world.waking.failed(world.attempt(), state.scope, "w_1"))
    assert after.subscription == leased.subscription
    after = world.do(world.waking.told(world.attempt(), state.scope, "w_1", None))
    assert after.wake == leased.wake


def test_an_outcome_of_an_earlier_wake_changes_nothing() -> None:
    world = ready()
    old = world.advance("events/a")
    world.report(old, done=True, names=["events/a"])
    now = world.known
    assert now.generation == 2
    for decide in (
        world.waking.told(world.attempt(), old.scope, "w_1", None),
        world.waking.told(world.attempt(), old.scope, "w_1", old.streams),
        world.waking.failed(world.attempt(), old.scope, "w_1"),
    ):
        world.do(decide)
        assert world.known == now


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"generation": 2}, "FENCED", id="another generation"),
        pytest.param({"wake_id": "w_9"}, "FENCED", id="another wake"),
        pytest.param({"scope": Scope(2, 0)}, "FENCED", id="a token of an earlier generation"),
        pytest.param({"scope": Scope(9, 1)}, "TOKEN_INVALID", id="a token of another subscription"),
        pytest.param({"kind": "pull-wake"}, "INVALID_REQUEST", id="by the route of the other kind"),
    ],
)
def test_only_who_has_the_wake_may_report(changes: dict[str, Any], expected: str) -> None:
    world = ready()
    state = world.advance("events/a")
    before = dict(world.table.found)
    assert code_of(world.report(state, ("events/a", 1), done=True, **changes)) == expected
    assert world.table.found == before


def test_a_report_after_the_lease_has_ended_is_fenced_before_anybody_else_has_it() -> None:
    world = ready()
    state = world.advance("events/a")
    world.report(state)
    world.now += LEASE
    assert code_of(world.report(state, ("events/a", 1), done=True)) == "FENCED"


@pytest.mark.parametrize(
    "acks",
    [
        pytest.param([("events/a", 9)], id="beyond the tail"),
        pytest.param([("events/a", 0)], id="before what has been acknowledged"),
        pytest.param([("other", 0)], id="of a stream that it has nothing to do with"),
        pytest.param([("events/a", 2), ("events/a", 9)], id="one of several"),
    ],
)
def test_an_ack_that_cannot_be_is_refused_with_all_others(acks: list[tuple[str, int]]) -> None:
    world = ready()
    world.append("events/a")
    state = world.advance("events/a")
    world.report(state, ("events/a", 1))
    before = dict(world.table.found)
    assert code_of(world.report(state, *acks)) == "INVALID_OFFSET"
    assert world.table.found == before


def test_done_with_something_left_makes_the_next_wake() -> None:
    world = ready()
    world.append("events/a")
    state = world.advance("events/a")
    after = world.report(state, ("events/a", 1), done=True)
    assert (after.scope.generation, after.wake) == (2, Wake("w_2", world.now))
    assert code_of(world.report(state, ("events/a", 2), done=True)) == "FENCED"
    assert world.report(after, ("events/a", 2), ("events/a", 2), done=True).wake is None


# --- pull-wake -------------------------------------------------------------------------------


def test_a_wake_and_the_event_that_tells_of_it_are_one_batch() -> None:
    world = ready("pull-wake")
    sequence = world.table.sequence
    state = world.advance("events/a")
    assert world.table.sequence == sequence + 1
    assert state.wake == Wake("w_1", 0)
    assert world.events() == [
        {
            "type": "wake",
            "subscription_id": ID,
            "stream": "events/a",
            "generation": 1,
            "ts": world.now // 1_000,
        }
    ]


def test_a_wake_that_nobody_claims_stays_and_is_told_once() -> None:
    world = ready("pull-wake")
    state = world.advance("events/a")
    world.now += 3_600 * SECOND
    assert world.advance("events/a") == state
    assert len(world.events()) == 1


@pytest.mark.parametrize("trouble", ["absent", "closed", "expired"])
def test_a_wake_stream_that_takes_nothing_is_tried_again(trouble: str) -> None:
    world = World("pull-wake")
    world.make()
    world.stream("events/a", b"1")
    if trouble == "closed":
        world.stream("wakes", closed=True)
    if trouble == "expired":
        world.stream("wakes", ttl_seconds=1)
        world.now += 10 * SECOND
    state = world.advance("events/a")
    assert state.wake == Wake("w_1", world.now + SECOND)
    assert state.subscription.status == "failed"
    if trouble == "closed":
        world.do(delete("wakes", world.accesses))
    world.stream("wakes")
    assert world.advance("events/a").wake == state.wake, "before its time"
    world.now += SECOND
    told = world.advance("events/a")
    assert (told.wake, told.subscription.status) == (Wake("w_1", 0), "active")
    assert [event["generation"] for event in world.events()] == [1]


def test_a_claim_is_held_until_it_is_done_released_or_over() -> None:
    world = ready("pull-wake")
    world.advance("events/a")
    held = world.do(world.waking.claim(world.attempt("events/a"), "one"))
    assert held.wake == Wake("w_1", 0, world.now + LEASE, "one")
    busy = world.do(world.waking.claim(world.attempt("events/a"), "two"))
    assert busy == Denied("ALREADY_CLAIMED", "another has claimed it", "one", 1)
    world.now += LEASE
    taken = world.do(world.waking.claim(world.attempt("events/a"), "two"))
    assert (taken.scope.generation, taken.wake.holder) == (2, "two")
    assert code_of(world.report(held, ("events/a", 1), done=True)) == "FENCED"
    assert world.report(taken, ("events/a", 1), done=True).wake is None


def test_a_report_keeps_the_lease() -> None:
    world = ready("pull-wake")
    world.advance("events/a")
    held = world.do(world.waking.claim(world.attempt("events/a"), "one"))
    world.now += LEASE - 1
    kept = world.report(held)
    assert kept.wake == Wake("w_1", 0, world.now + LEASE, "one")
    world.now += LEASE - 1
    assert world.report(held, ("events/a", 1), done=True).wake is None


def test_a_claim_comes_before_the_wake_that_would_have_told_of_it() -> None:
    world = ready("pull-wake")
    held = world.do(world.waking.claim(world.attempt("events/a"), "one"))
    assert (held.scope.generation, held.wake.holder) == (1, "one")
    assert world.events() == []


def test_there_is_nothing_to_claim_when_nothing_is_pending() -> None:
    world = World("pull-wake")
    world.make()
    assert code_of(world.do(world.waking.claim(world.attempt(), "one"))) == "NO_PENDING_WORK"
    webhook = ready()
    assert code_of(webhook.do(webhook.waking.claim(webhook.attempt(), "x"))) == "INVALID_REQUEST"


def test_a_release_wakes_the_next() -> None:
    world = ready("pull-wake")
    world.advance("events/a")
    held = world.do(world.waking.claim(world.attempt("events/a"), "one"))
    after = world.report(held, done=True, names=["events/a"])
    assert (after.scope.generation, after.wake.holder) == (2, None)
    assert [event["generation"] for event in world.events()] == [1, 2]


# --- named streams ---------------------------------------------------------------------------


def test_streams_are_named_from_their_ends_on() -> None:
    world = World(pattern="events/*")
    world.stream("manual", b"1")
    world.make()
    world.stream("events/a", b"1")
    assert (
        world.do(making.name_streams(ID, ["manual", "absent", "events/a"], world.accesses)) is None
    )
    assert world.known.named == 3
    state = world.advance("manual", "absent", "events/a")
    assert [(s.path, s.acked, s.tail, s.is_explicit) for s in state.streams] == [
        ("manual", 1, 1, True),
        ("absent", None, 0, True),
        ("events/a", None, 1, True),
    ]
    sequence = world.table.sequence
    assert world.do(making.name_streams(ID, ["manual"], world.accesses)) is None
    assert world.table.sequence == sequence, "it was named before"


def test_a_name_that_is_taken_back_may_still_be_meant_by_the_pattern() -> None:
    world = World(pattern="events/*")
    world.make()
    world.stream("events/a", b"1")
    world.do(making.name_streams(ID, ["events/a", "manual"], world.accesses))
    for name in ("events/a", "manual", "manual", "events/a"):
        assert world.do(making.unname_stream(ID, name)) is None
    assert world.known.named == 0
    state = world.advance("events/a", "manual")
    assert [(s.path, s.is_explicit) for s in state.streams] == [("events/a", False)]


def test_there_are_only_so_many_names() -> None:
    world = World()
    world.make()
    names = [f"n{number}" for number in range(NAMED_MAX)]
    assert world.do(making.name_streams(ID, names, world.accesses)) is None
    answer = world.do(making.name_streams(ID, ["n0", "another"], world.accesses))
    assert code_of(answer) == "INVALID_REQUEST"
    assert world.known.named == NAMED_MAX


def test_what_is_no_more_is_forgotten_but_not_what_was_named() -> None:
    world = ready()
    state = world.advance("events/a")
    world.report(state, ("events/a", 1), done=True)
    world.do(making.name_streams(ID, ["events/b"], world.accesses))
    world.do(making.forget_streams(ID, ["events/a", "events/b", "events/c"]))
    before = dict(world.table.found)
    assert link_key(ID, "events/a") in {key[1:] for key in before}
    world.do(delete("events/a", world.accesses))
    world.do(making.forget_streams(ID, ["events/a", "events/b"]))
    live = {row.key[1:] for row in world.table.found.values() if row.value is not None}
    assert link_key(ID, "events/a") not in live
    assert link_key(ID, "events/b") in live


def test_a_subscription_goes_with_its_links_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_SLICE", 2)
    world = World()
    world.make(*[(f"events/{n}", Link(False, n, n)) for n in range(3)])
    assert world.do(making.unmake(ID)) is True
    assert world.known.incarnation
    assert world.do(making.unmake(ID)) is False
    assert all(row.value is None for row in world.table.found.values())
    assert world.do(making.unmake(ID)) is False


def test_of_a_subscription_that_is_no_more_nothing_is_done() -> None:
    world = World()
    scope = Scope(1, 1)
    attempt = world.attempt()
    report = Report(scope, 1, "w", [], is_done=True)
    waking = world.waking
    assert world.do(waking.advance(attempt)) is None
    assert world.do(waking.told(attempt, scope, "w", None)) is None
    assert world.do(waking.failed(attempt, scope, "w")) is None
    assert world.do(waking.claim(attempt, "one")) == NOT_FOUND
    assert world.do(waking.report(attempt, "webhook", report)) == NOT_FOUND
    assert world.do(making.name_streams(ID, ["a"], world.accesses)) == NOT_FOUND
    assert world.do(making.unname_stream(ID, "a")) == NOT_FOUND
    assert world.table.found == {}
