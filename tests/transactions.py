"""What tests of the canonical store do in a line: write, and look at all there is."""

from __future__ import annotations

from exo_stream.canonical.changes import CommitInfo
from exo_stream.canonical.store import CanonicalStore


async def write(
    canonical: CanonicalStore,
    puts: dict[bytes, bytes] | None = None,
    *,
    deletes: tuple[bytes, ...] = (),
    events: tuple[bytes, ...] = (),
) -> CommitInfo:
    async with canonical.write_txn() as txn:
        for key, value in (puts or {}).items():
            txn.put_state(key, value)
        for key in deletes:
            txn.del_state(key)
        if events:
            await txn.append_events(events)
        return await txn.commit()


async def state(canonical: CanonicalStore) -> dict[bytes, bytes]:
    async with canonical.read_txn() as txn:
        return {key: value async for key, value in txn.range()}


async def all_events(canonical: CanonicalStore) -> list[tuple[int, bytes]]:
    return [event async for event in await canonical.iter_events()]
