"""What a client says of a server that is not there, or is another one: one clear sentence."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from exo_stream.client import connect
from exo_stream.client.patience import Patience
from exo_stream.errors import InvalidRequestError, UnavailableError
from exo_stream.model import Cursor
from exo_stream.protocol import messages as m
from tests.network import URL, Puppet, Serve, connected_over, network_of, puppets
from tests.wire_examples import BATCH, LOG_ID

CURSOR = Cursor(LOG_ID, 6)
BATCH_CURSOR = Cursor(LOG_ID, BATCH.sequence)


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


def saying(answer: bytes, *, then_silent: bool = False) -> Serve:
    """A server that knows one answer."""

    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        if then_silent:
            await trio.sleep_forever()
        await stream.aclose()

    return serve


async def silent(_: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def hangs_up(stream: trio.abc.Stream) -> None:
    await stream.aclose()


async def stays_silent(puppet: Puppet) -> None:
    await puppet.hear(m.Hello)
    await trio.sleep_forever()


async def speaks_in_texts(puppet: Puppet) -> None:
    await puppet.websocket.send_message("hello")
    await trio.sleep_forever()


async def babbles(puppet: Puppet) -> None:
    await puppet.websocket.send_message(b"\xff")
    await trio.sleep_forever()


async def closes_at_once(puppet: Puppet) -> None:
    await puppet.websocket.aclose(4426, "no version in common")


async def refuses(puppet: Puppet) -> None:
    await puppet.hear(m.Hello)
    await puppet.say(m.Failure(0, "overloaded", "too many connections", True))
    await trio.sleep_forever()


async def is_newer(puppet: Puppet) -> None:
    await puppet.greet(version=2)
    await trio.sleep_forever()


NOT_OURS: dict[str, tuple[Serve, str]] = {
    "a web server": (
        saying(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nno.\n"),
        "no exo-stream server: it answered HTTP 404",
    ),
    "a web server without a body": (
        saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        "HTTP 400",
    ),
    "a mail server": (
        saying(b"220 mail.example.org ESMTP\r\n", then_silent=True),
        "spoke something else",
    ),
    "one that is silent": (silent, "it hung up"),
    "one that hangs up": (hangs_up, "it hung up"),
    "another subprotocol": (puppets(stays_silent, subprotocol=None), "does not speak exo-stream"),
    "one that never welcomes": (puppets(stays_silent), "it does not answer"),
    "one that speaks in texts": (puppets(speaks_in_texts), "a text message"),
    "one that babbles": (puppets(babbles), "broke the protocol"),
    "one that closes": (puppets(closes_at_once), "no version in common"),
    "one that refuses": (puppets(refuses), "too many connections"),
    "a newer one": (puppets(is_newer), "version 2"),
}


@pytest.mark.parametrize(("serve", "sentence"), NOT_OURS.values(), ids=NOT_OURS.keys())
async def test_a_server_that_is_not_ours_is_one_clear_sentence(
    clock: MockClock, serve: Serve, sentence: str
) -> None:
    async with network_of(serve) as network:
        with trio.fail_after(60), pytest.raises(UnavailableError, match=sentence) as caught:
            async with connected_over(network):
                raise AssertionError

    assert "\n" not in str(caught.value)


async def test_a_host_that_does_not_answer_is_one_clear_sentence(
    clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_answer(*_: Any) -> trio.SocketStream:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", no_answer)

    with pytest.raises(UnavailableError, match="no answer in 10 s"):
        async with connect(URL):
            raise AssertionError


async def test_no_server_is_one_clear_sentence() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()

    with pytest.raises(UnavailableError, match=r"cannot reach ws://127.0.0.1.*refused"):
        async with connect(f"ws://127.0.0.1:{port}"):
            raise AssertionError


async def test_a_wrong_url_is_one_clear_sentence(clock: MockClock) -> None:
    with pytest.raises(InvalidRequestError, match="a server is named like"):
        async with connect("http://localhost"):
            raise AssertionError


async def test_tls_with_a_server_that_has_none_is_one_clear_sentence() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def answer_in_plain(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer_in_plain, [listener])
        with pytest.raises(UnavailableError, match="cannot reach wss://"):
            async with connect(f"wss://127.0.0.1:{port}", patience=Patience(attempts_max=1)):
                raise AssertionError
        nursery.cancel_scope.cancel()
