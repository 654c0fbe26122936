"""The exit code of every error, by one table."""

from __future__ import annotations

from typing import Final

from exo_stream.errors import ExoStreamError

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
CONFLICT: Final = 4
UNAVAILABLE: Final = 5
INTERRUPTED: Final = 130
"""What shells give a program that a Ctrl-C ended."""

BY_CODE: Final = {
    "invalid_request": USAGE,
    "limit_exceeded": USAGE,
    "batch_evicted": NOT_FOUND,
    "conflict": CONFLICT,
    "cursor_ahead": CONFLICT,
    "log_mismatch": CONFLICT,
    "producer_fenced": CONFLICT,
    "producer_gap": CONFLICT,
    "stream_config_mismatch": CONFLICT,
    "stream_path_blocked": CONFLICT,
    "fork_from_tombstone": CONFLICT,
    "content_type_mismatch": CONFLICT,
    "stream_closed": CONFLICT,
    "stream_seq_conflict": CONFLICT,
    "offset_conflict": CONFLICT,
    "stream_not_found": NOT_FOUND,
    "stream_gone": NOT_FOUND,
    "offset_evicted": NOT_FOUND,
    "invalid_stream_name": USAGE,
    "invalid_offset": USAGE,
    "fork_offset_beyond_tail": USAGE,
    "empty_append": USAGE,
    "invalid_producer_state": USAGE,
    "stream_too_large": USAGE,
    "invalid_state": CONFLICT,
    "sealed": CONFLICT,
    "preflight_failed": CONFLICT,
    "transaction_conflict": CONFLICT,
    "key_too_large": USAGE,
    "value_too_large": USAGE,
    "undeclared_key_access": USAGE,
    "config": USAGE,
    "serialization": ERROR,
    "backup_failed": ERROR,
    "backup_damaged": ERROR,
    "backup_format": ERROR,
    "backup_key": USAGE,
    "backup_key_missing": USAGE,
    "backup_not_encrypted": USAGE,
    "full_backup_needed": CONFLICT,
    "restore_point": NOT_FOUND,
    "restore_refused": CONFLICT,
    "projection_failed": ERROR,
    "paused": UNAVAILABLE,
    "lock_timeout": UNAVAILABLE,
    "timed_out": UNAVAILABLE,
    "unsupported": ERROR,
    "store_failed": ERROR,
    "outcome_unknown": ERROR,
    "foreign_file": ERROR,
    "corruption": ERROR,
    "event_gap": ERROR,
    "local_protocol_error": ERROR,
    "remote_protocol_error": ERROR,
    "not_visible_yet": UNAVAILABLE,
    "snapshot_expired": UNAVAILABLE,
    "overloaded": UNAVAILABLE,
    "store_full": UNAVAILABLE,
    "platform_closed": UNAVAILABLE,
    "unavailable": UNAVAILABLE,
    "file_in_use": UNAVAILABLE,
}
"""UNAVAILABLE is what the same command, tried later, may cure."""


def exit_code(error: ExoStreamError) -> int:
    """What a command exits with when it ends with ``error``; a code we do not know is an error."""
    return BY_CODE.get(error.code, ERROR)
