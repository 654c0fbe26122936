"""The program: reads the command line, runs one command, says in one sentence what went wrong."""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import sys
import traceback
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from exo_stream.cli import logs
from exo_stream.cli.arguments import parser
from exo_stream.cli.collector import collect_seldom
from exo_stream.cli.exit_codes import ERROR, INTERRUPTED, OK, USAGE, exit_code
from exo_stream.cli.output import Output
from exo_stream.cli.standard_error import say
from exo_stream.errors import ExoStreamError

Run = Callable[[Namespace, Output], Awaitable[int]]
"""A command: prints what it has to say, and answers with an exit code."""

MODULES: Final = {
    "serve": "serve",
    "demo": "demo",
    "put": "writes",
    "delete": "writes",
    "prune": "policies",
    "retention": "policies",
    "publish": "publish",
    "get": "reads",
    "scan": "reads",
    "batch": "reads",
    "info": "reads",
    "follow": "follow",
    "bench": "bench",
    "events": "canonical",
    "seal": "canonical",
    "unseal": "canonical",
    "pause": "canonical",
    "resume": "canonical",
    "verify": "files",
    "repair-wal": "files",
    "compact": "files",
    "projections": "projections",
    "backup": "backup",
    "restore": "backup",
    "backup-key": "backup",
    "prune-backups": "backup",
}
"""Where each command lives. Its module is imported when it runs: ``put`` needs no database."""

STAYS: Final = {"serve", "demo"}
"""Commands that a signal ends in good order, rather than in the middle."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` names, and return the program's exit code."""
    _hold_standard_streams()
    name, is_debug = "exo-stream", "--debug" in (sys.argv if argv is None else argv)
    try:
        args = parser().parse_args(argv)
        name = f"exo-stream {args.command}"
        logs.configure(args.log_level or _log_level(args.command))
        return _run(args)
    # The last resort: nobody is above us.
    except (Exception, SystemExit, KeyboardInterrupt, BaseExceptionGroup) as error:  # noqa: BLE001  nobody is above us
        if is_debug and not isinstance(error, SystemExit):
            say(traceback.format_exc().rstrip())
        return _explained(name, _leaf(error))


def _hold_standard_streams() -> None:
    """Give a standard stream that was closed (`>&-`) to the null device.

    The next file to be opened would take its number: the database, say, which is then printed to.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _log_level(command: str) -> str:
    """What is worth logging: a server's life; and a lost connection, to a person who waits."""
    waits = command in {"follow", "publish"} and sys.stderr.isatty()
    return "INFO" if command == "serve" or waits else "WARNING"


def _run(args: Namespace) -> int:
    run, out = _chosen(args.command), Output.standard(is_json=args.json)
    if args.command in STAYS:
        collect_seldom()
    if inspect.iscoroutinefunction(run):
        return trio.run(_until_signalled, run, args, out)
    code = run(args, out)  # one that has the process to itself
    assert isinstance(code, int), code
    return code


def _leaf(error: BaseException) -> BaseException:
    """What is inside groups of one: the error that somebody can do something about."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _explained(name: str, error: BaseException) -> int:
    """Say what happened, in one sentence, and return the exit code for it."""
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else USAGE
        case KeyboardInterrupt():
            return INTERRUPTED
        case BrokenPipeError():
            return OK  # whoever read our output has enough of it, as `head` has
        case ExoStreamError():
            sentence, code = str(error) or error.code, exit_code(error)
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            sentence, code = f"{place}{error.strerror or error}", ERROR
        case _:
            sentence = f"a bug: {type(error).__name__}: {error} (--debug shows where)"
            code = ERROR
    say(f"{name}: {' '.join(sentence.split())}")
    return code


async def _until_signalled(run: Run, args: Namespace, out: Output) -> int:
    """Run the command; SIGINT or SIGTERM cancels it, and a second one does not wait for that."""
    code, caught = OK, 0
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def watch(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                nonlocal caught
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    task_status.started()
                    caught = await anext(signals)
                scope.cancel()

            await nursery.start(watch)
            code = await run(args, out)
            nursery.cancel_scope.cancel()
    if caught and scope.cancelled_caught and args.command not in STAYS:
        return 128 + caught
    return code


def _chosen(command: str) -> Callable[[Namespace, Output], object]:
    """The function behind a command; what only it needs is imported only for it."""
    module = importlib.import_module(f"exo_stream.cli.{MODULES[command]}")
    run: Callable[[Namespace, Output], object] = getattr(module, command.replace("-", "_"))
    return run
