"""Frames to messages and back, and every way in which a frame can be wrong."""

from __future__ import annotations

import gc
from dataclasses import fields
from pathlib import Path
from typing import get_args

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycddl import Schema, ValidationError

from exo_stream.errors import RemoteProtocolError
from exo_stream.model import Entry
from exo_stream.protocol import codec
from exo_stream.protocol import messages as m
from exo_stream.protocol.canonical_messages import (
    Commit,
    PauseWrites,
    ResumeWrites,
    Seal,
    Unseal,
)
from exo_stream.protocol.policies import PrunePolicies, SetRetention
from exo_stream.protocol.projection_messages import ReplayDeadLetters
from exo_stream.protocol.stream_messages import (
    AppendStream,
    CreateStream,
    DeleteStream,
    ForkStream,
)
from tests.wire_examples import FROM_CLIENT, FROM_SERVER

CDDL = (Path(__file__).parent.parent / "docs" / "protocol.cddl").read_text()
BYTES_MAX = 4 << 20


def schema(root: str) -> Schema:
    """The document's rules with another first one: the first is what a schema checks."""
    return Schema(f"root = {root}\n{CDDL}")


CLIENT_SCHEMA = schema("client-frame")
SERVER_SCHEMA = schema("server-frame")


def decode(frame: bytes) -> list[m.Message]:
    return codec.decode(frame, bytes_max=BYTES_MAX)


@pytest.mark.parametrize("message", FROM_CLIENT + FROM_SERVER, ids=repr)
def test_every_message_survives_its_journey(message: m.Message) -> None:
    assert decode(codec.encode([message])) == [message]


def test_many_messages_travel_in_one_frame() -> None:
    assert decode(codec.encode(FROM_SERVER)) == list(FROM_SERVER)


def test_the_examples_leave_no_message_out() -> None:
    assert {type(message) for message in FROM_CLIENT + FROM_SERVER} == set(get_args(m.Message))
    assert {shape.kind for shape in codec.SHAPES} == set(get_args(m.Message))


@pytest.mark.parametrize("message", FROM_CLIENT, ids=repr)
def test_what_a_client_says_is_in_the_schema(message: m.Message) -> None:
    CLIENT_SCHEMA.validate_cbor(codec.encode([message]))


@pytest.mark.parametrize("message", FROM_SERVER, ids=repr)
def test_what_a_server_says_is_in_the_schema(message: m.Message) -> None:
    SERVER_SCHEMA.validate_cbor(codec.encode([message]))


def test_the_schema_can_say_no() -> None:
    with pytest.raises(ValidationError):
        CLIENT_SCHEMA.validate_cbor(codec.encode([m.Written(1, 1)]))
    with pytest.raises(ValidationError):
        SERVER_SCHEMA.validate_cbor(codec.encode([m.Get(1, b"k")]))
    with pytest.raises(ValidationError):
        CLIENT_SCHEMA.validate_cbor(cbor2.dumps([["scan_close", -1]]))


STRICT = (
    m.Write
    | m.Prune
    | PrunePolicies
    | SetRetention
    | CreateStream
    | ForkStream
    | AppendStream
    | DeleteStream
    | Commit
    | Seal
    | Unseal
    | PauseWrites
    | ResumeWrites
    | ReplayDeadLetters
)


@pytest.mark.parametrize("message", FROM_CLIENT + FROM_SERVER, ids=repr)
def test_fields_of_a_newer_peer_are_ignored_but_not_where_it_would_matter(
    message: m.Message,
) -> None:
    newer = [*cbor2.loads(codec.encode([message]))[0], {"new": 1}]
    frame = cbor2.dumps([newer])

    if isinstance(message, STRICT):
        with pytest.raises(RemoteProtocolError, match="fields"):
            decode(frame)
    else:
        assert decode(frame) == [message]


@pytest.mark.parametrize("message", FROM_CLIENT + FROM_SERVER, ids=repr)
def test_every_field_of_every_message_is_checked(message: m.Message) -> None:
    """Each field in turn is replaced by what no field may be."""
    wire = cbor2.loads(codec.encode([message]))[0]
    wrong: object
    for index in range(1, len(wire)):
        for wrong in (1.5, cbor2.undefined, [[[]]], -1, 1 << 64):
            spoiled = [*wire[:index], wrong, *wire[index + 1 :]]
            with pytest.raises(RemoteProtocolError):
                decode(cbor2.dumps([spoiled]))


