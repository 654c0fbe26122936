"""The command that serves a file until it is told to stop."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import replace
from functools import partial

import trio

from exo_stream.cli.exit_codes import OK
from exo_stream.cli.output import Output
from exo_stream.limits import Limits
from exo_stream.opening import open_platform
from exo_stream.server.serve import serve as serve_platform
from exo_stream.server.streams.settings import StreamSettings
from exo_stream.storage.engine import Retention


async def serve(args: Namespace, out: Output) -> int:
    """Open the file, say where it is served, and serve it until cancelled."""
    kept = Retention(args.retention_batches, args.retention_seconds, args.retention_bytes)
    host, port = args.listen
    async with (
        open_platform(
            args.file,
            limits=replace(Limits(), **dict(args.limit)),
            retention=None if kept == Retention() else kept,
        ) as platform,
        trio.open_nursery() as nursery,
    ):
        address = await nursery.start(
            partial(
                serve_platform,
                platform,
                host=host,
                port=port,
                allow_origins=args.allow_origin,
                allow_hosts=args.host,
                streams=StreamSettings(
                    long_poll_seconds=args.long_poll,
                    caches=args.stream_caches,
                    requests_per_second=args.stream_rate,
                    public_url=args.public_url,
                    webhook_loopback=args.webhook_loopback,
                ),
            )
        )
        url = url_of(*address)
        out.answer(
            {
                "url": url,
                "pid": os.getpid(),
                "log_id": platform.log_id,
                "sequence": platform.cursor.sequence,
            },
            f"serving {args.file} at sequence {platform.cursor.sequence} on {url}"
            f" (process {os.getpid()})",
        )
    return OK


def url_of(host: str, port: int) -> str:
    """Where a client on this machine finds a server that listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  not bound here: where such a server is found
    return f"ws://[{host}]:{port}/v1/ws" if ":" in host else f"ws://{host}:{port}/v1/ws"
