"""Writes: every bad input with its error and one clear sentence, every requirement decided."""

from __future__ import annotations

from typing import Any

import pytest

from exo_stream.decision import Answer, Need, Refuse, Write
from exo_stream.errors import (
    ConflictError,
    InvalidRequestError,
    LimitExceededError,
    ProducerFencedError,
)
from exo_stream.limits import Limits
from exo_stream.model import SEQUENCE_MAX, Entry, Keyspace
from exo_stream.payload import encode_entries
from exo_stream.producers import Producer, slot_key
from exo_stream.writes import (
    STEP_ENTRIES_MAX,
    LargeWrite,
    begin_write,
    check_keys,
    checked_write,
    decision,
)
from tests.test_producers import Table

SMALL = Limits(value_bytes_max=10, batch_entries_max=3, batch_bytes_max=25)


def anything(value: object) -> Any:
    return value


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        pytest.param({}, "a batch needs at least one entry", id="nothing"),
        pytest.param({"puts": [], "deletes": []}, "a batch needs at least one", id="empty lists"),
        pytest.param({"puts": [("k", b"v")]}, "keys and values are bytes", id="a text key"),
        pytest.param({"puts": [(b"k", "v")]}, "keys and values are bytes", id="a text value"),
        pytest.param({"puts": [(b"k", None)]}, "keys and values are bytes", id="None for a value"),
        pytest.param({"puts": [(bytearray(b"k"), b"v")]}, "are bytes", id="a key that can change"),
        pytest.param({"puts": [(b"k", memoryview(b"v"))]}, "are bytes", id="a view of a value"),
        pytest.param({"puts": [b"k"]}, "puts are pairs", id="no pair"),
        pytest.param({"puts": [(b"k", b"v", b"x")]}, "puts are pairs", id="three of a pair"),
        pytest.param({"puts": {b"key": b"v"}}, "puts are pairs", id="a mapping"),
        pytest.param({"puts": {b"ab": b"v"}}, "are bytes", id="a mapping of two-byte keys"),
        pytest.param({"puts": 5}, "puts are pairs", id="a number of puts"),
        pytest.param({"puts": None}, "puts are pairs", id="None for puts"),
        pytest.param({"deletes": b"k"}, "several keys, not one", id="one key to delete"),
        pytest.param({"deletes": "k"}, "several keys, not one", id="one text to delete"),
        pytest.param({"deletes": 5}, "deletes are keys", id="a number to delete"),
        pytest.param({"deletes": ["k"]}, "keys are bytes", id="a text among deletes"),
        pytest.param({"require": [b"k"]}, "require maps keys", id="a list of requirements"),
        pytest.param({"require": []}, "require maps keys", id="an empty list of requirements"),
        pytest.param({"require": {"k": 1}}, "keys are bytes", id="a text key required"),
        pytest.param({"require": {b"k": "there"}}, "a requirement is", id="another word"),
        pytest.param({"require": {b"k": -1}}, "a requirement is", id="a negative version"),
        pytest.param({"require": {b"k": True}}, "a requirement is", id="a bool for a version"),
        pytest.param({"require": {b"k": 1.0}}, "a requirement is", id="a float for a version"),
        pytest.param({"require": {b"k": SEQUENCE_MAX + 1}}, "a requirement is", id="too new"),
        pytest.param({"require": {b"k": None}}, "a requirement is", id="None required"),
        pytest.param({"producer": (b"p", 0, 0)}, "a producer is", id="a tuple for a producer"),
        pytest.param({"producer": Producer(b"", 0, 0)}, "a producer id is", id="a bad producer"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_sentence(asked: Any, sentence: str) -> None:
    if "puts" not in asked and "deletes" not in asked and asked:
        asked = {"puts": [(b"k", b"v")], **asked}
    with pytest.raises(InvalidRequestError, match=sentence) as refused:
        checked_write(Limits(), **asked)
    assert type(refused.value) is InvalidRequestError
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "limit", "bound", "actual"),
    [
        pytest.param({"puts": [(b"k" * 255, b"")]}, "key_bytes_max", 254, 255, id="a put's key"),
        pytest.param({"deletes": [b"k" * 255]}, "key_bytes_max", 254, 255, id="a deleted key"),
        pytest.param({"require": {b"k" * 255: 1}}, "key_bytes_max", 254, 255, id="required key"),
        pytest.param({"puts": [(b"", b"v" * 11)]}, "value_bytes_max", 10, 11, id="a value"),
        pytest.param({"puts": [(b"", b"")] * 4}, "batch_entries_max", 3, 4, id="entries"),
        pytest.param(
            {"puts": [(b"", b"v" * 9)] * 2, "deletes": [b"k" * 8]},
            "batch_bytes_max",
            25,
            26,
            id="bytes of puts and deletes",
        ),
    ],
)
def test_what_is_too_large_is_refused_with_the_limit(
    asked: Any, limit: str, bound: int, actual: int
) -> None:
    if "require" in asked:
        asked = {"puts": [(b"k", b"v")], **asked}
    with pytest.raises(LimitExceededError) as refused:
        checked_write(SMALL, **asked)
    error = refused.value
    assert (error.limit, error.bound, error.actual) == (limit, bound, actual)


