"""Wakes: each subscription has a task that hears of its streams, and tells of what is pending.

The task sleeps in the fan-out's index, where a group that concerns nobody costs nothing, until
something is appended, a lease ends or another try is due. What it is to do stands in the file; what
it remembers is a hint, and is found again when it is lost.
"""

from __future__ import annotations

import json
from typing import Final

import trio

from exo_stream.errors import ExoStreamError, PlatformClosedError
from exo_stream.logger import log
from exo_stream.platform import Platform
from exo_stream.protocol.streams.subscribing import path_of
from exo_stream.server.streams.keeper import Keeper
from exo_stream.server.streams.signing import Signing
from exo_stream.server.streams.webhooks import Reply, WebhookError, Webhooks
from exo_stream.streams.subscriptions.record import StreamInfo
from exo_stream.streams.subscriptions.step import State
from exo_stream.streams.subscriptions.subscriptions import Kept
from exo_stream.streams.subscriptions.tokens import mint

DELIVERIES_MAX: Final = 32
"""Webhooks under way at a time; others wait their turn."""
PAUSE_SECONDS: Final = 1.0
"""How long a task waits after a trouble of the platform, such as a full disk."""


class Wakes:
    """Looks after the subscriptions of a platform: ``run`` it as long as it is served."""

    def __init__(self, platform: Platform, webhooks: Webhooks) -> None:
        self._subscriptions = platform.streams.subscriptions
        self._platform = platform
        self._webhooks = webhooks
        self._deliveries = trio.CapacityLimiter(DELIVERIES_MAX)

    async def run(self) -> None:
        """Look after them all, also those still to come, until cancelled or the platform closes.

        While another port of the same platform does so, wait for its end.
        """
        subscriptions = self._subscriptions
        async with subscriptions.keeping, trio.open_nursery() as nursery:
            try:
                while True:
                    for subscription_id in await self._ids():
                        if subscription_id not in subscriptions.kept:
                            kept = subscriptions.kept[subscription_id] = Kept()
                            nursery.start_soon(self._keep, subscription_id, kept)
                    await subscriptions.bell.wait()
            except PlatformClosedError:
                nursery.cancel_scope.cancel()

    async def _ids(self) -> list[str]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                return await self._subscriptions.finding.ids()
            except PlatformClosedError:
                raise
            except ExoStreamError as error:
                log.warning("subscriptions not read", code=error.code)
                await trio.sleep(PAUSE_SECONDS)

    async def _keep(self, subscription_id: str, kept: Kept) -> None:
        """Look after one subscription until it is deleted."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            while True:
                try:
                    await Keeper(self._platform, subscription_id, kept, self.deliver).run()
                except PlatformClosedError:
                    return
                except ExoStreamError as error:
                    log.warning("wake postponed", subscription=subscription_id, code=error.code)
                except Exception:
                    # The barrier: a bug met by one subscription is not everybody's.
                    log.exception("keeper failed", subscription=subscription_id)
                else:
                    return
                await trio.sleep(PAUSE_SECONDS)
        finally:
            del self._subscriptions.kept[subscription_id]
            self._subscriptions.bell.ring()  # it may have been made anew meanwhile

    async def deliver(self, subscription_id: str, state: State) -> None:
        """Tell a webhook of the wake that is due, and note what came of it."""
        assert state.wake is not None
        subscriptions = self._subscriptions
        scope, wake_id = state.scope, state.wake.id
        try:
            reply = await self._post(subscription_id, state)
        except WebhookError as error:
            failed = await subscriptions.failed(subscription_id, scope, wake_id)
            log.info(
                "webhook failed",
                subscription=subscription_id,
                reason=str(error),
                failures=failed.subscription.failures if failed else 0,
            )
            return
        done = state.streams if reply.is_done else None
        await subscriptions.told(subscription_id, scope, wake_id, done)

    async def _post(self, subscription_id: str, state: State) -> Reply:
        subscription, wake = state.subscription, state.wake
        assert wake is not None
        secret = await self._subscriptions.secret()
        async with self._deliveries:
            now = self._subscriptions.now
            value = {
                "subscription_id": subscription_id,
                "wake_id": wake.id,
                "generation": subscription.generation,
                "streams": [told(info) for info in state.streams],
                "callback_url": subscription.base_url + path_of(subscription_id, "callback"),
                "callback_token": mint(secret, state.scope, now),
            }
            body = json.dumps(value, separators=(",", ":")).encode()
            headers = {"Webhook-Signature": Signing(secret).header(body, now)}
            return await self._webhooks.post(subscription.config.target, body, headers)


def told(info: StreamInfo) -> dict[str, object]:
    """A stream as subscribers read of it."""
    return {
        "path": info.path,
        "link_type": "explicit" if info.is_explicit else "glob",
        "acked_offset": info.acked_offset,
        "tail_offset": info.tail_offset,
        "has_pending": info.has_pending,
    }
