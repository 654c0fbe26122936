"""Webhooks against real receivers: those that take them, and those that do anything else."""

from __future__ import annotations

import json
import ssl
import subprocess
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
from cryptography import x509

from exo_stream.server.streams import webhooks
from exo_stream.server.streams.signing import Signing
from exo_stream.server.streams.webhooks import ANSWER_BYTES_MAX, Reply, WebhookError, Webhooks
from tests.certificates import self_signed
from tests.node_programs import node, node_environment

GUARD_SECONDS = 100
SMALL = 0.1
"""Seconds that a test waits for a receiver that never answers."""

Behave = Callable[[trio.abc.Stream], Awaitable[None]]


async def heard(stream: trio.abc.Stream) -> tuple[h11.Request, bytes]:
    """The request that came, whole."""
    connection = h11.Connection(h11.SERVER)
    request: h11.Request | None = None
    body = b""
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            case h11.Request() as found:
                request = found
            case h11.Data(data=data):
                body += bytes(data)
            case _:
                if request is None:
                    raise trio.BrokenResourceError("whoever came was gone before it asked")
                return request, body


def saying(answer: bytes) -> Behave:
    async def behave(stream: trio.abc.Stream) -> None:
        await heard(stream)
        await stream.send_all(answer)

    return behave


def status(line: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {line}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def hangs(stream: trio.abc.Stream) -> None:
    await heard(stream)
    await trio.sleep_forever()


async def vanishes(stream: trio.abc.Stream) -> None:
    await heard(stream)


async def never_reads(_stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def drips(stream: trio.abc.Stream) -> None:
    await heard(stream)
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        await stream.send_all(b" ")
        await trio.sleep(SMALL / 10)


async def floods(stream: trio.abc.Stream) -> None:
    await heard(stream)
    await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await stream.send_all(b"2000\r\n" + b" " * 0x2000 + b"\r\n")


async def floods_the_head(stream: trio.abc.Stream) -> None:
    await heard(stream)
    await stream.send_all(b"HTTP/1.1 200 OK\r\n")
    while True:
        await stream.send_all(b"X: " + b"y" * 1_000 + b"\r\n")


@asynccontextmanager
async def receiver(
    behave: Behave, tls: ssl.SSLContext | None = None, *, guard_seconds: float = GUARD_SECONDS
) -> AsyncIterator[int]:
    """The port of a receiver that behaves so."""

    async def serve(stream: trio.SocketStream) -> None:
        used: trio.abc.Stream = stream
        if tls is not None:
            used = trio.SSLStream(stream, tls, server_side=True)
        try:
            await behave(used)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    with trio.fail_after(guard_seconds):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(trio.serve_listeners, serve, [listener])
            yield listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def test_a_webhook_is_one_post_with_its_headers() -> None:
    requests = []

    async def behave(stream: trio.abc.Stream) -> None:
        requests.append(await heard(stream))
        await stream.send_all(
            b"HTTP/1.1 103 Early Hints\r\n\r\n" + status("200 OK", b'{"done":true}')
        )

    async with receiver(behave) as port:
        reply = await Webhooks(loopback=True).post(
            f"http://127.0.0.1:{port}/a?b=c", b"{}", {"Webhook-Signature": "s"}
        )
    assert (reply.status, reply.is_done) == (200, True)
    [(request, body)] = requests
    assert (request.method, request.target, body) == (b"POST", b"/a?b=c", b"{}")
    headers = dict(request.headers)
    assert headers[b"host"] == f"127.0.0.1:{port}".encode()
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"webhook-signature"] == b"s"


@pytest.mark.parametrize(
    ("body", "is_done"),
    [
        (b'{"done":true}', True),
        (b'{"done":1}', False),
        (b'{"done":false}', False),
        (b"{}", False),
        (b"[]", False),
        (b"done", False),
        (b"\xff", False),
        (b"[" * 60_000, False),
        (b"", False),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_only_done_is_done(body: bytes, is_done: bool) -> None:
    assert Reply(200, body).is_done is is_done


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        pytest.param(saying(status("500 No")), "answered 500", id="an error"),
        pytest.param(
            saying(status("302 Found", b"", "Location: http://127.0.0.1:1/")),
            "answered 302",
            id="a redirect, which is not followed",
        ),
        pytest.param(saying(b"SSH-2.0-x\r\n\r\n"), r"\w", id="no HTTP"),
        pytest.param(saying(status("200 OK", b"x")[:-1]), r"\w", id="a body cut off"),
        pytest.param(vanishes, r"\w", id="gone"),
        pytest.param(hangs, "no answer within", id="no answer"),
        pytest.param(never_reads, "no answer within", id="not even read"),
        pytest.param(drips, "no answer within", id="an answer byte by byte"),
        pytest.param(floods_the_head, r"\w", id="a head without an end"),
    ],
)
async def test_what_is_not_taken_in_time_is_a_failure(behave: Behave, reason: str) -> None:
    # Who answers has time to, on a machine that is busy too.
    seconds_max = SMALL if reason.startswith("no answer") else GUARD_SECONDS
    async with receiver(behave) as port:
        with pytest.raises(WebhookError, match=reason):
            await Webhooks(loopback=True, seconds_max=seconds_max).post(
                f"http://127.0.0.1:{port}/", b"x" * 100_000, {}
            )


async def test_of_an_answer_that_is_too_large_only_the_status_counts() -> None:
    async with receiver(floods) as port:
        reply = await Webhooks(loopback=True).post(f"http://127.0.0.1:{port}/", b"{}", {})
    assert reply == Reply(200, b"")
    big = b'{"done":true}'.ljust(ANSWER_BYTES_MAX + 1)
    async with receiver(saying(status("200 OK", big))) as port:
        reply = await Webhooks(loopback=True).post(f"http://127.0.0.1:{port}/", b"{}", {})
    assert not reply.is_done


async def test_where_nobody_listens_nothing_is_taken() -> None:
    async with receiver(vanishes) as port:
        pass
    with pytest.raises(WebhookError):
        await Webhooks(loopback=True).post(f"http://127.0.0.1:{port}/", b"{}", {})


class Names(trio.abc.HostnameResolver):
    """A look-up whose answers are told."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *kinds: int) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append(bytes(host).decode() if isinstance(host, bytes) else host)
        family_of = {True: trio.socket.AF_INET6, False: trio.socket.AF_INET}
        found = self.answers.pop(0)
        if not found:
            raise trio.socket.gaierror(-2, "Name or service not known")
        return [(family_of[":" in a], *kinds[1:3], "", (a, port)) for a in found]

    async def getnameinfo(self, *_: Any) -> Any:
        raise AssertionError


@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.1"], ["127.0.0.1"], ["169.254.169.254"], ["::1"], ["93.184.215.14", "10.0.0.1"]],
)
async def test_a_name_that_means_this_network_is_refused_before_anything_is_sent(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(webhooks, "_open", lambda *where: opened.append(where))
    trio.socket.set_custom_hostname_resolver(Names(addresses))
    with pytest.raises(WebhookError, match="on this machine or in its network"):
        await Webhooks(loopback=False).post("https://hook.example/", b"{}", {})
    assert opened == []


async def test_a_name_is_looked_up_once_and_the_connection_made_to_what_was_judged() -> None:
    async with receiver(saying(status("204 No Content"))) as port:
        # A second look-up would be told another address: that of an attacker's choice.
        names = Names(["127.0.0.1"], ["10.0.0.1"])
        trio.socket.set_custom_hostname_resolver(names)
        reply = await Webhooks(loopback=True).post(f"http://a.localhost:{port}/", b"{}", {})
    assert reply.status == 204
    assert names.asked == ["a.localhost"]


async def test_a_name_that_means_nothing_is_a_failure() -> None:
    trio.socket.set_custom_hostname_resolver(Names([]))
    with pytest.raises(WebhookError):
        await Webhooks(loopback=False).post("https://hook.example/", b"{}", {})


async def test_a_url_that_is_not_allowed_any_more_is_not_asked() -> None:
    async with receiver(saying(status("200 OK"))) as port:
        with pytest.raises(WebhookError, match="https"):
            await Webhooks(loopback=False).post(f"http://h.example:{port}/", b"{}", {})


async def test_over_tls_a_receiver_must_be_who_it_says(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, x509.DNSName("a.localhost"))
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate)
    ours = ssl.create_default_context(cafile=str(certificate))
    async with receiver(saying(status("200 OK", b'{"done":true}')), theirs) as port:
        for name in ("a.localhost", "b.localhost", "a.localhost"):
            trio.socket.set_custom_hostname_resolver(Names(["127.0.0.1"]))
            url = f"https://{name}:{port}/"
            if name == "b.localhost":
                with pytest.raises(WebhookError, match=r"(?i)certificate"):
                    await Webhooks(loopback=True, tls=ours).post(url, b"{}", {})
            else:
                assert (await Webhooks(loopback=True, tls=ours).post(url, b"{}", {})).is_done
        trio.socket.set_custom_hostname_resolver(Names(["127.0.0.1"]))
        with pytest.raises(WebhookError, match=r"(?i)certificate"):
            await Webhooks(loopback=True).post(f"https://a.localhost:{port}/", b"{}", {})


# --- signatures ------------------------------------------------------------------------------

VERIFY = """
import { createPublicKey, createHash, verify } from "node:crypto"
const [body, header, jwks] = JSON.parse(process.argv[1])
const [, t, kid, signature] = header.match(/^t=(\\d+),kid=([^,]+),ed25519=([A-Za-z0-9_-]+)$/)
const key = jwks.keys.find((one) => one.kid === kid)
const { crv, kty, x } = key
const thumb = createHash("sha256").update(JSON.stringify({ crv, kty, x })).digest("base64url")
const good = verify(null, Buffer.from(`${t}.${body}`), createPublicKey({ key, format: "jwk" }),
  Buffer.from(signature, "base64url"))
console.log(JSON.stringify([good, kid === `ds_${thumb}`, Number(t)]))
"""


def verified_by_node(body: str, header: str, jwks: object) -> Any:
    told = subprocess.run(
        [node(), "--input-type=module", "-e", VERIFY, json.dumps([body, header, jwks])],
        capture_output=True,
        text=True,
        check=True,
        env=node_environment(),
    )
    return json.loads(told.stdout)


@pytest.mark.slow  # node takes its time to start
def test_a_signature_is_good_to_an_implementation_that_is_not_ours() -> None:
    signing = Signing(b"s" * 32)
    header = signing.header("{ä}".encode(), 1_700_000_000_999_999)
    assert verified_by_node("{ä}", header, signing.jwks()) == [True, True, 1_700_000_000]
    assert verified_by_node("{a}", header, signing.jwks()) == [False, True, 1_700_000_000]


def test_the_key_of_a_secret_is_always_the_same_and_nothing_of_it_is_published() -> None:
    signing = Signing(b"s" * 32)
    assert signing.jwks() == Signing(b"s" * 32).jwks()
    assert signing.kid != Signing(b"t" * 32).kid
    keys: Any = signing.jwks()["keys"]
    assert set(keys[0]) == {"kty", "crv", "x", "kid", "alg", "use"}
    assert len(urlsafe_b64decode(keys[0]["x"] + "=")) == 32
