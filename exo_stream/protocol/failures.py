"""Errors on the wire: from an exception to a ``Failure`` and back, by the stable code.

The text of an error travels as it is, since errors.py writes it for callers; an exception that
is not ours travels as ``internal`` and nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_type_hints

from exo_stream import errors, stream_errors
from exo_stream.errors import ExoStreamError, RemoteProtocolError
from exo_stream.protocol.fields import TEXT_LENGTH_MAX
from exo_stream.protocol.messages import Failure

INTERNAL: Final = "internal"
"""The code of what should not have happened; the server's log has the rest."""


class ServerError(ExoStreamError):
    """An error whose ``code`` this client does not know: of a newer server, or ``internal``."""

    code: str = INTERNAL  # type: ignore[misc]  # its own on each instance: that is its point
    retryable: bool = False  # type: ignore[misc]  # likewise

    def __init__(self, code: str, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


def below(kind: type[ExoStreamError]) -> Iterator[type[ExoStreamError]]:
    """Every error whose class is below ``kind``, each before those below itself."""
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


ERRORS: Final = tuple(
    kind
    for kind in below(ExoStreamError)
    if kind.__module__ in {errors.__name__, stream_errors.__name__}
)
"""Every error that both sides know, in the order of errors.py's tree."""

_BY_CODE: Final = {kind.code: kind for kind in ERRORS}
_FIELD_TYPES: Final = {
    kind: {name: get_type_hints(kind.__init__)[name] for name in kind.fields}
    for kind in _BY_CODE.values()
}


def failure(id_: int, error: Exception) -> Failure:
    """The message that ends request or subscription ``id_`` with this error."""
    if not isinstance(error, ExoStreamError):
        return Failure(id_, INTERNAL, "an internal error; the server's log has it", False)
    carried = {name: getattr(error, name) for name in error.fields}
    return Failure(id_, error.code, str(error)[:TEXT_LENGTH_MAX], error.retryable, carried)


def error_of(failure: Failure) -> ExoStreamError:
    """A new error, as the server raised it: same class, text and fields.

    Raises RemoteProtocolError if a field is missing or of the wrong type.
    """
    kind = _BY_CODE.get(failure.code)
    if kind is None:
        return ServerError(failure.code, failure.message, failure.retryable)
    # Not through __init__, which would write the sentence anew from other arguments.
    error: Any = kind.__new__(kind, failure.message)
    for name, expected in _FIELD_TYPES[kind].items():
        value = failure.fields.get(name)
        if type(value) is not expected:
            raise RemoteProtocolError(f"{failure.code} without a proper {name}")
        setattr(error, name, value)
    result: ExoStreamError = error
    return result
