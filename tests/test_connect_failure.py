"""Errors on the store's own API: the vectors of Exoware's server, and what each of ours becomes."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest

from exo_stream import errors
from exo_stream.protocol.connect.failure import (
    CallError,
    Code,
    error_body,
    error_info,
    error_value,
    invalid,
    retry_info,
    unpadded,
)
from exo_stream.protocol.connect.generated.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    RetryInfo,
)
from exo_stream.protocol.connect.generated.query_pb2 import Detail
from exo_stream.protocol.http import RefusedError
from exo_stream.server.store_api.failures import call_error, deadline_exceeded, leaving, not_ready


def test_details_are_the_bytes_that_exoware_sends() -> None:
    evicted = error_info("BATCH_EVICTED", "store.stream", {"oldest_retained": "11"})
    assert unpadded(evicted) == (
        "Cg1CQVRDSF9FVklDVEVEEgxzdG9yZS5zdHJlYW0aFQoPb2xkZXN0X3JldGFpbmVkEgIxMQ"
    )
    assert unpadded(retry_info()) == "CgIIAQ"
    detail = Detail(sequence_number=42, read_stats={"read_bytes": 3})
    assert unpadded(detail) == "CCoSDgoKcmVhZF9ieXRlcxAD"


def test_every_detail_is_there_under_both_names_of_its_type() -> None:
    error = CallError(Code.ABORTED, "later", [retry_info(), error_info("R", "d")])
    assert error_value(error) == {
        "code": "aborted",
        "message": "later",
        "details": [
            {"type": "google.rpc.RetryInfo", "value": "CgIIAQ"},
            {"type": "type.googleapis.com/google.rpc.RetryInfo", "value": "CgIIAQ"},
            {"type": "google.rpc.ErrorInfo", "value": "CgFSEgFk"},
            {"type": "type.googleapis.com/google.rpc.ErrorInfo", "value": "CgFSEgFk"},
        ],
    }
    assert json.loads(error_body(CallError(Code.INTERNAL, "x"))) == {
        "code": "internal",
        "message": "x",
    }


def test_a_broken_rule_names_its_field_twice() -> None:
    error = invalid("INVALID_BATCH", "store.ingest", "kvs", "none", {"max": "1"})
    bad, info = error.details
    assert isinstance(bad, BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [("kvs", "none")]
    assert info == ErrorInfo(
        reason="INVALID_BATCH",
        domain="store.ingest",
        metadata={"max": "1", "description": "none"},
    )
    assert (error.code, error.message) == (Code.INVALID_ARGUMENT, "kvs: none")


def test_half_a_second_is_written_as_nanoseconds() -> None:
    assert retry_info(1500) == RetryInfo(retry_delay={"seconds": 1, "nanos": 500_000_000})


@pytest.mark.parametrize("code", Code)
def test_every_code_has_the_status_of_the_protocol(code: Code) -> None:
    statuses = {
        "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404,
        "permission_denied": 403, "resource_exhausted": 429, "aborted": 409, "out_of_range": 400,
        "unimplemented": 501, "internal": 500, "unavailable": 503, "data_loss": 500,
    }  # fmt: skip
    assert code.status == statuses[str(code)]
    assert CallError(code, "").status == code.status


def info_of(error: CallError) -> ErrorInfo | None:
    return next((one for one in error.details if isinstance(one, ErrorInfo)), None)


def delay_of(error: CallError) -> float | None:
    delays = [one.retry_delay for one in error.details if isinstance(one, RetryInfo)]
    return delays[0].seconds + delays[0].nanos / 1e9 if delays else None


@pytest.mark.parametrize(
    ("error", "domain", "code", "reason", "delay"),
    [
        (errors.StoreError("x"), "store.ingest", Code.UNAVAILABLE, "INGEST_UNAVAILABLE", 1),
        (errors.StoreFullError("x"), "store.ingest", Code.UNAVAILABLE, "INGEST_UNAVAILABLE", 1),
        (errors.OutcomeUnknownError("x"), "store.ingest", Code.UNKNOWN, "OUTCOME_UNKNOWN", None),
        (errors.PlatformClosedError("x"), "store.ingest", Code.UNKNOWN, "OUTCOME_UNKNOWN", None),
        (errors.PlatformClosedError("x"), "store.query", Code.UNAVAILABLE, "WORKER_NOT_READY", 1),
        (errors.PausedError("x"), "store.ingest", Code.UNAVAILABLE, "WORKER_NOT_READY", 1),
        (errors.PausedError("x"), "store.compact", Code.UNAVAILABLE, "WORKER_NOT_READY", 1),
        (errors.OverloadedError("x"), "store.query", Code.RESOURCE_EXHAUSTED, "OVERLOADED", 0.1),
        (errors.SnapshotExpiredError("x"), "store.query", Code.UNAVAILABLE, "SNAPSHOT_EXPIRED", 1),
        (errors.UnavailableError("x"), "store.query", Code.UNAVAILABLE, "UNAVAILABLE", 1),
        (errors.UnsupportedError("x"), "store.stream", Code.UNIMPLEMENTED, None, None),
        (errors.InvalidRequestError("x"), "store.stream", Code.INVALID_ARGUMENT, None, None),
        (errors.CorruptionError("x"), "store.query", Code.DATA_LOSS, None, None),
        (errors.CursorAheadError(1), "store.stream", Code.OUT_OF_RANGE, None, None),
        (errors.LocalProtocolError("x"), "store.query", Code.INTERNAL, None, None),
        (RefusedError(408, "c", "late"), "store.ingest", Code.DEADLINE_EXCEEDED, None, None),
        (RefusedError(400, "c", "bad"), "store.ingest", Code.INVALID_ARGUMENT, None, None),
    ],
    ids=repr,
)
def test_what_an_error_of_ours_becomes(
    error: errors.ExoStreamError | RefusedError,
    domain: str,
    code: Code,
    reason: str | None,
    delay: float | None,
) -> None:
    call = call_error(error, domain, 5)
    info = info_of(call)

    assert (call.code, delay_of(call)) == (code, delay)
    assert (info.reason if info else None) == reason
    assert info is None or info.domain == domain
    assert call.message


def test_a_body_that_is_too_large_exhausts_a_resource() -> None:
    body = errors.LimitExceededError("body_bytes_max", 1, 2)
    assert call_error(body, "store.ingest", 0).code is Code.RESOURCE_EXHAUSTED
    keys = errors.LimitExceededError("get_many_keys_max", 1, 2)
    assert call_error(keys, "store.query", 0).code is Code.INVALID_ARGUMENT


def test_a_sequence_that_is_not_visible_yet_is_told_in_three_details() -> None:
    call = call_error(errors.NotVisibleYetError(7, 9), "store.query", 7)
    assert call.code is Code.ABORTED
    assert delay_of(call) == 1
    assert info_of(call) == ErrorInfo(
        reason="CONSISTENCY_NOT_READY",
        domain="store.query",
        metadata={"required_sequence_number": "9", "current_sequence_number": "7"},
    )
    assert Detail(sequence_number=7) in call.details


def test_an_evicted_batch_names_the_oldest_unless_there_is_none() -> None:
    some = call_error(errors.BatchEvictedError(11), "store.stream", 20)
    assert (some.code, info_of(some)) == (
        Code.OUT_OF_RANGE,
        error_info("BATCH_EVICTED", "store.stream", {"oldest_retained": "11"}),
    )
    none = call_error(errors.BatchEvictedError(21), "store.stream", 20)
    assert info_of(none) == error_info("BATCH_EVICTED", "store.stream")


def test_a_server_that_stops_says_so() -> None:
    assert (not_ready().code, delay_of(not_ready())) == (Code.UNAVAILABLE, 1)
    assert info_of(not_ready()) == error_info("WORKER_NOT_READY", "store.ingest")
    assert info_of(leaving("store.stream")) == error_info("WORKER_NOT_READY", "store.stream")
    assert deadline_exceeded().code is Code.DEADLINE_EXCEEDED


def test_base64_has_no_padding() -> None:
    text = unpadded(error_info("a", ""))
    assert not text.endswith("=")
    assert b64decode(text + "=" * (-len(text) % 4)) == b"\x0a\x01a"