@pytest.mark.parametrize("message", FROM_CLIENT + FROM_SERVER, ids=repr)
def test_a_message_cut_short_is_refused_or_takes_its_defaults(message: m.Message) -> None:
    wire = cbor2.loads(codec.encode([message]))[0]
    for count in range(len(wire)):
        try:
            [short] = decode(cbor2.dumps([wire[:count]]))
        except RemoteProtocolError:
            continue
        assert type(short) is type(message)
        for field in fields(message)[: count - 1]:
            assert getattr(short, field.name) == getattr(message, field.name)


def selecting(*parts: object) -> bytes:
    """A frame that subscribes by match keys and value filters."""
    return cbor2.dumps([["subscribe", 1, ["now"], ["store", *parts]]])


WRONG_FRAMES = {
    "nothing": b"",
    "no array": cbor2.dumps({"a": 1}),
    "no message": cbor2.dumps([]),
    "a message without a name": cbor2.dumps([[]]),
    "a message that is a text": cbor2.dumps(["ping"]),
    "a name that is a number": cbor2.dumps([[1, 2]]),
    "an unknown name": cbor2.dumps([["publish", 1]]),
    "bytes after the end": codec.encode([m.Ping(1)]) + b"\x00",
    "another frame after the end": codec.encode([m.Ping(1)]) * 2,
    "a frame cut short": codec.encode([m.Ping(1)])[:-1],
    "a tag": b"\x81\x82\x64ping\xc2\x41\x01",
    "an unknown tag": b"\x81\x82\x64ping\xd9\xff\xff\x01",
    "a shared reference": b"\x81\xd8\x1c\x82\x64ping\xd8\x1d\x00",
    "an array without an end": b"\x9f\x82\x64ping\x01\xff",
    "a string in pieces": b"\x81\x82\x7f\x64ping\xff\x01",
    "a key twice": b"\x81\x86\x65error\x01\x61c\x61m\xf4\xa2\x61a\x01\x61a\x02",
    "a key that is a number": b"\x81\x86\x65error\x01\x61c\x61m\xf4\xa1\x01\x01",
    "bad utf-8": b"\x81\x82\x64pin\xff\x01",
    "too deep": b"\x81" * 9 + b"\x80",
    "far too deep": b"\x81" * 100_000 + b"\x80",
    "a length that promises too much": b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    "a string that promises too much": b"\x81\x82\x64ping\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "more maps than messages": b"\x9a" + (5_000).to_bytes(4, "big") + b"\xa0" * 5_000,
    "too many messages": b"\x99\x10\x01" + b"\x82\x64ping\x01" * 4_097,
    "a key required twice": cbor2.dumps([["write", 1, [], [], [[b"k", 1], [b"k", 2]], None]]),
    "an unknown requirement": cbor2.dumps([["write", 1, [], [], [[b"k", "maybe"]], None]]),
    "a producer of three": cbor2.dumps([["write", 1, [], [], [], [b"p", 0, 1]]]),
    "puts of unequal width": cbor2.dumps([["write", 1, [[b"k", b"v"], [b"k"]]]]),
    "puts of three": cbor2.dumps([["write", 1, [[b"k", b"v", b"w"]]]]),
    "a put of a text": cbor2.dumps([["write", 1, [["k", b"v"]]]]),
    "a put of null": cbor2.dumps([["write", 1, [[b"k", None]]]]),
    "an unknown start": cbor2.dumps([["subscribe", 1, ["yesterday"]]]),
    "a start that is no array": cbor2.dumps([["subscribe", 1, "now"]]),
    "a start without its cursor": cbor2.dumps([["subscribe", 1, ["after"]]]),
    "a cursor that is none": cbor2.dumps([["subscribe", 1, ["after", "x.1"]]]),
    "a selector with a new condition": cbor2.dumps([["subscribe", 1, ["now"], [b"", 0, b"x"]]]),
    "a selector of no kind": cbor2.dumps([["subscribe", 1, ["now"], 5]]),
    "a selector of a new kind": cbor2.dumps([["subscribe", 1, ["now"], ["colour", b"red"]]]),
    "17 match keys": selecting(b"", [[0, 0, "a"]] * 17, []),
    "match keys that are no array": selecting(b"", {}, []),
    "a match key cut short": selecting(b"", [[0, 0]], []),
    "a regex of bytes": selecting(b"", [[0, 0, b"a"]], []),
    "a long regex": selecting(b"", [[0, 0, "a" * 4_097]], []),
    "a prefix that is a text": selecting("", [], []),
    "17 value filters": selecting(b"", [], [["exact", b""]] * 17),
    "a value filter of a new kind": selecting(b"", [], [["suffix", b"a"]]),
    "an exact text": selecting(b"", [], [["exact", "a"]]),
    "an unknown keyspace": cbor2.dumps([["subscribe", 1, ["now"], [b"", 99]]]),
    "an unknown policy": cbor2.dumps([["subscribe", 1, ["now"], [b"", 0], "drop"]]),
    "an entry of an unknown keyspace": cbor2.dumps([["snapshot", 1, [[99, b"", b""]]]]),
    "a text that is too long": cbor2.dumps([["goodbye", "x" * 1_025]]),
    "a map that is too large": cbor2.dumps(
        [["information", 1, "0" * 32, 1, 1, {str(n): n for n in range(65)}]]
    ),
    "more keys than any limit allows": cbor2.dumps([["get_many", 1, [b""] * ((1 << 20) + 1)]]),
    "more puts than any limit allows": b"\x81\x83\x65write\x01\x9a\x00\x10\x00\x01"
    + b"\x82\x40\x40" * ((1 << 20) + 1),
    "a map of lists": cbor2.dumps([["information", 1, "0" * 32, 1, 1, {"a": [1]}]]),
    "a short log id": cbor2.dumps([["information", 1, "0", 1, 1]]),
}


