"""Gaps, batches, remedies and backoff: the rules of a projection, by themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.canonical.projection_rules import (
    STORAGE_BACKOFF,
    Custom,
    DeadLetterQueue,
    ErrorStrategy,
    FailFast,
    LogAndSkip,
    ProjectorConfig,
    Remedy,
    ReplayConfig,
    RetryWithBackoff,
    check_name,
    check_no_gap,
    cut,
    delay_seconds,
    detect_gaps,
    remedy,
)
from exo_stream.errors import ConfigError, EventGapError


@pytest.mark.parametrize(
    ("expected", "ids", "found"),
    [
        pytest.param(5, [5, 6, 7], (0, 0), id="no gaps sequential"),
        pytest.param(5, [8, 9, 10], (1, 3), id="gap before first event"),
        pytest.param(5, [5, 6, 9], (1, 2), id="gap within batch"),
        pytest.param(0, [2, 3, 5, 8], (3, 5), id="multiple gaps"),
        pytest.param(42, [42], (0, 0), id="single event no gap"),
        pytest.param(42, [45], (1, 3), id="single event with gap"),
        pytest.param(42, [], (0, 0), id="empty events"),
        pytest.param(0, [0], (0, 0), id="first event matches exactly"),
    ],
)
def test_ac8_gaps_are_counted(expected: int, ids: list[int], found: tuple[int, int]) -> None:
    assert detect_gaps(expected, ids) == found


@given(st.integers(0, 5), st.sets(st.integers(5, 40)))
def test_what_is_missing_is_what_is_not_there(expected: int, ids: set[int]) -> None:
    _, missing = detect_gaps(expected, sorted(ids))
    assert missing == (len(set(range(expected, max(ids))) - ids) if ids else 0)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        pytest.param([], 0, id="nothing"),
        pytest.param([100], 1, id="one that is too large goes alone"),
        pytest.param([5, 5], 2, id="exactly full"),
        pytest.param([5, 6], 1, id="a byte too many"),
        pytest.param([0, 0, 0, 0], 3, id="as many as may be"),
    ],
)
def test_a_batch_ends_where_it_is_full(sizes: list[int], count: int) -> None:
    events = [(number, bytes(size)) for number, size in enumerate(sizes)]
    assert cut(events, 3, 10) == count


def always(_error: Exception, retries: int) -> Remedy:
    return Remedy.RETRY if retries < 2 else Remedy.SKIP


@pytest.mark.parametrize(
    ("strategy", "remedies"),
    [
        pytest.param(FailFast(), "SSS", id="fail fast"),
        pytest.param(LogAndSkip(), "KKK", id="log and skip"),
        pytest.param(DeadLetterQueue(), "DDD", id="dead letter queue"),
        pytest.param(RetryWithBackoff(max_retries=2), "RRS", id="retry, then stop"),
        pytest.param(
            RetryWithBackoff(max_retries=1, then=DeadLetterQueue()), "RDD", id="retry, then aside"
        ),
        pytest.param(RetryWithBackoff(max_retries=0, then=LogAndSkip()), "KKK", id="no retry"),
        pytest.param(Custom(always), "RRK", id="custom"),
    ],
)
def test_a_strategy_says_what_to_do(strategy: ErrorStrategy, remedies: str) -> None:
    letters = {"S": Remedy.STOP, "K": Remedy.SKIP, "R": Remedy.RETRY, "D": Remedy.DEAD_LETTER}
    found = [remedy(strategy, KeyError(), retries) for retries in range(3)]
    assert found == [letters[letter] for letter in remedies]


def test_ac13_the_longest_wait_doubles_up_to_its_cap() -> None:
    strategy = RetryWithBackoff(initial_delay_ms=1_000, max_delay_ms=60_000)
    longest = [delay_seconds(strategy, retries, 1.0) for retries in range(8)]
    assert longest == [1, 2, 4, 8, 16, 32, 60, 60]
    assert delay_seconds(strategy, 10**9, 1.0) == 60, "Azoth's overflows to 0 from 32 on"
    assert delay_seconds(strategy, 3, 0.5) == 4, "full jitter"
    assert delay_seconds(strategy, 3, 0.0) == 0
    assert delay_seconds(Custom(always), 0, 1.0) == STORAGE_BACKOFF.initial_delay_ms / 1_000


def test_ac13_a_replay_waits_as_azoths_does() -> None:
    """Ten seconds, doubled up to an hour."""
    seconds = [delay // 1_000_000 for delay in ReplayConfig().delays(11)]
    assert seconds == [10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]


def test_events_that_do_not_follow_one_another_are_a_gap() -> None:
    check_no_gap(3, [(3, b""), (4, b"")])
    with pytest.raises(EventGapError) as raised:
        check_no_gap(3, [(5, b"")])
    assert (raised.value.event_id, raised.value.missing) == (3, 2)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: RetryWithBackoff(max_retries=-1), id="retries"),
        pytest.param(lambda: RetryWithBackoff(initial_delay_ms=0), id="delay"),
        pytest.param(lambda: RetryWithBackoff(initial_delay_ms=9, max_delay_ms=8), id="cap"),
        pytest.param(lambda: ProjectorConfig(batch_events_max=0), id="events"),
        pytest.param(lambda: ProjectorConfig(batch_bytes_max=0), id="bytes"),
        pytest.param(lambda: ProjectorConfig(batch_wait_ms=-1), id="wait"),
        pytest.param(lambda: ProjectorConfig(handler_timeout_ms=0), id="deadline"),
        pytest.param(lambda: ProjectorConfig(replay_retries_max=0), id="replays"),
        pytest.param(lambda: ReplayConfig(check_interval_ms=0), id="interval"),
        pytest.param(lambda: ReplayConfig(initial_delay_ms=9, max_delay_ms=8), id="replay cap"),
        pytest.param(lambda: check_name(""), id="no name"),
        pytest.param(lambda: check_name("../x"), id="a path"),
        pytest.param(lambda: check_name("a" * 65), id="a long name"),
        pytest.param(lambda: check_name(7), id="a number"),  # type: ignore[arg-type]  # what is refused
    ],
)
def test_a_setting_that_cannot_be_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigError):
        make()
