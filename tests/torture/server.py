"""The server: a child that serves a file, with limits so small that everything happens often.

``python -m tests.torture.server ASSIGNMENT PORT``. It writes nothing itself; whoever writes to it
holds the journal.
"""

from __future__ import annotations

import sys
from functools import partial

import trio

from exo_stream.opening import open_platform
from exo_stream.server.serve import serve
from tests.torture import workload
from tests.torture.child import Assignment, run, say


async def main(assignment: Assignment, port: int) -> None:
    """Open, serve until killed."""
    say("started", 0)
    async with open_platform(assignment.path, limits=workload.LIMITS) as store:
        information = await store.info()
        say(
            "opened",
            store.log_id,
            information.frontier,
            information.oldest or information.frontier + 1,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, store, port=port))
            say("serving", port)


if __name__ == "__main__":
    run(partial(main, port=int(sys.argv[2])), sys.argv[1])