def test_the_bounds_themselves_are_allowed() -> None:
    write = checked_write(SMALL, puts=[(b"k" * 15, b"v" * 10), (b"", b"")], deletes=[b""])
    assert len(write.entries) == 3
    assert checked_write(Limits(), puts=[(b"\xff" * 254, b"")]).entries[0].key == b"\xff" * 254


def test_puts_come_before_deletes_in_the_order_given_and_may_be_any_iterable() -> None:
    write = checked_write(
        Limits(), puts=iter([(b"a", b"1"), (b"b", b""), (b"a", b"2")]), deletes=iter([b"b"])
    )
    store = int(Keyspace.STORE)
    assert write.entries == (
        Entry(store, b"a", b"1"),
        Entry(store, b"b", b""),
        Entry(store, b"a", b"2"),
        Entry(store, b"b", None),
    )
    assert write.payload == encode_entries(write.entries)


@pytest.mark.parametrize(
    ("puts", "deletes"),
    [(STEP_ENTRIES_MAX + 1, 0), (3, STEP_ENTRIES_MAX), (20_000, 2), (1, 20_000)],
)
def test_a_large_write_is_made_in_steps_and_is_the_same(puts: int, deletes: int) -> None:
    asked: Any = {
        "puts": [(b"%d" % number, b"v" * (number % 3)) for number in range(puts)],
        "deletes": [b"d%d" % number for number in range(deletes)],
        "require": {b"k": "absent"},
        "producer": Producer(b"p", 0, 7),
    }
    write = begin_write(Limits(), **asked)
    asked["puts"].clear()  # it was taken over
    steps = 0
    while isinstance(write, LargeWrite):
        write = write.step()
        steps += 1
    assert steps >= (puts + deletes) / STEP_ENTRIES_MAX
    entries = [
        *(Entry(0, b"%d" % number, b"v" * (number % 3)) for number in range(puts)),
        *(Entry(0, b"d%d" % number, None) for number in range(deletes)),
    ]
    assert list(write.entries) == entries
    assert write.payload == encode_entries(entries)
    assert (write.require, write.producer) == (asked["require"], asked["producer"])


@pytest.mark.parametrize(
    ("puts", "deletes", "wrong"),
    [
        pytest.param([(b"k", b"v")] * 20_000 + [(b"k", "v")], [], InvalidRequestError, id="text"),
        pytest.param([(b"k", b"v")] * 20_000, [b"k" * 255], LimitExceededError, id="a long key"),
        pytest.param([(b"k", b"v" * 5_000)] * 20_000, [], LimitExceededError, id="too much"),
        pytest.param([(b"k", b"v")] * 20_000, b"k", InvalidRequestError, id="not several"),
    ],
)
def test_what_is_wrong_with_a_large_write_is_found_too(puts: Any, deletes: Any, wrong: Any) -> None:
    with pytest.raises(wrong):
        checked_write(Limits(), puts=puts, deletes=deletes)


def test_many_tiny_entries_count_while_they_wait() -> None:
    assert checked_write(Limits(), deletes=[b""] * 1_000).size > 100_000


def test_a_mapping_that_changes_later_changes_no_requirement() -> None:
    require: dict[bytes, Any] = {b"k": "absent"}
    write = checked_write(Limits(), puts=[(b"k", b"v")], require=require)
    require[b"k"] = "present"
    assert write.require == {b"k": "absent"}


@pytest.mark.parametrize(
    ("keys", "error"),
    [([b"k" * 254, b""], None), ([5], InvalidRequestError), ([b"k" * 255], LimitExceededError)],
)
def test_keys_are_checked(keys: Any, error: type[Exception] | None) -> None:
    if error is None:
        check_keys(keys)
    else:
        with pytest.raises(error):
            check_keys(keys)


