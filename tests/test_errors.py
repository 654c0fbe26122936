"""Errors: each has a stable code, its fields, and twins for more than one waiter."""

from __future__ import annotations

import inspect
import re

import pytest

from exo_stream import backup_errors, errors, stream_errors
from exo_stream.errors import ExoStreamError

CLASSES = [
    value
    for module in (errors, stream_errors, backup_errors)
    for value in vars(module).values()
    if inspect.isclass(value)
    and issubclass(value, ExoStreamError)
    and value is not ExoStreamError
    and value.__module__ == module.__name__
]
MADE: dict[str, ExoStreamError] = {
    "limit_exceeded": errors.LimitExceededError("key_bytes_max", 254, 300),
    "conflict": errors.ConflictError(b"k", 7),
    "key_too_large": errors.KeyTooLargeError(512, 511, "put_state"),
    "value_too_large": errors.ValueTooLargeError(17, 16, "put_state"),
    "undeclared_key_access": errors.UndeclaredKeyAccessError(b"k"),
    "sealed": errors.SealedError(7),
    "lock_timeout": errors.LockTimeoutError(5_000, b"k", "a task"),
    "timed_out": errors.TimedOutError(5_000, "a task"),
    "transaction_conflict": errors.TransactionConflictError(b"k", 7, 8),
    "event_gap": errors.EventGapError(7, 3),
    "projection_failed": errors.ProjectionError("balances", 7, "raised KeyError"),
    "batch_evicted": errors.BatchEvictedError(10),
    "cursor_ahead": errors.CursorAheadError(10),
    "log_mismatch": errors.LogMismatchError("00"),
    "producer_fenced": errors.ProducerFencedError(3),
    "producer_gap": errors.ProducerGapError(3, 5),
    "not_visible_yet": errors.NotVisibleYetError(3, 5),
    "file_in_use": errors.FileInUseError("feed.duckdb", 77),
    "stream_too_large": stream_errors.StreamTooLargeError("stream_bytes_max", 10, 11),
    "stream_not_found": stream_errors.StreamNotFoundError("s"),
    "stream_gone": stream_errors.StreamGoneError("s"),
    "offset_evicted": stream_errors.OffsetEvictedError("0_1"),
    "stream_config_mismatch": stream_errors.StreamConfigMismatchError("s"),
    "stream_path_blocked": stream_errors.StreamPathBlockedError("s"),
    "fork_from_tombstone": stream_errors.ForkFromTombstoneError("s"),
    "content_type_mismatch": stream_errors.ContentTypeMismatchError("text/plain"),
    "stream_closed": stream_errors.StreamClosedError("0_1"),
    "stream_seq_conflict": stream_errors.StreamSeqConflictError("0_1", "a"),
    "offset_conflict": stream_errors.OffsetConflictError("0_1"),
}


def made(cls: type[ExoStreamError]) -> ExoStreamError:
    if issubclass(cls, backup_errors.BackupError):
        return cls("backups/1", "what happened")
    return MADE[cls.code] if cls.code in MADE else cls("what happened")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_says_what_it_is_and_carries_its_fields(cls: type[ExoStreamError]) -> None:
    error = made(cls)
    assert type(error) is cls
    assert cls.__doc__
    assert re.fullmatch(r"[a-z_]+", cls.code)
    assert "\n" not in str(error)
    assert str(error)
    for name in cls.fields:
        assert getattr(error, name) is not None


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_for_one_more_waiter_is_equal_but_another_object(
    cls: type[ExoStreamError],
) -> None:
    error = made(cls)
    twin = error.again()
    assert twin is not error
    assert type(twin) is cls
    assert str(twin) == str(error)
    assert [getattr(twin, name) for name in cls.fields] == [
        getattr(error, name) for name in cls.fields
    ]


def test_raising_one_leaves_its_twin_alone() -> None:
    error = errors.StoreError("refused")
    with pytest.raises(errors.StoreError):
        raise error
    assert error.__traceback__ is not None
    assert error.again().__traceback__ is None


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in CLASSES]
    assert sorted(set(codes)) == sorted(codes)


def test_the_tree_at_the_head_of_the_file_is_the_tree() -> None:
    """It is what a reader reads first, so it may not drift."""
    trees = f"{errors.__doc__}{stream_errors.__doc__}{backup_errors.__doc__}"
    drawn = re.findall(r"^[│ ]*[├└]─ (\w+) +(\(r\))? *(\w+)", trees, re.MULTILINE)
    assert [(name, bool(retryable), code) for name, retryable, code in drawn] == [
        (cls.__name__, cls.retryable, cls.code) for cls in CLASSES
    ]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errors.ConflictError(b"k", 0), "key b'k' is absent"),
        (errors.ConflictError(b"k", 7), "key b'k' is at version 7"),
        (errors.FileInUseError("f", 0), "f is in use by another process"),
        (errors.FileInUseError("f", 7), "f is in use by process 7"),
        (errors.LimitExceededError("x_max", 1, 2), "x_max is 1, but this is 2"),
    ],
)
def test_the_sentence_names_what_matters(error: ExoStreamError, sentence: str) -> None:
    assert str(error) == sentence
