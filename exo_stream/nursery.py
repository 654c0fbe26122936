"""How errors leave a nursery that is our own business: as themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import trio

from exo_stream.errors import OutcomeUnknownError, PlatformClosedError


class BodyError:
    """Remembers what the body of our nursery raised, to tell it from what an actor raised."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.error = error


@contextmanager
def nursery_unseen() -> Iterator[BodyError]:
    """Let a lone error leave our nursery as itself; two or more leave as the group they are.

    What the body was told because an actor crashed does not count beside the crash itself.
    """
    body = BodyError()
    try:
        yield body
    except BaseExceptionGroup as group:
        errors = _causes(list(_leaves(group, body.error)))
        if len(errors) > 1:
            raise
        [alone] = errors
    else:
        return
    context = alone.__context__
    try:
        raise alone
    finally:
        alone.__context__ = context  # raising it has put the group there, which holds it
        del alone, context, body


def _causes(errors: Sequence[BaseException]) -> list[BaseException]:
    """``errors`` without those that only tell what a crash has made of somebody's request."""
    told = [error for error in errors if not isinstance(error, trio.Cancelled)]
    unknown = [error for error in told if isinstance(error, OutcomeUnknownError)]
    causes = [*(error for error in told if not _is_echo(error)), *unknown[:1]]
    return causes or told[:1] or [errors[0]]


def _leaves(
    group: BaseExceptionGroup[BaseException], body_error: BaseException | None
) -> Iterator[BaseException]:
    """The errors in our own nurseries' groups; a group that the body raised is one error."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup) and error is not body_error:
            yield from _leaves(error, body_error)
        else:
            yield error


def _is_echo(error: BaseException) -> bool:
    """Whether it only tells what a crash has made of somebody's request."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_echo(leaf) for leaf in error.exceptions)
    return isinstance(error, PlatformClosedError | OutcomeUnknownError | trio.Cancelled)
