"""Policies: what may be asked, what a pruning deletes, and where retention lets the log begin."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.errors import InvalidRequestError, LimitExceededError
from exo_stream.keys import KeyCodec, MatchKey
from exo_stream.model import SEQUENCE_MAX
from exo_stream.policies.policy import (
    DropAll,
    GreaterThan,
    GreaterThanOrEqual,
    InvalidPolicyError,
    KeepLatest,
    KeysPolicy,
    KeysScope,
    OrderBy,
    OrderEncoding,
    Policy,
    Retain,
    SequencePolicy,
    SequenceScope,
    checked_policies,
)
from exo_stream.policies.pruning import Doomed, Pruning
from exo_stream.policies.result import PruneCounts, PruneResult
from exo_stream.policies.retention import LogRetention, cutoff

Row = tuple[bytes, bytes, int]


class PythonPattern:
    """Python's own engine, good enough for the patterns of these tests."""

    def __init__(self, regex: str) -> None:
        try:
            self._compiled = re.compile(regex.encode("latin-1"), re.DOTALL)
        except re.error as error:
            raise InvalidRequestError(f"no regex: {error}") from None

    @property
    def names(self) -> Collection[str]:
        return self._compiled.groupindex.keys()

    def search(self, payload: bytes) -> Mapping[str, bytes | None] | None:
        found = self._compiled.search(payload)
        return None if found is None else found.groupdict()


def keys_policy(
    retain: Retain,
    regex: str = r"^(?P<logical>.)(?P<version>.{8})$",
    group_by: tuple[str, ...] = ("logical",),
    order_by: OrderBy | None = None,
    codec: tuple[int, int] = (4, 5),
) -> Policy:
    return Policy(KeysScope(MatchKey(*codec, regex), group_by, order_by), retain)


def checked(policy: Policy) -> KeysPolicy:
    (one,) = checked_policies([policy], PythonPattern)
    assert isinstance(one, KeysPolicy)
    return one


U64 = OrderBy("version", OrderEncoding.U64_BE)
I64 = OrderBy("version", OrderEncoding.I64_BE)
FAMILY = KeyCodec(4, 5)
SEQUENCE = Policy(SequenceScope(), DropAll())


def key_of(logical: bytes, version: int) -> bytes:
    return FAMILY.encode(logical + version.to_bytes(8, "big"))


def rows_of(*keys: bytes) -> list[Row]:
    return [(key, b"value", number) for number, key in enumerate(keys, 1)]


def pruned(policy: Policy, rows: list[Row], **options: int) -> list[bytes]:
    return [row.key for row in Pruning(checked(policy), **options).judge(rows)]


def test_policies_are_checked_and_keep_their_order() -> None:
    policies = [keys_policy(KeepLatest(3), order_by=U64), SEQUENCE]
    keys, log = checked_policies(policies, PythonPattern)
    assert isinstance(keys, KeysPolicy)
    assert keys.bounds == FAMILY.prefix_bounds()
    assert (keys.retain, keys.group_by, keys.order_by) == (KeepLatest(3), ("logical",), U64)
    assert log == SequencePolicy(DropAll())


def twice(policy: Policy) -> list[Policy]:
    return [keys_policy(DropAll(), codec=(0, 0)), policy, policy]


def wrong(**fields: Any) -> Policy:
    """A policy whose types lie, as those of a careless caller do."""
    return keys_policy(**fields)


