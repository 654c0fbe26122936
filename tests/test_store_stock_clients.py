"""Stock Connect clients, built from our own .proto files, against a server as one starts it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from connectrpc.client import ConnectClientSync
from connectrpc.code import Code
from connectrpc.codec import Codec
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.compression.gzip import GzipCompression
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from google.protobuf.message import Message

from exo_stream.protocol.connect.generated import compact_pb2 as compact
from exo_stream.protocol.connect.generated import ingest_pb2 as ingest
from exo_stream.protocol.connect.generated import query_pb2 as query
from exo_stream.protocol.connect.generated import stream_pb2 as stream
from tests.node_programs import bin_of, node, node_environment, node_folder
from tests.served import GUARD_SECONDS, serving

pytestmark = pytest.mark.slow  # servers and clients are processes

PROTOS = Path(__file__).parents[1] / "proto"


@contextmanager
def addressed(file: Path) -> Iterator[str]:
    with serving(file) as served:
        yield "http://" + served.url.partition("://")[2].partition("/")[0]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that does not mind what others have put before."""
    with addressed(tmp_path_factory.mktemp("shared") / "feed.duckdb") as address:
        yield address


def generated(folder: Path) -> Path:
    """What protoc-gen-es makes of proto/, where node finds the packages it needs."""
    sources = [str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")]
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}"),
            f"--plugin=protoc-gen-es={bin_of('protoc-gen-es')}",
            f"--es_out={folder}",
            "--es_opt=target=js,import_extension=js",
            *sources,
        ],
        env=node_environment(),
        check=True,
    )
    return folder


