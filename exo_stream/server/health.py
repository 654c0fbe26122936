"""Health: whether the process lives, whether it should be sent work, and if not, why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from exo_stream.platform import Platform
from exo_stream.protocol.http import Response, json_response
from exo_stream.server.port import Port
from exo_stream.server.request import Request
from exo_stream.server.routes import Answer


@dataclass(frozen=True, slots=True)
class Health:
    """Answers four paths. Readiness fails fast, liveness fails slow."""

    platform: Platform
    port: Port

    def add_routes(self) -> None:
        """Let the port answer ``/health``, ``/healthz/live`` and ``/healthz/ready``.

        ``/ready`` is for clients of Exoware's store, which ask there.
        """
        routes = self.port.routes
        routes.add("GET", "/health", self.ready)
        routes.add("GET", "/ready", self.ready)
        routes.add("GET", "/healthz/ready", self.ready)
        routes.add("GET", "/healthz/live", self.live)

    async def live(self, _: Request) -> Answer:
        """200 while the loop answers, which it just did, and the writer is not stuck."""
        await trio.lowlevel.checkpoint()
        return self._respond({"writer": self._writer()})

    async def ready(self, _: Request) -> Answer:
        """200 if it lives and new work is welcome."""
        await trio.lowlevel.checkpoint()
        engine = self.platform.sources.reads.engine
        return self._respond(
            {
                "writer": self._writer(),
                "port": "it is draining" if self.port.draining else None,
                "disk": "less space is free than writes need" if engine.space_low else None,
            }
        )

    def _writer(self) -> str | None:
        seconds = self.platform.writer_busy_seconds
        if seconds <= self.port.limits.writer_seconds_max:
            return None
        return f"it has been busy with one call for {seconds:.0f} seconds"

    def _respond(self, reasons: Mapping[str, str | None]) -> Response:
        """What is checked, each with the reason why it fails."""
        is_well = not any(reasons.values())
        return json_response(
            200 if is_well else 503,
            {
                "status": "ok" if is_well else "unavailable",
                "checks": {name: reason or "ok" for name, reason in reasons.items()},
                "log_id": self.platform.log_id,
                "frontier": self.platform.cursor.sequence,
            },
        )
