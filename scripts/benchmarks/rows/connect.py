"""The store's own API: Put, Get and replay by Connect, binary, and where the time of a Put goes.

The callers are tasks of this process on raw sockets, each with one call under way; the server has
a process of its own. Ingest is measured by putting the same batches into an embedded platform, and
protobuf by doing what the server does with a message; the rest is HTTP, and two processes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import trio

from benchmarks import servers
from benchmarks.result import Result
from benchmarks.row import Setting
from benchmarks.rows import pace
from exo_stream import open_platform
from exo_stream.protocol.connect.envelope import END_STREAM, HEAD_BYTES, enveloped
from exo_stream.protocol.connect.generated.ingest_pb2 import PutRequest, PutResponse
from exo_stream.protocol.connect.generated.query_pb2 import GetRequest
from exo_stream.protocol.connect.generated.stream_pb2 import SubscribeRequest

PAIRS: Final = 1_000
VALUE: Final = b"v" * 128
CALLERS: Final = 8
ENTRIES: Final = 100
"""In a batch that is replayed."""

Call = Callable[[trio.SocketStream, int], Awaitable[None]]


def measure(setting: Setting) -> Iterator[Result]:
    """Calls a second, and what of a Put's time is spent where."""
    scale = setting.scale
    folder = setting.folder
    with pace.serving(setting) as (_, port):
        puts = trio.run(_rates, port, _put, scale.rounds, scale.round_seconds)
        trio.run(_fill, port)
        gets = trio.run(_rates, port, _get, scale.rounds, scale.round_seconds)
    embedded = trio.run(_embedded, folder / "embedded.duckdb", scale.round_seconds)
    protobuf = _protobuf()
    whole = 1 / median(puts)
    shares = {"protobuf": protobuf / whole, "ingest": 1 / embedded / whole}
    shares["HTTP and the rest"] = 1 - sum(shares.values())
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    yield Result(
        "connect",
        f"Put of {PAIRS:,} × {len(VALUE)} B pairs through Connect binary, {CALLERS} callers",
        "pairs/s",
        [PAIRS * rate for rate in puts],
        note=f"of the time of a Put ({whole * 1000:.1f} ms): {told}",
    )
    yield Result("connect", f"Get through Connect binary, {CALLERS} callers", "gets/s", gets)
    yield _replay(setting)


def _replay(setting: Setting) -> Result:
    batches = setting.scale.replay_batches
    folder = setting.folder / "replay"
    folder.mkdir()
    with pace.serving(Setting(setting.scale, folder)) as (server, port):
        assert servers.ask(server, f"load {batches} {ENTRIES}") == "ok"
        rates = [
            batches * ENTRIES / trio.run(_subscribe, port, batches)
            for _ in range(max(1, setting.scale.rounds // 2))
        ]
    return Result(
        "connect",
        f"replay of {batches * ENTRIES:,} entries through Connect binary",
        "entries/s",
        rates,
        note=f"batches of {ENTRIES} entries of 100 B, read by a raw socket and not decoded",
    )


async def _rates(port: int, call: Call, rounds: int, seconds: float) -> list[float]:
    """Calls a second of each round, but for the first."""
    rates: list[float] = []
    numbers = count()
    for _ in range(rounds + 1):
        first, start = next(numbers), perf_counter()

        async def caller(end: float = start + seconds) -> None:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                while perf_counter() < end:
                    await call(stream, next(numbers))

        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(caller)
        rates.append((next(numbers) - first - 1) / (perf_counter() - start))
    return rates[1:]


def _message(number: int) -> bytes:
    request = PutRequest()
    for pair in range(PAIRS):
        request.kvs.add(key=b"key/%08d/%04d" % (number % 1_000, pair), value=VALUE)
    return request.SerializeToString()


async def _put(stream: trio.SocketStream, number: int) -> None:
    await _ask(stream, "/store.ingest.v1.Service/Put", _MESSAGES[number % len(_MESSAGES)])


async def _fill(port: int) -> None:
    """Put whatever a get may ask for: on a slow machine the rounds of puts do not come that far."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for number in range(len(_MESSAGES)):
            await _put(stream, number)


async def _get(stream: trio.SocketStream, number: int) -> None:
    key = b"key/%08d/%04d" % (number % len(_MESSAGES), number % PAIRS)
    body = GetRequest(key=key).SerializeToString()
    assert VALUE in await _ask(stream, "/store.query.v1.Service/Get", body)


async def _ask(stream: trio.SocketStream, path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/proto\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    await stream.send_all(head.encode() + body)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += await stream.receive_some()
    told, _, content = answer.partition(b"\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200 "), answer
    length = int(told.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(content) < length:
        content += await stream.receive_some()
    return content


async def _subscribe(port: int, batches: int) -> float:
    """Seconds until the last batch has come."""
    message = SubscribeRequest(match_keys=[{"payload_regex": "(?s).*"}], since_sequence_number=1)
    body = enveloped(message.SerializeToString())
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        start = perf_counter()
        await stream.send_all(
            b"POST /store.stream.v1.Service/Subscribe HTTP/1.0\r\nhost: localhost\r\n"
            b"content-type: application/connect+proto\r\n"
            b"content-length: %d\r\n\r\n" % len(body) + body
        )
        data = bytearray()
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        del data[: data.index(b"\r\n\r\n") + 4]
        seen = 0
        while seen < batches:
            seen += _take_frames(data)
            if seen < batches:
                data += await stream.receive_some(1 << 20)
        return perf_counter() - start


def _take_frames(data: bytearray) -> int:
    """Take the whole frames off, and count them."""
    at = frames = 0
    while len(data) - at >= HEAD_BYTES:
        assert not data[at] & END_STREAM, data[at:]
        size = HEAD_BYTES + int.from_bytes(data[at + 1 : at + HEAD_BYTES], "big")
        if len(data) - at < size:
            break
        at, frames = at + size, frames + 1
    del data[:at]
    return frames


async def _embedded(path: Path, seconds: float) -> float:
    """Batches a second that as many tasks put into an embedded platform."""
    batches = [
        [(pair.key, pair.value) for pair in PutRequest.FromString(message).kvs]
        for message in _MESSAGES
    ]
    numbers = count()
    async with open_platform(path) as platform:
        start = perf_counter()

        async def producer() -> None:
            while perf_counter() < start + seconds:
                await platform.put_batch(batches[next(numbers) % len(batches)])

        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(producer)
        return next(numbers) / (perf_counter() - start)


def _protobuf() -> float:
    """Seconds in which the server makes pairs of a message, and a message of its answer."""
    times = 50
    start = perf_counter()
    for number in range(times):
        message = PutRequest.FromString(_MESSAGES[number % len(_MESSAGES)])
        pairs = [(pair.key, pair.value) for pair in message.kvs]
        assert len(pairs) == PAIRS
        PutResponse(sequence_number=number).SerializeToString()
    return (perf_counter() - start) / times


_MESSAGES: Final = [_message(number) for number in range(16)]
