"""How errors leave a nursery that is our own business: as themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import trio

from exo_stream.errors import (
    ExoStreamError,
    OutcomeUnknownError,
    OverloadedError,
    PlatformClosedError,
)


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
        # Cancel scopes rebuild the groups that pass through them: only the leaves are the same.
        own = {id(leaf) for leaf in _leaves(body.error)} if body.error is not None else set()
        errors = _causes(sorted(_leaves(group), key=lambda leaf: id(leaf) in own))
        if body.error is not None and own.issuperset(map(id, errors)):
            alone = body.error
        elif len(errors) == 1:
            [alone] = errors
        else:
            raise
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
    # A reader of a file that has failed is told to come back later: overloaded.
    echoes = PlatformClosedError | OutcomeUnknownError | OverloadedError
    others = [error for error in told if not isinstance(error, echoes)]
    return _unlike([*others, *unknown[:1]]) or told[:1] or [errors[0]]


def _unlike(errors: Sequence[BaseException]) -> list[BaseException]:
    """``errors`` without the twins of one that an actor stopped for and answered with."""
    first: dict[object, BaseException] = {}
    for error in errors:
        is_ours = isinstance(error, ExoStreamError)
        first.setdefault((type(error), error.args) if is_ours else id(error), error)
    return list(first.values())


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
