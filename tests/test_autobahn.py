"""Autobahn's WebSocket cases against an echo over our transport and trio-websocket."""

from __future__ import annotations

import json
import sys

import pytest
import trio

from exo_stream.limits import Limits
from exo_stream.protocol import closing
from exo_stream.protocol.closing import Close
from exo_stream.protocol.frames import websocket_head
from exo_stream.protocol.origin import Visitors
from exo_stream.protocol.upgrade import check_upgrade, render_upgrade
from exo_stream.server.listener import Listener
from exo_stream.server.port import Port
from exo_stream.server.request import Request
from exo_stream.server.routes import Answer, Takeover
from exo_stream.server.transport import Transport
from exo_stream.server.websocket import WebSocket, run_websocket

# kosoku speaks asyncio, and so lives in a process of its own. Compression (12 and 13) is not
# offered by us and would be reported as unimplemented.
CLIENT = """
import asyncio, json, sys, kosoku

async def main():
    try:
        results = await kosoku.run_fuzzingclient(
            sys.argv[1], cases=sys.argv[2:] or None, exclude_cases=["12.*", "13.*"]
        )
    except kosoku.FailureError as error:
        results = error.results
    print(json.dumps({r.case_id: [str(r.behavior), str(r.behavior_close)] for r in results}))

asyncio.run(main())
"""

FINE = {
    "Behavior.OK",
    "Behavior.INFORMATIONAL",
    "BehaviorClose.OK",
    "BehaviorClose.INFORMATIONAL",
}


async def echo(socket: WebSocket) -> Close:
    while (message := await socket.receive()) is not None:
        if isinstance(message, str):
            data = message.encode()
            head = b"\x81" + websocket_head(len(data))[1:]
        else:
            data, head = message, websocket_head(len(message))
        try:
            await socket.send(head + data)
        except trio.ClosedResourceError:
            break
        socket.done(len(data))
    return closing.NORMAL


async def run_cases(*cases: str) -> dict[str, list[str]]:
    limits = Limits()
    port = Port(limits, Visitors.welcome())

    async def answer(request: Request) -> Answer:
        await trio.lowlevel.checkpoint()
        check_upgrade(request.head, None)
        handshake = render_upgrade(request.head, None)

        async def run(transport: Transport) -> None:
            await run_websocket(
                transport, handshake, echo, subprotocol=None, limits=limits, budget=port.budget
            )

        return Takeover(run)

    port.routes.add("GET", "/", answer)
    sockets = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"ws://127.0.0.1:{sockets[0].socket.getsockname()[1]}/"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Listener(port).run, sockets)
        done = await trio.run_process(
            [sys.executable, "-c", CLIENT, url, *cases], capture_stdout=True
        )
        nursery.cancel_scope.cancel()
    assert port.budget.held == 0
    results: dict[str, list[str]] = json.loads(done.stdout)
    return results


def unfit(results: dict[str, list[str]]) -> dict[str, list[str]]:
    return {case: how for case, how in results.items() if not FINE.issuperset(how)}


@pytest.mark.slow
async def test_every_case_of_autobahn_is_passed_strictly() -> None:
    """Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing; sizes up to 16 MiB."""
    results = await run_cases()

    assert unfit(results) == {}
    assert len(results) > 290