KEYS = "policies[0].keys"
REFUSED: list[Any] = [
    pytest.param([], "policies", id="none"),
    pytest.param([None], "policies[0]", id="no policy"),
    pytest.param([Policy(None, DropAll())], "policies[0].scope", id="no scope"),  # type: ignore[arg-type]  # what is refused
    pytest.param([wrong(retain=None)], "policies[0].retain", id="no rule"),
    pytest.param(
        [Policy(KeysScope(None), DropAll())],  # type: ignore[arg-type]  # what is refused
        f"{KEYS}.match_key",
        id="no match key",
    ),
    pytest.param(
        [keys_policy(DropAll(), codec=(17, 0))], f"{KEYS}.match_key", id="17 reserved bits"
    ),
    pytest.param(
        [keys_policy(DropAll(), codec=(4, 16))], f"{KEYS}.match_key", id="a prefix too wide"
    ),
    pytest.param(
        [keys_policy(DropAll(), regex=" \t")], f"{KEYS}.match_key.payload_regex", id="blank regex"
    ),
    pytest.param(
        [wrong(retain=DropAll(), regex=3)], f"{KEYS}.match_key.payload_regex", id="no text"
    ),
    pytest.param(
        [keys_policy(DropAll(), regex="(")], f"{KEYS}.match_key.payload_regex", id="bad regex"
    ),
    pytest.param(
        [keys_policy(DropAll(), group_by=("logical", "other"))],
        f"{KEYS}.group_by[1]",
        id="group by an unknown capture",
    ),
    pytest.param(
        [keys_policy(DropAll(), group_by=("version", "version"))],
        f"{KEYS}.group_by[1]",
        id="group twice by one capture",
    ),
    pytest.param(
        [wrong(retain=DropAll(), group_by="version")], f"{KEYS}.group_by", id="group by text"
    ),
    pytest.param(
        [keys_policy(KeepLatest(1), order_by=OrderBy("other"))],
        f"{KEYS}.order_by.capture_group",
        id="order by an unknown capture",
    ),
    pytest.param(
        [keys_policy(KeepLatest(1), order_by=OrderBy("version", 7))],  # type: ignore[arg-type]  # what is refused
        f"{KEYS}.order_by.encoding",
        id="unknown encoding",
    ),
    pytest.param([wrong(retain=DropAll(), order_by="x")], f"{KEYS}.order_by", id="order by text"),
    pytest.param([keys_policy(KeepLatest(1))], f"{KEYS}.order_by", id="keep_latest without order"),
    pytest.param([keys_policy(GreaterThan(1))], f"{KEYS}.order_by", id="threshold without order"),
    pytest.param(
        [keys_policy(GreaterThan(1), order_by=I64)], f"{KEYS}.order_by", id="threshold in i64"
    ),
    pytest.param(
        [keys_policy(GreaterThanOrEqual(1), order_by=OrderBy("version"))],
        f"{KEYS}.order_by",
        id="threshold in bytes",
    ),
    pytest.param(
        [keys_policy(KeepLatest(0), order_by=U64)],
        "policies[0].retain.keep_latest.count",
        id="keep none",
    ),
    pytest.param(
        [Policy(SequenceScope(), KeepLatest(True))],
        "policies[0].retain.keep_latest.count",
        id="keep True",
    ),
    pytest.param(
        [Policy(SequenceScope(), GreaterThan(-1))],
        "policies[0].retain.greater_than.threshold",
        id="a threshold below 0",
    ),
    pytest.param(
        [Policy(SequenceScope(), GreaterThanOrEqual(SEQUENCE_MAX + 1))],
        "policies[0].retain.greater_than_or_equal.threshold",
        id="a threshold of 65 bits",
    ),
    pytest.param(twice(keys_policy(DropAll())), "policies[2].scope", id="one family twice"),
    pytest.param(twice(SEQUENCE), "policies[2].scope", id="the log twice"),
]


@pytest.mark.parametrize(("policies", "field"), REFUSED)
def test_a_broken_rule_is_refused_by_the_name_of_its_field(
    policies: list[Policy], field: str
) -> None:
    with pytest.raises(InvalidPolicyError) as caught:
        checked_policies(policies, PythonPattern)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.problem}"
    assert caught.value.code == "invalid_request"


