"""The connection of one command to its server."""

from __future__ import annotations

from argparse import Namespace
from contextlib import AbstractAsyncContextManager
from typing import Final

from exo_stream.client import Client, connect
from exo_stream.client.patience import Patience

ATTEMPTS_MAX: Final = 1_000_000
"""A command that was told how long to try is bounded by that time alone."""


PATIENCE_SECONDS: Final = 60.0
"""How long a command outlives its server: longer than a restart, shorter than an operator's."""


def connected(args: Namespace) -> AbstractAsyncContextManager[Client]:
    """The client of the server that ``--url`` or ``EXO_STREAM_URL`` names."""
    patience = Patience(
        attempts_max=ATTEMPTS_MAX,
        outage_seconds_max=args.patience or PATIENCE_SECONDS,
        covers_first=args.patience is not None,
    )
    return connect(args.url, name=f"exo-stream {args.command}", patience=patience)
