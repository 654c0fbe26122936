"""Where the library says what an operator should know: through the structlog of its program.

A program that has configured structlog hears everything. One that has not did not ask: it is
told of warnings and errors, on standard error, and its output stays its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error", "exception")
_UNASKED: Final = ("warning", "error", "exception")


class Logger:
    """``structlog.get_logger()``, which is imported when there is something to be said.

    The import takes a quarter of a second where rich is installed, which structlog then imports
    too, with asyncio and much else; and a program that has not imported it has not configured it.
    """

    def __getattr__(self, level: str) -> Callable[..., object]:
        if level not in LEVELS:
            raise AttributeError(level)
        if level not in _UNASKED and "structlog" not in sys.modules:
            return _say_nothing
        import structlog  # noqa: PLC0415  the class says why

        if structlog.is_configured():
            logger = structlog.get_logger()
        elif level in _UNASKED:
            logger = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
        else:
            return _say_nothing
        return partial(_say, getattr(logger, level))


def _say(write: Callable[..., object], event: str, **data: object) -> None:
    # A log is often kept on the disk that has just become full, and whoever reads a pipe may die:
    # neither is a reason for the writer of a database to stop.
    with suppress(OSError):
        write(event, **data)


def _say_nothing(_event: str, **_data: object) -> None:
    pass


log: Final = Logger()
