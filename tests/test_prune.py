"""Prunes: what they delete and keep, in which batches, and which policies are refused."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from exo_stream import prune as execution
from exo_stream.errors import (
    InvalidRequestError,
)
from exo_stream.keys import MatchKey
from exo_stream.limits import Limits
from exo_stream.model import Entry
from exo_stream.policies.policy import (
    DropAll,
    GreaterThan,
    GreaterThanOrEqual,
    InvalidPolicyError,
    KeepLatest,
    KeysScope,
    OrderBy,
    OrderEncoding,
    Pattern,
    Policy,
)
from exo_stream.policies.pruning import Doomed
from exo_stream.policies.result import PruneCounts, PruneResult
from exo_stream.regex.pattern import compile_regex
from tests.families import (
    FAMILY,
    OTHER,
    VERSIONED,
    all_in,
    key,
    keys_of,
    keys_policy,
    log_policy,
    put_versions,
    small_platforms,
)
from tests.worlds import OpenPlatform, in_memory

opened = small_platforms()


async def test_prune_drop_all_of_a_family(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await put_versions(platform, b"a", range(200))
        others = [key(b"a", 1, OTHER), b"unmatched"]
        await platform.put_batch([(other, b"") for other in others])

        result = await platform.prune([keys_policy(DropAll())])

        size = sum(len(key(b"a", n)) + len(b"v%d" % n) for n in range(200))
        counts = PruneCounts(matched=200, deleted=200, deleted_bytes=size)
        assert result.policies == (counts,)
        assert result.sequences == (3,)
        assert sorted(await keys_of(platform)) == sorted(others)


async def test_prune_keep_latest_by_logical_and_version_keeps_the_newest_of_each_group(
    opened: OpenPlatform,
) -> None:
    async with opened() as platform:
        for version in (3, 1, 2):
            for logical in (b"a", b"b", b"\0\xff"):
                await put_versions(platform, logical, [version])
        result = await platform.prune([keys_policy(KeepLatest(1), "logical")])
        assert result.total.deleted == 6
        assert await keys_of(platform) == sorted(key(one, 3) for one in (b"a", b"b", b"\0\xff"))


async def test_prune_greater_than_15_keeps_20_and_30(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await put_versions(platform, b"a", [10, 15, 20, 30])
        await platform.prune([keys_policy(GreaterThan(15))])
        assert await keys_of(platform) == [key(b"a", 20), key(b"a", 30)]


async def test_prune_greater_than_or_equal_keeps_its_threshold(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await put_versions(platform, b"a", [10, 15, 20])
        await platform.prune([keys_policy(GreaterThanOrEqual(15))])
        assert await keys_of(platform) == [key(b"a", 15), key(b"a", 20)]


async def test_a_prune_takes_one_sequence_whose_batch_holds_the_deletions(
    opened: OpenPlatform,
) -> None:
    async with opened() as platform:
        await put_versions(platform, b"a", [1, 2])
        async with platform.subscribe(start="now") as feed:
            result = await platform.prune([keys_policy(DropAll())])
            batch = await anext(feed)
        deletions = (Entry(0, key(b"a", 1), None), Entry(0, key(b"a", 2), None))
        assert (result.sequences, batch.sequence, batch.entries) == ((2,), 2, deletions)
        found = await platform.get_batch(2)
        assert found is not None
        assert found.entries == deletions


async def test_a_prune_is_idempotent_and_what_deletes_nothing_takes_no_sequence(
    opened: OpenPlatform,
) -> None:
    async with opened() as platform:
        await put_versions(platform, b"a", [1, 2, 3])
        policy = keys_policy(KeepLatest(2), "logical")
        assert (await platform.prune([policy])).sequences == (2,)
        again = await platform.prune([policy])
        assert again == PruneResult((PruneCounts(matched=2),), ())
        assert await platform.current_sequence() == 2


async def test_a_dry_run_counts_and_does_nothing(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await put_versions(platform, b"a", [1, 2, 3])
        await platform.put_batch([(b"x", b"")])
        policies = [keys_policy(KeepLatest(1), "logical"), log_policy(KeepLatest(1))]
        foretold = await platform.prune(policies, dry_run=True)
        assert foretold.sequences == ()
        assert await platform.current_sequence() == 2
        assert await platform.oldest_retained_batch() == 1
        done = await platform.prune(policies)
        assert foretold.policies[0] == done.policies[0]
        # The deletions were one more batch, which a dry run does not write.
        assert (foretold.policies[1].evicted, done.policies[1].evicted) == (1, 2)


async def test_a_malformed_order_is_skipped_and_counted(opened: OpenPlatform) -> None:
    """Not taken for zero, and so deleted first."""
    async with opened() as platform:
        regex = r"(?s-u)^(?P<logical>[a-z]+)-(?P<version>.*)$"
        short, long = FAMILY.encode(b"a-123"), FAMILY.encode(b"a-123456789")
        whole = [FAMILY.encode(b"a-" + n.to_bytes(8, "big")) for n in (1, 2)]
        await platform.put_batch([(k, b"") for k in (short, long, *whole)])
        for retain in (KeepLatest(1), GreaterThan(1)):
            counts = (await platform.prune([keys_policy(retain, regex=regex)])).total
            assert counts.malformed == 2
        assert await keys_of(platform) == sorted([short, long, whole[1]])


async def test_policies_are_carried_out_one_after_the_other(opened: OpenPlatform) -> None:
    async with opened() as platform:
        await put_versions(platform, b"a", [1, 2])
        await platform.put_batch([(key(b"b", n, OTHER), b"") for n in (1, 2)])
        other = Policy(KeysScope(MatchKey(4, 6, "(?s-u).*")), DropAll())
        result = await platform.prune([keys_policy(KeepLatest(1)), other, log_policy(DropAll())])
        assert result.sequences == (3, 4)
        assert [counts.deleted for counts in result.policies] == [1, 2, 0]
        # What a prune takes counts for the next: the log is empty.
        assert result.policies[2].evicted == 4
        assert await platform.oldest_retained_batch() is None


async def test_prune_keep_latest_10_of_20_evicts_the_first_and_keeps_the_last(
    opened: OpenPlatform,
) -> None:
    async with opened() as platform:
        for n in range(20):
            await platform.put_batch([(b"k%d" % n, b"")])
        assert (await platform.prune([log_policy(KeepLatest(10))])).total.evicted == 10
        assert await platform.oldest_retained_batch() == 11
        assert (await platform.prune([log_policy(GreaterThan(12))])).total.evicted == 2
        assert (await platform.prune([log_policy(GreaterThanOrEqual(15))])).total.evicted == 2
        assert await platform.oldest_retained_batch() == 15
        assert (await platform.prune([log_policy(KeepLatest(100))])).total.evicted == 0
        assert (await platform.prune([log_policy(DropAll())])).total.evicted == 6
        assert await platform.oldest_retained_batch() is None
        assert await platform.put_batch([(b"k", b"")]) == 21


async def test_pruned_keys_are_not_resurrected_when_versions_share_a_batch(
    opened: OpenPlatform,
) -> None:
    async with opened() as platform:
        await put_versions(platform, b"a", [1, 2, 3])
        await platform.prune([keys_policy(KeepLatest(1), "logical")])
    async with opened() as platform:
        assert await keys_of(platform) == [key(b"a", 3)]
        assert await platform.current_sequence() == 2
        assert len(await all_in([1], platform)) == 3


BY_SIGNED_VERSION = OrderBy("version", OrderEncoding.I64_BE)
BROKEN: dict[str, tuple[list[Policy], str]] = {
    "none": ([], "policies"),
    "too many": ([log_policy(DropAll())] * 257, "policies"),
    "keep none of the log": (
        [log_policy(KeepLatest(0))],
        "policies[0].retain.keep_latest.count",
    ),
    "keep none of the keys": (
        [keys_policy(KeepLatest(0))],
        "policies[0].retain.keep_latest.count",
    ),
    "two for the log": ([log_policy(DropAll())] * 2, "policies[1].scope"),
    "two for one family": ([keys_policy(DropAll())] * 2, "policies[1].scope"),
    "too many bits, in the second": (
        [log_policy(DropAll()), Policy(KeysScope(MatchKey(17, 1, ".")), DropAll())],
        "policies[1].keys.match_key",
    ),
    "a prefix too large": (
        [Policy(KeysScope(MatchKey(4, 16, ".")), DropAll())],
        "policies[0].keys.match_key",
    ),
    "no regex": (
        [keys_policy(DropAll(), regex="(")],
        "policies[0].keys.match_key.payload_regex",
    ),
    "no order": (
        [Policy(KeysScope(MatchKey(4, 5, ".")), KeepLatest(1))],
        "policies[0].keys.order_by",
    ),
    "no such capture": ([keys_policy(DropAll(), "nobody")], "policies[0].keys.group_by[0]"),
    "a threshold for signed numbers": (
        [Policy(KeysScope(MatchKey(4, 5, VERSIONED), (), BY_SIGNED_VERSION), GreaterThan(1))],
        "policies[0].keys.order_by",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_policy_is_refused_before_anything_is_done(
    broken: str, autojump_clock: MockClock
) -> None:
    """Trap 3: a prefix that does not fit its bits must not fail in the middle of the work."""
    policies, field = BROKEN[broken]
    async with in_memory()() as platform:
        await put_versions(platform, b"a", [1, 2])
        with pytest.raises(InvalidPolicyError) as caught:
            await platform.prune(policies)
        assert caught.value.field == field
        assert caught.value.code == "invalid_request"
        assert await platform.current_sequence() == 1
        assert await platform.oldest_retained_batch() == 1


async def test_what_is_no_list_of_policies_is_refused(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform:
        for nonsense in (3, None, "policies", ["policy"], {"a": 1}):
            with pytest.raises(InvalidRequestError):
                await platform.prune(nonsense)  # type: ignore[arg-type]  # what is refused


async def test_more_keys_than_one_batch_takes_are_several_batches(
    opened: OpenPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert execution.BATCH_KEYS_MAX == 100_000
    monkeypatch.setattr(execution, "BATCH_KEYS_MAX", 40)
    async with opened() as platform:
        await put_versions(platform, b"a", range(100))
        result = await platform.prune([keys_policy(DropAll())])
        assert result.sequences == (2, 3, 4)
        sizes = [len(await all_in([n], platform)) for n in result.sequences]
        assert sizes == [40, 40, 20]
        assert await keys_of(platform) == []


async def test_a_batch_of_deletions_keeps_to_the_limits_of_a_batch(opened: OpenPlatform) -> None:
    limits = Limits(batch_entries_max=30, batch_bytes_max=25 * 12, memtable_entries_max=64)
    async with opened(limits=limits) as platform:
        for start in range(0, 60, 20):
            await put_versions(platform, b"a", range(start, start + 20))
        result = await platform.prune([keys_policy(DropAll())])
        sizes = [len(await all_in([n], platform)) for n in result.sequences]
        assert sum(sizes) == 60
        assert max(sizes) <= 25


async def test_a_batch_is_put_together_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_PART_KEYS", 10)
    doomed = [Doomed(b"%03d" % n, 1, 1) for n in range(95)]
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        parts = await execution._parts(doomed)
        nursery.cancel_scope.cancel()
    assert [len(entries) for entries, _ in parts] == [10] * 9 + [5]
    assert [entry.key for entries, _ in parts for entry in entries] == [row.key for row in doomed]
    assert turns >= len(parts)


async def test_regexes_are_compiled_in_turns(autojump_clock: MockClock) -> None:
    """A hundred of them take seconds, in which others must be served."""
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        order: list[str] = []

        async def somebody_else() -> None:
            while True:
                order.append("other")
                await trio.lowlevel.checkpoint()

        def compile_slowly(regex: str) -> Pattern:
            order.append(regex)
            return compile_regex(regex)

        nursery.start_soon(somebody_else)
        policies = [
            Policy(KeysScope(MatchKey(16, number, f"regex {number}")), DropAll())
            for number in range(20)
        ]
        await execution.prune(platform._ground, policies, compile_slowly, dry_run=True)
        compiling = order[order.index("regex 0") : order.index("regex 19")]
        assert compiling.count("other") >= 18
        nursery.cancel_scope.cancel()


async def test_a_regex_that_is_wrong_is_compiled_no_further(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform:
        seen: list[str] = []

        def refuse(regex: str) -> Pattern:
            seen.append(regex)
            raise InvalidRequestError("no")

        wrong = [keys_policy(DropAll(), regex="a"), keys_policy(DropAll(), regex="b")]
        with pytest.raises(InvalidPolicyError):
            await execution.prune(platform._ground, wrong, refuse, dry_run=True)
        assert set(seen) == {"a"}