@pytest.mark.parametrize("frame", WRONG_FRAMES.values(), ids=WRONG_FRAMES.keys())
def test_a_wrong_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(frame)


def test_a_frame_is_measured_before_it_is_parsed() -> None:
    frame = codec.encode([m.Ping(1)])

    assert codec.decode(frame, bytes_max=len(frame))
    with pytest.raises(RemoteProtocolError, match="bytes"):
        codec.decode(frame, bytes_max=len(frame) - 1)


def test_decoding_leaves_the_collector_as_it_was() -> None:
    frame = codec.encode([m.Ping(1)])
    assert gc.isenabled()
    decode(frame)
    assert gc.isenabled()
    gc.disable()
    try:
        decode(frame)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_batches_put_together_from_parts_are_checked_like_a_frame() -> None:
    assert codec.decode_batches(cbor2.dumps([[1, 2, [[0, b"k", None]]]]))
    for wrong in (b"", cbor2.dumps(1), cbor2.dumps([1]), cbor2.dumps([[1, 2]])):
        with pytest.raises(RemoteProtocolError):
            codec.decode_batches(wrong)


def survives(data: bytes) -> None:
    try:
        messages = decode(data)
    except RemoteProtocolError:
        return
    assert messages
    assert decode(codec.encode(messages)) == messages


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(st.binary(max_size=200))
@example(b"\x81\x82\x64ping\x01")
def test_any_bytes_give_messages_or_a_protocol_error(data: bytes) -> None:
    survives(data)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner),
    max_leaves=10,
)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.sampled_from([shape.name for shape in codec.SHAPES]), st.lists(plain, max_size=7))
def test_any_structure_gives_messages_or_a_protocol_error(name: str, items: list[object]) -> None:
    survives(cbor2.dumps([[name, *items]]))


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(st.sampled_from(FROM_CLIENT + FROM_SERVER), st.data())
def test_a_frame_with_some_bytes_changed_gives_messages_or_a_protocol_error(
    message: m.Message, data: st.DataObject
) -> None:
    frame = bytearray(codec.encode([message]))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(frame))


MANY = [[0, b"k%d" % n, b"v" if n % 2 else None] for n in range(20)]


@pytest.mark.parametrize("count", [1, 8, 9, 20])
def test_entries_are_checked_few_or_many(count: int) -> None:
    good = MANY[:count]
    [page] = decode(cbor2.dumps([["snapshot", 1, good]]))
    assert isinstance(page, m.Snapshot)
    assert [list(entry) for entry in page.rows] == good
    assert all(type(entry) is Entry for entry in page.rows)

    wrong: object
    for wrong in ([0, b"k"], [0, b"k", b"v", 1], [99, b"k", b"v"], ["0", b"k", b"v"]):
        with pytest.raises(RemoteProtocolError):
            decode(cbor2.dumps([["snapshot", 1, [*good[1:], wrong]]]))
    for wrong in ([0, "k", b"v"], [0, b"k", "v"], [0, None, None], [True, b"k", b"v"], b"abc", 7):
        with pytest.raises(RemoteProtocolError):
            decode(cbor2.dumps([["snapshot", 1, [*good[1:], wrong]]]))


def test_a_transaction_that_has_read_a_key_twice_is_refused() -> None:
    key = [b"k", 1]
    with pytest.raises(RemoteProtocolError):
        codec.decode(cbor2.dumps([["commit", 7, [key, key], []]]), bytes_max=1_000)
    [commit] = codec.decode(cbor2.dumps([["commit", 7, [key], []]]), bytes_max=1_000)
    assert isinstance(commit, Commit)