def test_drop_all_deletes_what_matches_and_spares_other_families() -> None:
    mine, other, unmatched = key_of(b"a", 1), KeyCodec(4, 6).encode(b"a" * 9), FAMILY.encode(b"a")
    pruning = Pruning(checked(keys_policy(DropAll())))
    rows = [(unmatched, b"", 1), (mine, b"value", 2), (other, b"", 3)]
    assert pruning.judge(rows) == [Doomed(mine, 2, len(mine) + 5)]
    assert pruning.counts == PruneCounts(matched=1, deleted=1, deleted_bytes=len(mine) + 5)


def test_keep_latest_keeps_the_newest_of_each_group() -> None:
    rows = rows_of(*(key_of(logical, n) for logical in (b"a", b"b") for n in (1, 2, 10)))
    policy = keys_policy(KeepLatest(1), order_by=U64)
    assert pruned(policy, rows) == [
        key_of(b"a", 1),
        key_of(b"a", 2),
        key_of(b"b", 1),
        key_of(b"b", 2),
    ]


def test_without_group_by_all_keys_are_one_group() -> None:
    rows = rows_of(*(key_of(logical, n) for logical in (b"a", b"b") for n in (1, 2)))
    policy = keys_policy(KeepLatest(1), group_by=(), order_by=U64)
    assert set(pruned(policy, rows)) == {key_of(b"a", 1), key_of(b"a", 2), key_of(b"b", 1)}


@pytest.mark.parametrize(
    ("retain", "kept"), [(GreaterThan(15), [16, 20]), (GreaterThanOrEqual(15), [15, 16, 20])]
)
def test_a_threshold_spares_what_is_above_it(retain: Retain, kept: list[int]) -> None:
    versions = [10, 14, 15, 16, 20]
    gone = pruned(keys_policy(retain, order_by=U64), rows_of(*(key_of(b"a", n) for n in versions)))
    assert gone == [key_of(b"a", n) for n in versions if n not in kept]


