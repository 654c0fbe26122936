"""The child of the remote kill test, a server: ``python -m tests.torture.bank PATH PORT``.

It changes nothing itself; whoever transfers between its accounts knows what it was told.
"""

from __future__ import annotations

import os
import sys
from functools import partial

import trio

from exo_stream.opening import open_platform
from exo_stream.server.serve import serve
from tests.torture.child import say
from tests.torture.transfers import LIMITS


async def main(path: str, port: int) -> None:
    """Serve until killed."""
    say("started", os.getpid())
    async with open_platform(path, limits=LIMITS) as platform, trio.open_nursery() as nursery:
        await nursery.start(partial(serve, platform, port=port))
        say("serving", port)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
