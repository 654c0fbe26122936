"""What tests of preflighted transactions do in a line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from exo_stream.canonical.changes import CommitInfo
from exo_stream.canonical.contexts import PreflightContext, TransactionContext
from exo_stream.canonical.store import CanonicalStore
from exo_stream.canonical.values import I64, TypedValue

Body = Callable[[TransactionContext], Awaitable[None]]


def setting(values: dict[bytes, TypedValue]) -> Body:
    async def body(ctx: TransactionContext) -> None:
        for key, value in values.items():
            ctx.set(key, value)
        await trio.lowlevel.checkpoint()

    return body


async def nothing(_ctx: TransactionContext) -> None:
    await trio.lowlevel.checkpoint()


async def put(canonical: CanonicalStore, **values: int) -> CommitInfo:
    entries: dict[bytes, TypedValue] = {k.encode(): I64(v) for k, v in values.items()}
    return await canonical.transaction().keys(entries).execute(setting(entries))


async def value_of(canonical: CanonicalStore, key: bytes) -> int | None:
    found: list[TypedValue | None] = []

    async def look(context: PreflightContext) -> None:
        found.append(await context.get_opt(key))

    assert (await canonical.transaction().keys([key]).validate(look).preflight()).valid
    return None if found[0] is None else found[0].as_integer()


async def events(canonical: CanonicalStore) -> list[tuple[int, bytes]]:
    return [event async for event in await canonical.iter_events()]