@pytest.mark.parametrize(
    ("order_by", "greatest"),
    [
        (U64, (1 << 64) - 1),
        (I64, (1 << 63) - 1),
        (OrderBy("version"), (1 << 64) - 1),
    ],
)
def test_an_encoding_says_which_is_the_greatest(order_by: OrderBy, greatest: int) -> None:
    versions = [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    rows = rows_of(*(key_of(b"a", n) for n in versions))
    gone = pruned(keys_policy(KeepLatest(1), order_by=order_by), rows)
    assert set(gone) == {key_of(b"a", n) for n in versions if n != greatest}


def test_of_equals_the_greater_keys_are_kept() -> None:
    policy = keys_policy(KeepLatest(2), "^(?P<n>.)", (), OrderBy("n"), (0, 0))
    assert pruned(policy, rows_of(b"1a", b"1b", b"1c", b"0d")) == [b"1a", b"0d"]


LOOSE = "^(?P<logical>[a-z])?-(?P<version>[0-9]*)?!?"


@pytest.mark.parametrize("retain", [KeepLatest(1), GreaterThan(9), GreaterThanOrEqual(9)])
def test_a_malformed_order_is_skipped_and_counted(retain: Retain) -> None:
    """The Exoware store takes it for 0 and deletes it first."""
    policy = keys_policy(retain, LOOSE, (), U64, (0, 0))
    pruning = Pruning(checked(policy))
    assert pruning.judge(rows_of(b"a-1234567", b"a-123456789", b"a-")) == []
    assert pruning.counts == PruneCounts(matched=3, malformed=3)


def test_an_order_that_took_no_part_is_malformed_but_an_empty_one_is_not() -> None:
    policy = keys_policy(KeepLatest(1), "^(a|b(?P<n>[0-9]*))", (), OrderBy("n"), (0, 0))
    pruning = Pruning(checked(policy))
    assert pruning.judge(rows_of(b"a", b"b", b"b1")) == [Doomed(b"b", 2, 6)]
    assert pruning.counts.malformed == 1


def test_drop_all_asks_for_no_order() -> None:
    policy = keys_policy(DropAll(), LOOSE, (), U64, (0, 0))
    assert pruned(policy, rows_of(b"a-1")) == [b"a-1"]


def test_a_key_without_its_group_is_left_alone_and_counted() -> None:
    pruning = Pruning(checked(keys_policy(DropAll(), LOOSE, codec=(0, 0))))
    assert pruning.judge(rows_of(b"-1", b"a-1")) == [Doomed(b"a-1", 2, 3 + 5)]
    assert pruning.counts == PruneCounts(matched=2, ungrouped=1, deleted=1, deleted_bytes=8)


def test_groups_of_two_captures_do_not_run_together() -> None:
    policy = keys_policy(
        KeepLatest(1), "^(?P<a>.*)/(?P<b>.*)=(?P<n>.)", ("a", "b"), OrderBy("n"), (0, 0)
    )
    assert pruned(policy, rows_of(b"x/yz=1", b"xy/z=2")) == []


def test_pruning_again_deletes_nothing_more() -> None:
    rows = rows_of(*(key_of(b"a", n) for n in range(9)))
    policy = keys_policy(KeepLatest(4), order_by=U64)
    gone = pruned(policy, rows)
    assert len(gone) == 5
    assert pruned(policy, [row for row in rows if row[0] not in gone]) == []


def test_what_must_be_held_is_bounded() -> None:
    policy = keys_policy(KeepLatest(1), order_by=U64)
    many_rows_of_one_group = rows_of(*(key_of(b"a", n) for n in range(999)))
    assert len(pruned(policy, many_rows_of_one_group, held_bytes_max=1_000)) == 998
    many_groups = rows_of(*(key_of(bytes([n]), 1) for n in range(99)))
    with pytest.raises(LimitExceededError) as caught:
        pruned(policy, many_groups, held_bytes_max=1_000)
    assert (caught.value.limit, caught.value.bound) == ("held_bytes_max", 1_000)


RETAINS = st.one_of(
    st.builds(KeepLatest, st.integers(1, 3)),
    st.builds(GreaterThan, st.integers(0, 9)),
    st.builds(GreaterThanOrEqual, st.integers(0, 9)),
    st.just(DropAll()),
)
NAMES = st.tuples(
    st.sampled_from([b"a", b"b", b"c", b"-"]), st.integers(0, 9), st.binary(max_size=1)
)


def expected(retain: Retain, names: set[tuple[bytes, int, bytes]]) -> set[bytes]:
    """What the reference deletes, said plainly: sort each group, then look at it whole."""
    groups = defaultdict(list)
    for logical, number, rest in names:
        if logical != b"-":
            groups[logical].append((number, key_of_name(logical, number, rest)))
    gone: set[bytes] = set()
    for group in groups.values():
        match retain:
            case KeepLatest(count):
                gone |= {key for _, key in sorted(group)[:-count]}
            case GreaterThan(threshold):
                gone |= {key for number, key in group if number <= threshold}
            case GreaterThanOrEqual(threshold):
                gone |= {key for number, key in group if number < threshold}
            case DropAll():
                gone |= {key for _, key in group}
    return gone


def key_of_name(logical: bytes, number: int, rest: bytes) -> bytes:
    return FAMILY.encode(logical + number.to_bytes(8, "big") + rest)


@given(RETAINS, st.sets(NAMES), st.randoms(), st.integers(1, 3), st.integers(1, 5))
def test_pages_parts_and_order_of_rows_make_no_difference(
    retain: Retain,
    names: set[tuple[bytes, int, bytes]],
    random: Any,
    parts: int,
    page: int,
) -> None:
    policy = checked(keys_policy(retain, "^(?P<logical>[a-z])?-?(?P<version>.{8})", order_by=U64))
    rows = [(key, b"v", n) for n, key in enumerate(sorted(key_of_name(*name) for name in names))]
    random.shuffle(rows)
    gone: list[Doomed] = []
    counts = PruneCounts()
    for part in range(parts):
        pruning = Pruning(policy, part=part, parts=parts)
        for start in range(0, len(rows), page):
            gone += pruning.judge(rows[start : start + page])
        counts += pruning.counts
    assert len(gone) == len(set(gone))
    assert {row.key for row in gone} == expected(retain, names)
    assert {(key, b"v", version) for key, version, _ in gone} <= set(rows)
    assert counts == PruneCounts(
        matched=len(rows),
        ungrouped=sum(logical == b"-" for logical, _, _ in names),
        deleted=len(gone),
        deleted_bytes=sum(len(row.key) + 1 for row in gone),
    )


@pytest.mark.parametrize(
    ("retain", "frontier", "floor"),
    [
        (KeepLatest(10), 20, 11),
        (KeepLatest(21), 20, 0),
        (KeepLatest(SEQUENCE_MAX), 20, 0),
        (GreaterThan(3), 20, 4),
        (GreaterThanOrEqual(3), 20, 3),
        (DropAll(), 20, 21),
        (DropAll(), 0, 1),
        (GreaterThan(SEQUENCE_MAX), 20, 21),
        (GreaterThanOrEqual(22), 20, 21),
    ],
)
def test_a_rule_cuts_the_log_by_sequence_and_never_above_the_frontier(
    retain: Retain, frontier: int, floor: int
) -> None:
    assert cutoff(retain, frontier) == floor


@pytest.mark.parametrize(
    ("retention", "field"),
    [
        (LogRetention(KeepLatest(0)), "retention.retain.keep_latest.count"),
        (LogRetention(seconds_max=0), "retention.seconds_max"),
        (LogRetention(bytes_max=0), "retention.bytes_max"),
    ],
)
def test_a_retention_that_keeps_nothing_by_mistake_is_refused(
    retention: LogRetention, field: str
) -> None:
    with pytest.raises(InvalidPolicyError) as caught:
        retention.check()
    assert caught.value.field == field


def test_the_counts_of_a_result_add_up_over_its_policies() -> None:
    result = PruneResult((PruneCounts(matched=3, deleted=2), PruneCounts(evicted=5, spared=1)))

    assert result.total == PruneCounts(matched=3, deleted=2, evicted=5, spared=1)
    assert PruneResult(()).total == PruneCounts()


def test_a_family_may_begin_with_bytes() -> None:
    scope = KeysScope(MatchKey(4, 5, LOOSE), (), None, b"user/")
    pruning = Pruning(checked(Policy(scope, DropAll())))
    mine = b"user/" + FAMILY.encode(b"a-1")
    assert [row.key for row in pruning.judge(rows_of(FAMILY.encode(b"a-1"), mine, b"user/"))] == [
        mine
    ]
    first, last = checked(Policy(scope, DropAll())).bounds
    assert first <= mine <= last
    assert (first[:6], len(last), last[5] >> 4) == (b"user/\x50", 254, 5)


@pytest.mark.parametrize("prefix", ["user/", b"x" * 254, None], ids=type)
def test_a_prefix_must_leave_room(prefix: Any) -> None:
    scope = KeysScope(MatchKey(4, 5, LOOSE), prefix=prefix)
    with pytest.raises(InvalidPolicyError) as caught:
        checked(Policy(scope, DropAll()))
    assert caught.value.field == "policies[0].keys.prefix"


def test_families_that_differ_in_their_prefix_are_two() -> None:
    scopes = [KeysScope(MatchKey(4, 5, LOOSE), prefix=prefix) for prefix in (b"", b"a", b"b")]
    policies = [Policy(scope, DropAll()) for scope in scopes]
    assert len(checked_policies(policies, PythonPattern)) == 3
    with pytest.raises(InvalidPolicyError):
        checked_policies([*policies, policies[1]], PythonPattern)