@pytest.mark.parametrize("form", ["json", "binary"])
def test_connect_node_with_gzip(shared: str, form: str) -> None:
    folder = node_folder()
    made = folder / f"store-{form}"
    made.mkdir(exist_ok=True)
    done = subprocess.run(
        [node(), "store-client.mjs", shared, form, generated(made)],
        cwd=folder,
        env=node_environment(),
        capture_output=True,
        text=True,
        timeout=2 * GUARD_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


STREAMS = {"query/GetMany", "query/Range", "stream/Subscribe"}
SAFE = {"query/Get", "query/Reduce", "stream/Get"}


class Store:
    """Calls by the name of service and method, with the client's own types."""

    def __init__(self, client: ConnectClientSync) -> None:
        self._client = client

    def call(
        self, name: str, request: Message, answer: type[Message], *, by_get: bool = False
    ) -> Any:
        return self._client.execute_unary(
            request=request, method=self._method(name, request, answer), use_get=by_get
        )

    def stream(
        self, name: str, request: Message, answer: type[Message], timeout_ms: int | None = None
    ) -> Iterator[Any]:
        method = self._method(name, request, answer)
        return self._client.execute_server_stream(
            request=request, method=method, timeout_ms=timeout_ms
        )

    def _method(self, name: str, request: Message, answer: type[Message]) -> MethodInfo[Any, Any]:
        service, _, method = name.partition("/")
        level = IdempotencyLevel.NO_SIDE_EFFECTS if name in SAFE else IdempotencyLevel.UNKNOWN
        return MethodInfo(
            name=method,
            service_name=f"store.{service}.v1.Service",
            input=type(request),
            output=answer,
            idempotency_level=level,
            stream_type=StreamType.SERVER_STREAM if name in STREAMS else StreamType.UNARY,
        )


def refused(call: Callable[[], Any], code: Code, *details: str) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        call()
    assert caught.value.code == code
    assert [detail.type_name for detail in caught.value.details][::2] == list(details)
    return caught.value


@pytest.fixture(params=[google_protobuf_binary_codec, google_protobuf_json_codec])
def codec(request: pytest.FixtureRequest) -> Codec[Any, Any]:
    made: Codec[Any, Any] = request.param()
    return made


@contextmanager
def client_of(address: str, codec: Codec[Any, Any]) -> Iterator[Store]:
    with ConnectClientSync(
        address, codec=codec, send_compression=GzipCompression(), timeout_ms=30_000
    ) as client:
        yield Store(client)


def test_connectrpc_of_python_calls_every_method(codec: Codec[Any, Any], tmp_path: Path) -> None:
    with addressed(tmp_path / "feed.duckdb") as address, client_of(address, codec) as store:
        call_every_method(store)


def call_every_method(store: Store) -> None:
    kvs = [{"key": b"%d" % n, "value": b"v%d" % n} for n in range(5)]
    assert store.call("ingest/Put", ingest.PutRequest(kvs=kvs), ingest.PutResponse).sequence_number

    for by_get in (False, True):
        asked = query.GetRequest(key=b"1", min_sequence_number=1)
        assert store.call("query/Get", asked, query.GetResponse, by_get=by_get).value == b"v1"
    many = query.GetManyRequest(keys=[b"4", b"x"], batch_size=1)
    frames = list(store.stream("query/GetMany", many, query.GetManyFrame))
    assert [frame.results[0].HasField("value") for frame in frames] == [True, False]
    ranged = query.RangeRequest(batch_size=2, mode=query.TRAVERSAL_MODE_REVERSE)
    frames = list(store.stream("query/Range", ranged, query.RangeFrame))
    assert [len(frame.results) for frame in frames] == [2, 2, 1]
    reduce = query.ReduceRequest(params={"reducers": [{"op": 0}]})
    reduced = store.call("query/Reduce", reduce, query.ReduceResponse)
    assert reduced.results[0].value.uint64_value == 5

    batch = store.call("stream/Get", stream.GetRequest(sequence_number=1), stream.GetResponse)
    assert [entry.key for entry in batch.entries] == [b"0", b"1", b"2", b"3", b"4"]
    everything = stream.SubscribeRequest(
        match_keys=[{"payload_regex": "(?s).*"}], since_sequence_number=1
    )
    frame = next(store.stream("stream/Subscribe", everything, stream.SubscribeResponse))
    assert (frame.sequence_number, len(frame.entries)) == (1, 5)

    policies = [{"keys": {"match_key": {"payload_regex": "[12]"}}, "retain": {"drop_all": {}}}]
    store.call("compact/Prune", compact.PruneRequest(policies=policies), compact.PruneResponse)
    left = list(store.stream("query/Range", query.RangeRequest(batch_size=9), query.RangeFrame))
    assert [row.key for row in left[0].results] == [b"0", b"3", b"4"]


def test_connectrpc_of_python_meets_the_documented_errors(
    codec: Codec[Any, Any], shared: str
) -> None:
    with client_of(shared, codec) as store:
        meet_errors(store)


def meet_errors(store: Store) -> None:
    put = ingest.PutRequest(kvs=[{"key": b"x" * 255}])
    bad, info = "google.rpc.BadRequest", "google.rpc.ErrorInfo"
    refused(
        lambda: store.call("ingest/Put", put, ingest.PutResponse), Code.INVALID_ARGUMENT, bad, info
    )
    refused(
        lambda: next(store.stream("query/Range", query.RangeRequest(), query.RangeFrame)),
        Code.INVALID_ARGUMENT, bad, info,
    )  # fmt: skip
    early = query.GetRequest(min_sequence_number=10_000)
    refused(
        lambda: store.call("query/Get", early, query.GetResponse),
        Code.ABORTED, "google.rpc.RetryInfo", info, "store.query.v1.Detail",
    )  # fmt: skip
    beyond = stream.GetRequest(sequence_number=10_000)
    refused(lambda: store.call("stream/Get", beyond, stream.GetResponse), Code.NOT_FOUND, info)
    gone = stream.GetRequest(sequence_number=0)
    refused(lambda: store.call("stream/Get", gone, stream.GetResponse), Code.OUT_OF_RANGE, info)
    quiet = stream.SubscribeRequest(match_keys=[{"payload_regex": "x"}])
    late = store.stream("stream/Subscribe", quiet, stream.SubscribeResponse, timeout_ms=100)
    refused(lambda: next(late), Code.DEADLINE_EXCEEDED)
    with suppress(StopIteration):
        next(late)