def table() -> Table:
    """``there`` at version 1, ``gone`` deleted at version 2."""
    found = Table()
    found.write([Entry(Keyspace.STORE, b"there", b"1")])
    found.write([Entry(Keyspace.STORE, b"gone", None)])
    return found


@pytest.mark.parametrize(
    ("key", "requirement", "version"),
    [
        pytest.param(b"there", "present", None, id="present, and there"),
        pytest.param(b"there", 1, None, id="the version it has"),
        pytest.param(b"there", "absent", 1, id="absent, but there"),
        pytest.param(b"there", 2, 1, id="another version"),
        pytest.param(b"there", 0, 1, id="version 0 means absent"),
        pytest.param(b"never", "absent", None, id="absent, and never written"),
        pytest.param(b"never", 0, None, id="version 0, and never written"),
        pytest.param(b"never", "present", 0, id="present, but never written"),
        pytest.param(b"gone", "absent", None, id="absent, and deleted"),
        pytest.param(b"gone", 0, None, id="version 0, and deleted"),
        pytest.param(b"gone", "present", 0, id="present, but deleted"),
        pytest.param(b"gone", 2, 0, id="the version of its deletion"),
    ],
)
def test_a_requirement_holds_or_names_the_key_and_its_version(
    key: bytes, requirement: Any, version: int | None
) -> None:
    write = checked_write(Limits(), puts=[(b"x", b"y")], require={key: requirement})
    verdict = decision(write)(table(), 0)
    if version is None:
        assert verdict == Write(write.entries, 3, write.payload)
    else:
        assert isinstance(verdict, Refuse)
        assert isinstance(verdict.error, ConflictError)
        assert (verdict.error.key, verdict.error.version) == (key, version)


def test_a_plain_write_looks_at_nothing() -> None:
    write = checked_write(Limits(), puts=[(b"x", b"y")])
    assert decision(write)(anything(Table()), 0) == Write(write.entries, 1, write.payload)


def test_all_required_keys_are_asked_for_at_once() -> None:
    view = table()
    view.cold |= {b"there", b"never"}
    require: dict[bytes, Any] = {b"there": 1, b"gone": "absent", b"never": "absent"}
    verdict = decision(checked_write(Limits(), deletes=[b"x"], require=require))(view, 0)
    assert verdict == Need(versions=[(int(Keyspace.STORE), key) for key in (b"there", b"never")])


def by_producer(seq: int, **options: Any) -> Any:
    return decision(
        checked_write(Limits(), puts=[(b"k", b"v")], producer=Producer(b"p", 1, seq), **options)
    )


def test_a_numbered_write_brings_its_record_in_the_same_batch() -> None:
    view = Table()
    verdict = by_producer(0)(view, 5)
    assert isinstance(verdict, Write)
    assert [entry.keyspace for entry in verdict.entries] == [1, 1, 0]
    assert verdict.payload == encode_entries(verdict.entries)


def test_a_duplicate_is_answered_before_its_requirements_are_looked_at() -> None:
    """They were met when it took effect, and it has changed what they ask about."""
    view = Table()
    first = by_producer(0, require={b"k": "absent"})(view, 5)
    assert isinstance(first, Write)
    assert first.answer == view.write(first.entries)
    assert by_producer(0, require={b"k": "absent"})(view, 6) == Answer(first.answer)


def test_a_refused_numbered_write_may_be_tried_again() -> None:
    view = table()
    require: dict[bytes, Any] = {b"there": "absent"}
    assert isinstance(by_producer(0, require=require)(view, 5), Refuse)
    view.write([Entry(Keyspace.STORE, b"there", None)])
    assert isinstance(by_producer(0, require=require)(view, 5), Write)


def test_a_fenced_producer_is_refused_and_an_unknown_record_is_asked_for() -> None:
    view = Table()
    verdict = by_producer(0)(view, 5)
    assert isinstance(verdict, Write)
    view.write(verdict.entries)
    old = decision(checked_write(Limits(), deletes=[b"k"], producer=Producer(b"p", 0, 0)))(view, 0)
    assert isinstance(old, Refuse)
    assert isinstance(old.error, ProducerFencedError)
    view.cold.add(slot_key(b"p", 9))
    assert isinstance(by_producer(9)(view, 5), Need)
