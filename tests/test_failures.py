"""Errors on the wire, by code, and what they look like on the other side."""

from __future__ import annotations

import pytest

from exo_stream import errors, stream_errors
from exo_stream.errors import ExoStreamError, RemoteProtocolError
from exo_stream.protocol import closing, codec
from exo_stream.protocol.closing import Advice
from exo_stream.protocol.failures import ERRORS, ServerError, error_of, failure
from exo_stream.protocol.messages import Failure

RAISED: tuple[ExoStreamError, ...] = (
    errors.InvalidRequestError("no"),
    errors.LimitExceededError("key_bytes_max", 254, 300),
    errors.ConflictError(b"\xff", 7),
    errors.BatchEvictedError(12),
    errors.CursorAheadError(3),
    errors.LogMismatchError("0" * 32),
    errors.ProducerFencedError(4),
    errors.ProducerGapError(5, 7),
    errors.UnsupportedError("mixed writes"),
    errors.NotVisibleYetError(3, 9),
    errors.SnapshotExpiredError("too long"),
    errors.OverloadedError("later"),
    errors.StoreError("disk"),
    errors.StoreFullError("full"),
    errors.OutcomeUnknownError("?"),
    errors.PlatformClosedError("closed"),
    errors.UnavailableError("gone"),
    errors.FileInUseError("feed.duckdb", 17),
    errors.ForeignFileError("not ours"),
    errors.CorruptionError("checksum"),
    errors.EventGapError(7, 3),
    errors.LocalProtocolError("bug"),
    errors.RemoteProtocolError("theirs"),
    errors.KeyTooLargeError(512, 511, "put_state"),
    errors.ValueTooLargeError(17, 16, "put_state"),
    errors.InvalidStateError("not now"),
    errors.UndeclaredKeyAccessError(b"k"),
    errors.ConfigError("no stripes"),
    errors.SerializationError("no value"),
    errors.PausedError("paused"),
    errors.SealedError(7),
    errors.LockTimeoutError(5_000, b"k", "a task"),
    errors.TimedOutError(5_000, "a task"),
    errors.PreflightFailedError("no"),
    errors.TransactionConflictError(b"k", 7, 8),
    errors.ProjectionError("balances", 7, "no"),
    stream_errors.InvalidStreamNameError("no"),
    stream_errors.InvalidOffsetError("no"),
    stream_errors.ForkOffsetBeyondTailError("no"),
    stream_errors.EmptyAppendError("no"),
    stream_errors.InvalidProducerStateError("no"),
    stream_errors.StreamTooLargeError("stream_bytes_max", 10, 11),
    stream_errors.StreamNotFoundError("s"),
    stream_errors.StreamGoneError("s"),
    stream_errors.OffsetEvictedError("0_1"),
    stream_errors.StreamConfigMismatchError("s"),
    stream_errors.StreamPathBlockedError("s"),
    stream_errors.ForkFromTombstoneError("s"),
    stream_errors.ContentTypeMismatchError("text/plain"),
    stream_errors.StreamClosedError("0_1"),
    stream_errors.StreamSeqConflictError("0_1", "a"),
    stream_errors.OffsetConflictError("0_1"),
)


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was_raised(error: ExoStreamError) -> None:
    [arrived] = codec.decode(codec.encode([failure(7, error)]), bytes_max=10_000)
    assert isinstance(arrived, Failure)
    twin = error_of(arrived)

    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.__dict__ == error.__dict__
    assert twin is not error_of(arrived)


def test_no_error_is_forgotten() -> None:
    assert {type(error) for error in RAISED} == set(ERRORS)
    assert len({kind.code for kind in ERRORS}) == len(ERRORS)


def test_what_is_no_error_of_ours_says_nothing_of_itself() -> None:
    message = failure(7, KeyError("secret"))

    assert message.code == "internal"
    assert "secret" not in message.message


def test_a_code_of_a_newer_server_keeps_its_code_and_whether_to_retry() -> None:
    error = error_of(Failure(1, "quota_exceeded", "no more", True, {"left": 0}))

    assert isinstance(error, ServerError)
    assert (error.code, error.retryable, str(error)) == ("quota_exceeded", True, "no more")
    assert failure(2, error).code == "quota_exceeded"
    assert not ServerError("internal", "", retryable=False).retryable


@pytest.mark.parametrize("fields", [{}, {"key": "text", "version": 1}, {"key": b"k"}])
def test_an_error_without_its_fields_is_refused(
    fields: dict[str, str | int | bytes | None],
) -> None:
    with pytest.raises(RemoteProtocolError, match="conflict"):
        error_of(Failure(1, "conflict", "no", False, fields))


def test_an_error_text_is_cut_to_what_a_field_may_hold() -> None:
    message = failure(1, errors.StoreError("x" * 5_000))

    assert codec.decode(codec.encode([message]), bytes_max=10_000) == [message]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_every_error_closes_a_connection_with_a_code_of_the_table(error: ExoStreamError) -> None:
    assert closing.close_of(error) in closing.CLOSES


def test_the_codes_mean_what_they_say() -> None:
    assert closing.close_of(errors.RemoteProtocolError("x")) is closing.BAD_MESSAGE
    assert closing.close_of(errors.StoreFullError("x")) is closing.UNAVAILABLE
    assert closing.close_of(errors.LimitExceededError("a", 1, 2)) is closing.TOO_LARGE
    assert len({close.code for close in closing.CLOSES}) == len(closing.CLOSES)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (None, Advice.RECONNECT),
        (1000, Advice.STOP),
        (1006, Advice.RECONNECT),
        (4008, Advice.RECONNECT),
        (4400, Advice.STOP),
        (4429, Advice.BACK_OFF),
        pytest.param(4451, Advice.STOP, id="an unknown 44xx: our fault"),
        pytest.param(4577, Advice.BACK_OFF, id="an unknown 45xx: theirs"),
        pytest.param(4042, Advice.BACK_OFF, id="an unknown transient one"),
        pytest.param(1012, Advice.BACK_OFF, id="one of a proxy"),
    ],
)
def test_what_a_client_should_do_after_a_code(code: int | None, advice: Advice) -> None:
    assert closing.advice_on(code) is advice
