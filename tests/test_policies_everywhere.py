"""Prunes, retention and sizes are the same for whoever holds the platform or a client of it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Retention
from exo_stream.client import Client
from exo_stream.errors import (
    BatchEvictedError,
    InvalidRequestError,
    OutcomeUnknownError,
    RemoteProtocolError,
    UnsupportedError,
)
from exo_stream.keys import MatchKey
from exo_stream.model import Entry
from exo_stream.policies.policy import (
    DropAll,
    GreaterThan,
    GreaterThanOrEqual,
    KeepLatest,
    KeysScope,
    Policy,
    Retain,
)
from exo_stream.policies.result import PruneCounts, PruneResult
from exo_stream.policies.retention import NO_RULES, LogRetention, RetentionState
from exo_stream.protocol import policies as p
from tests.families import FAMILY, key, keys_policy, log_policy
from tests.handles import Handle, both_handles
from tests.network import Puppet, connected_over, network_of, networked, puppets
from tests.worlds import FaultyEngine, GatedHop, in_memory

handle = both_handles()


async def put_versions(handle: Handle, logical: bytes, versions: range) -> int:
    return await handle.put_batch([(key(logical, n), b"v%d" % n) for n in versions])


async def test_client_prune(handle: Handle) -> None:
    for logical in (b"a", b"b"):
        await put_versions(handle, logical, range(4))
    await handle.put_batch([(b"other", b"")])

    result = await handle.prune([keys_policy(KeepLatest(1), "logical"), log_policy(KeepLatest(2))])

    size = 3 * 2 * (len(key(b"a", 0)) + 2)
    assert result == PruneResult(
        (
            PruneCounts(matched=8, deleted=6, deleted_bytes=size),
            PruneCounts(evicted=2),
        ),
        (4,),
    )
    left = [found for found, _ in await handle.range_scan()]
    assert left == sorted([b"other", key(b"a", 3), key(b"b", 3)])
    batch = await handle.get_batch(4)
    assert batch is not None
    assert batch.entries == tuple(
        Entry(0, key(logical, n), None) for logical in (b"a", b"b") for n in range(3)
    )
    with pytest.raises(BatchEvictedError):
        await handle.get_batch(2)


async def test_a_dry_run_counts_only(handle: Handle) -> None:
    await put_versions(handle, b"a", range(4))
    policies = [keys_policy(GreaterThan(1)), log_policy(DropAll())]
    result = await handle.prune(policies, dry_run=True)
    assert [counts.deleted for counts in result.policies] == [2, 0]
    assert [counts.evicted for counts in result.policies] == [0, 1]
    assert result.sequences == ()
    assert await handle.current_sequence() == 1
    assert len(await handle.range_scan()) == 4


async def test_every_rule_of_the_log_is_carried_out(handle: Handle) -> None:
    for _ in range(20):
        await handle.put_batch([(b"k", b"")])
    expected: dict[Retain, int | None] = {
        KeepLatest(15): 6,
        GreaterThan(7): 8,
        GreaterThanOrEqual(10): 10,
        DropAll(): None,
    }
    for retain, oldest in expected.items():
        await handle.prune([log_policy(retain)])
        assert await handle.oldest_retained_batch() == oldest


@pytest.mark.parametrize(
    "policies",
    [
        [],
        [log_policy(KeepLatest(0))],
        [keys_policy(DropAll(), regex=" ")],
        [Policy(KeysScope(MatchKey(40, 0, ".")), DropAll())],
        [Policy(KeysScope(MatchKey(0, 0, "(?=x)")), DropAll())],
        ["drop_all"],
        5,
    ],
    ids=repr,
)
async def test_a_broken_policy_is_an_invalid_request(handle: Handle, policies: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await handle.prune(policies)  # type: ignore[arg-type]  # what is refused
    assert caught.value.code == "invalid_request"


async def test_retention_is_set_told_and_cleared(handle: Handle) -> None:
    assert await handle.retention() == RetentionState(NO_RULES, NO_RULES, "stored", None, None)
    for _ in range(5):
        await handle.put_batch([(b"k", b"")])
    rules = LogRetention(KeepLatest(2), 3600, 1 << 40)
    state = await handle.set_retention(rules)
    assert state == RetentionState(rules, rules, "stored", None, 5)
    await handle.put_batch([(b"k", b"")])
    assert await handle.oldest_retained_batch() == 6
    cleared = await handle.set_retention(None)
    assert cleared == await handle.retention()
    assert cleared == RetentionState(NO_RULES, NO_RULES, "stored", None, 6)


@pytest.mark.parametrize("rules", [LogRetention(KeepLatest(0)), "all", 3], ids=repr)
async def test_rules_without_sense_are_an_invalid_request(handle: Handle, rules: object) -> None:
    with pytest.raises(InvalidRequestError):
        await handle.set_retention(rules)  # type: ignore[arg-type]  # what is refused


async def test_information_has_live_and_total_bytes(handle: Handle) -> None:
    await handle.put_batch([(b"k", b"v" * 1000)])
    before = (await handle.info()).sizes
    assert before.table_bytes >= 1001
    assert before.log_bytes > 1000
    assert before.live_bytes == before.table_bytes + before.log_bytes
    await handle.put_batch([(b"l", b"v" * 1000)])
    await handle.prune_batch_log(2)
    after = await handle.info()
    assert after.sizes.log_bytes == before.log_bytes
    assert after.sizes.table_bytes > before.table_bytes
    assert after.retention_problem is None


async def test_a_client_is_told_of_rules_that_the_server_was_started_with(
    autojump_clock: MockClock,
) -> None:
    opened = in_memory()(retention=Retention(batches_max=3, seconds_max=60))
    async with opened as platform, networked(platform) as network:
        async with connected_over(network) as client:
            state = await client.retention()
            assert state == await platform.retention()
            assert (state.source, state.in_force) == ("option", LogRetention(KeepLatest(3), 60))


async def test_a_prune_whose_connection_is_lost_is_not_sent_again(
    autojump_clock: MockClock,
) -> None:
    """Sent again, it would also delete what was written in between."""
    hop = GatedHop()
    async with in_memory()(hop=hop) as platform, networked(platform) as network:
        hop.gate.set()
        async with connected_over(network) as client, trio.open_nursery() as nursery:
            await put_versions(client, b"a", range(3))
            hop.gate, hop.arrived = trio.Event(), trio.Event()

            async def cut_in_the_middle() -> None:
                await hop.arrived.wait()
                await network.cut()
                await wait_all_tasks_blocked()
                hop.gate.set()

            nursery.start_soon(cut_in_the_middle)
            with pytest.raises(OutcomeUnknownError):
                await client.prune([keys_policy(DropAll())])
            await put_versions(client, b"a", range(1))
            assert await client.range_scan() == [(key(b"a", 0), b"v0")]


async def test_a_dry_run_whose_connection_is_lost_is_sent_again(autojump_clock: MockClock) -> None:
    async def leave(puppet: Puppet) -> None:
        await puppet.greet()
        await puppet.hear(p.PrunePolicies)

    async def answer(puppet: Puppet) -> None:
        await puppet.greet()
        request = await puppet.hear(p.PrunePolicies)
        await puppet.say(p.PoliciesPruned(request.id, (PruneCounts(matched=1),), ()))
        await trio.sleep_forever()

    async with network_of(puppets(leave, answer)) as network, connected_over(network) as client:
        result = await client.prune([log_policy(DropAll())], dry_run=True)
        assert result == PruneResult((PruneCounts(matched=1),))


async def test_rules_of_a_newer_server_are_an_error_and_not_half_understood(
    autojump_clock: MockClock,
) -> None:
    async def newer(puppet: Puppet) -> None:
        await puppet.greet()
        request = await puppet.hear(p.GetRetention)
        document = b'{"version":1,"retention":{"moons_max":3}}'
        await puppet.say(p.Retention(request.id, document, document, "stored", None, 1))
        await trio.sleep_forever()

    async with network_of(puppets(newer)) as network, connected_over(network) as client:
        with pytest.raises(RemoteProtocolError, match="no rules that this version knows"):
            await client.retention()


async def test_a_lost_client_stops_its_prune_between_two_batches(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exo_stream.prune.BATCH_KEYS_MAX", 10)
    hop = GatedHop()
    async with in_memory()(hop=hop) as platform, networked(platform) as network:
        hop.gate.set()
        async with connected_over(network) as client, trio.open_nursery() as nursery:
            await put_versions(client, b"a", range(100))
            hop.gate, hop.arrived = trio.Event(), trio.Event()
            nursery.start_soon(_unheard, client)
            await hop.arrived.wait()
            await network.cut()
            await wait_all_tasks_blocked()
            hop.gate.set()
            await wait_all_tasks_blocked()
            assert await platform.current_sequence() == 2
            assert len(await platform.range_scan(*FAMILY.prefix_bounds())) == 90


async def _unheard(client: Client) -> None:
    with pytest.raises(OutcomeUnknownError):
        await client.prune([keys_policy(DropAll())])


async def test_what_a_backend_lacks_is_told_over_the_wire(autojump_clock: MockClock) -> None:
    class Numbering(FaultyEngine):
        own_sequences = True

    async with in_memory(Numbering())() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            with pytest.raises(UnsupportedError):
                await client.set_retention(LogRetention(KeepLatest(1)))
