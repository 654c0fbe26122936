"""What the command line accepts: one function a command, and how its words become values."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Final, NoReturn

from exo_stream.cli.backup_arguments import add_backups
from exo_stream.cli.canonical_arguments import add_canonical
from exo_stream.cli.exit_codes import USAGE
from exo_stream.cli.projection_arguments import add_projections
from exo_stream.cli.public_url import public_url
from exo_stream.cli.selecting import match_key, value_filter
from exo_stream.cli.standard_error import say
from exo_stream.cli.wording import from_argument
from exo_stream.limits import MIB, Limits
from exo_stream.model import SEQUENCE_MAX

VERSION: Final = "0.1.0"
"""The package's, as in pyproject.toml. To ask for the installed one's would be slow to import."""

URL: Final = "ws://127.0.0.1:4437/v1/ws"
"""Where ``serve`` listens by default."""

DEMO_FILE: Final = "exo-demo.duckdb"

BATCH_BYTES_MAX: Final = 256 * MIB
"""As far as ``Limits.batch_bytes_max`` may be raised."""

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

_EXIT_CODES: Final = "Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 unavailable."
_BYTES: Final = "UTF-8 text, or base64:… for other bytes"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence; takes no abbreviations, which a later version breaks."""

    def __init__(self, **options: object) -> None:
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]  # passed through

    def error(self, message: str) -> NoReturn:
        """Exit with USAGE."""
        # Not by exit(message): before Python 3.11.3 that fails where standard error is a full disk.
        say(f"{self.prog}: {message}; see: {self.prog} --help")
        self.exit(USAGE)


class Address(tuple[str, int]):
    """A host and a port to listen on."""

    __slots__ = ()

    def __str__(self) -> str:
        host, port = self
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address(word: str) -> Address:
    """``HOST:PORT``, an IPv6 host in brackets; port 0 is any free one."""
    host, colon, port = word.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{word!r} is not HOST:PORT")
    if not host:
        # Elsewhere this means every address of the machine: too much to open by leaving out a word.
        raise argparse.ArgumentTypeError(
            f"{word!r} names no host: 127.0.0.1{word} for this machine only,"
            f" 0.0.0.0{word} for everybody"
        )
    return Address((host.removeprefix("[").removesuffix("]"), int(port)))


def limit(word: str) -> tuple[str, int]:
    """``NAME=VALUE``: one field of ``Limits``, and a whole number for it."""
    name, _, value = word.partition("=")
    if name not in {field.name for field in fields(Limits)}:
        near = get_close_matches(name, [field.name for field in fields(Limits)], n=1)
        hint = f"; perhaps {near[0]}" if near else ""
        raise argparse.ArgumentTypeError(f"there is no limit {name!r}{hint}")
    if not value.isdecimal() or not 1 <= int(value) <= SEQUENCE_MAX:
        raise argparse.ArgumentTypeError(f"{name} is a number from 1 on, not {value!r}")
    if name == "batch_bytes_max" and int(value) > BATCH_BYTES_MAX:
        raise argparse.ArgumentTypeError(f"{name} may be {BATCH_BYTES_MAX} at most")
    return name, int(value)


def number_from(least: int, most: int = SEQUENCE_MAX) -> Callable[[str], int]:
    """What reads a whole number between two bounds."""

    def number(word: str) -> int:
        if not word.isdecimal() or not least <= int(word) <= most:
            raise argparse.ArgumentTypeError(f"{word!r} is not a number from {least} on")
        return int(word)

    return number


def seconds(word: str) -> float:
    """A positive number of seconds."""
    try:
        value = float(word)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{word!r} is not a positive number of seconds")
    return value


def moment(word: str) -> datetime:
    """A time in ISO 8601, the local zone if none is named, or so long ago, as ``15m``."""
    try:
        if word[:-1].isdecimal() and word[-1] in _UNITS:
            return datetime.now(UTC) - timedelta(**{_UNITS[word[-1]]: int(word[:-1])})
        return datetime.fromisoformat(word).astimezone()
    except (ValueError, OverflowError):  # an age may reach back further than the calendar
        raise argparse.ArgumentTypeError(
            f"{word!r} is neither a time such as 2026-11-21T17:00 nor an age such as 15m"
        ) from None


def requirement(word: str) -> int | str:
    """What must hold of a key: ``absent``, ``present`` or a version."""
    if word in {"absent", "present"}:
        return word
    if word.isdecimal() and int(word) <= SEQUENCE_MAX:
        return int(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not absent, present or a version")


def parser() -> Parser:
    """The whole command line."""
    whole = Parser(
        prog="exo-stream",
        description="An event log and a key-value table in one DuckDB file: "
        "read the current state, then follow every change from the same cursor.",
        epilog=_EXIT_CODES,
        parents=[_shared()],
    )
    whole.add_argument("--version", action="version", version=f"exo-stream {VERSION}")
    url = os.environ.get("EXO_STREAM_URL") or URL
    whole.set_defaults(json=False, debug=False, log_level="", url=url, patience=None)
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, *, description: str = "") -> Parser:
        # Options of its own: set_defaults gave the others defaults, which here would undo what
        # stood before the command.
        added: Parser = commands.add_parser(
            name, help=summary, description=description or f"{summary}.", parents=[_shared()]
        )
        return added

    _serving(command)
    _demo(command)
    _writing(command)
    _reading(command)
    _following(command)
    add_canonical(command, number_from(0), number_from(1))
    add_projections(command, number_from(0), number_from(1, 1_000))
    _files(command)
    return whole


def _shared() -> Parser:
    """Options that may stand before the command or after it."""
    shared = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument(
        "--url", help=f"the server; by default EXO_STREAM_URL, or {URL}", metavar="URL"
    )
    shared.add_argument("--json", action="store_true", help="print one JSON object a line")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    shared.add_argument(
        "--log-level",
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        type=str.upper,
        help="what is logged to standard error",
    )
    return shared


AddCommand = Callable[..., Parser]


def _serving(command: AddCommand) -> None:
    serve = command("serve", "Serve a file")
    serve.add_argument("file", metavar="FILE", help="made if it does not exist")
    _listening(serve)
    serve.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a browser origin that may connect, such as https://example.com; '*' opens to all",
    )
    serve.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name in the Host header to answer to, besides addresses and localhost",
    )
    _streams(serve)
    kept = serve.add_argument_group("retention", "what the log keeps; everything by default")
    kept.add_argument("--retention-batches", type=number_from(1), metavar="N")
    kept.add_argument("--retention-seconds", type=number_from(1), metavar="N")
    kept.add_argument("--retention-bytes", type=number_from(1), metavar="N")


def _demo(command: AddCommand) -> None:
    demo = command(
        "demo",
        "Publish this machine's telemetry and follow it, in one process",
        description="Open a file, serve it, publish this machine's telemetry into it "
        "once a second, and follow it here.",
    )
    demo.add_argument("file", nargs="?", default=DEMO_FILE, metavar="FILE")
    _listening(demo)
    demo.add_argument("--count", type=number_from(1), metavar="N", help="end after N batches")
    demo.add_argument("--seconds", type=seconds, metavar="N", help="end after N seconds")
    demo.add_argument(
        "--interval", type=seconds, default=1.0, metavar="N", help="seconds between two readings"
    )


def _streams(serve: Parser) -> None:
    streams = serve.add_argument_group("streams", "how /v1/stream/ is served")
    streams.add_argument(
        "--long-poll",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long a long-poll is held; 30 by default",
    )
    streams.add_argument(
        "--stream-caches",
        choices=["private", "public"],
        default="private",
        help="who may keep pages that were read: the reader, or also caches that serve others",
    )
    streams.add_argument(
        "--stream-rate",
        type=number_from(1),
        metavar="N",
        help="requests that one address may make in a second; by default as many as it likes",
    )
    streams.add_argument(
        "--public-url",
        type=public_url,
        metavar="URL",
        help="how others reach this server, for webhooks to call back; by default by the name or"
        " address by which whoever subscribed did",
    )
    streams.add_argument(
        "--webhook-loopback",
        action="store_true",
        help="let webhooks go to this machine, over plain HTTP too: for development",
    )
    serve.add_argument(
        "--limit",
        type=limit,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another bound than the default, such as connections_max=500; the names are those"
        " of exo_stream.Limits",
    )


def _listening(parser: Parser) -> None:
    parser.add_argument(
        "--listen",
        type=address,
        default=Address(("127.0.0.1", 4437)),
        metavar="HOST:PORT",
        help="where to listen; 127.0.0.1:4437 by default, port 0 is any free one",
    )


def _writing(command: AddCommand) -> None:
    put = command("put", "Write a value", description=f"Write a value. Key and value: {_BYTES}.")
    put.add_argument("key", type=from_argument, metavar="KEY")
    put.add_argument("value", type=from_argument, metavar="VALUE")
    delete = command("delete", "Delete keys, all in one batch")
    delete.add_argument("keys", type=from_argument, nargs="+", metavar="KEY", help=_BYTES)
    for writing in (put, delete):
        writing.add_argument(
            "--require",
            type=requirement,
            metavar="absent|present|VERSION",
            help="write only if this holds of each key, else exit with 4",
        )
    publish = command(
        "publish",
        "Write each line of standard input",
        description="Write each line of standard input as an entry, in batches: "
        "at once from a live pipe, many together from a file.",
    )
    publish.add_argument(
        "--prefix", type=from_argument, default=b"", help="begins every key, such as dpkg/"
    )
    publish.add_argument(
        "--key-field",
        metavar="NAME",
        help="lines are JSON objects, and this field is the rest of the key; "
        "otherwise it is the time publishing began, and the line's number",
    )
    _patient(publish)
    _pruning(command)


def _pruning(command: AddCommand) -> None:
    prune = command(
        "prune",
        "Let go of old batches, or of keys and batches by policies",
        description="Let go of every batch below a sequence number, the table stays; or delete "
        "the keys and batches that policies do not keep.",
    )
    what = prune.add_mutually_exclusive_group(required=True)
    what.add_argument("cutoff", nargs="?", type=number_from(0), metavar="CUTOFF")
    what.add_argument("--policy", metavar="FILE", help="a JSON document of policies")
    prune.add_argument("--dry-run", action="store_true", help="only count what would go")
    retention = command(
        "retention",
        "Print or change what the log keeps",
        description="Print what the log keeps; set: store the rules of a JSON document in the "
        "served file; clear: keep everything from now on.",
    )
    retention.add_argument("verb", nargs="?", choices=["set", "clear"])
    retention.add_argument("file", nargs="?", metavar="FILE")


def _patient(parser: Parser) -> None:
    parser.add_argument(
        "--patience",
        type=seconds,
        metavar="SECONDS",
        help="how long to try again when the server is not there, or goes away; by default it must"
        " be there at first, and then 60",
    )


def _reading(command: AddCommand) -> None:
    get = command("get", "Print a value")
    get.add_argument("key", type=from_argument, metavar="KEY", help=_BYTES)
    scan = command("scan", "Print keys and values in key order, at one sequence")
    scan.add_argument("--start", type=from_argument, default=b"", help="the first key, inclusive")
    scan.add_argument("--end", type=from_argument, default=b"", help="the last key, inclusive")
    scan.add_argument("--prefix", type=from_argument, default=b"")
    scan.add_argument("--limit", type=number_from(0), metavar="N")
    scan.add_argument("--reverse", action="store_true", help="from the last key to the first")
    scan.add_argument(
        "--reduce",
        metavar="SPEC",
        help="print counts, sums or extremes instead, as a JSON object says, or a file of one",
    )
    batch = command("batch", "Print one batch of the log")
    batch.add_argument("sequence", type=number_from(0), metavar="SEQ")
    command("info", "Print what the log holds, and how large things are")


def _following(command: AddCommand) -> None:
    follow = command(
        "follow",
        "Print every batch, then every new one",
        description="Print every batch from a start on (the oldest, if none is given), "
        "then every new one.",
    )
    _choosing(follow)
    follow.add_argument(
        "--cursor-file",
        metavar="FILE",
        help="resume from the cursor in this file, and save it there after each batch was printed",
    )
    follow.add_argument("--count", type=number_from(1), metavar="N", help="end after N batches")
    _patient(follow)
    start = follow.add_mutually_exclusive_group()
    start.add_argument("--snapshot", action="store_true", help="first the table, then what follows")
    start.add_argument("--after", metavar="CURSOR", help="the batches after this cursor")
    start.add_argument("--from-sequence", type=number_from(0), metavar="N")
    start.add_argument("--start", choices=["oldest", "now"])
    start.add_argument("--last", type=number_from(0), metavar="N", help="N sequence numbers back")
    start.add_argument(
        "--since", type=moment, metavar="TIME", help="2026-11-21T17:00, or so long ago: 15m"
    )
    bench = command(
        "bench",
        "Measure a server from here",
        description="Measure a server from here: small durable writes, large ones, reads, and "
        "how long a follower waits. Keys under bench/ are written, and deleted again; "
        "the log keeps both.",
    )
    bench.add_argument("--seconds", type=seconds, default=3.0, metavar="N", help="for each row")
    bench.add_argument("--tasks", type=number_from(1, 1024), default=64, metavar="N")


def _choosing(follow: Parser) -> None:
    chosen = follow.add_argument_group(
        "entries",
        "which to print; of --match and of --value one must hold, of the others all. Regexes match "
        "anywhere, in the dialect of Rust's regex::bytes",
    )
    chosen.add_argument("--prefix", type=from_argument, default=b"", help="only keys that begin so")
    chosen.add_argument("--stream", metavar="NAME", help="no keys, but this stream")
    chosen.add_argument(
        "--stream-prefix", metavar="P", help="no keys, but the streams whose names begin so"
    )
    chosen.add_argument(
        "--match",
        type=match_key,
        action="append",
        metavar="BITS:PREFIX:REGEX",
        help="keys whose first BITS (0 to 16) are the number PREFIX (10, 0xa, 0b1010), and whose "
        "other bytes match: 0:0:^user/ or 4:0xa:(?s-u)^.{8}$",
    )
    chosen.add_argument(
        "--value",
        type=value_filter,
        action="append",
        metavar="KIND:WHAT",
        help=f"values that pass: exact:VALUE, prefix:VALUE or regex:REGEX; VALUE is {_BYTES}. "
        "No deletion passes",
    )


def _files(command: AddCommand) -> None:
    verify = command(
        "verify",
        "Check every invariant of a file that nobody has open, or every byte of a backup",
    )
    verify.add_argument("file", metavar="FILE", help="or the directory of a backup")
    verify.add_argument("--key-file", metavar="KEY", help="what an encrypted backup was taken with")
    repair = command(
        "repair-wal",
        "Look at a damaged write-ahead log, and repair it if told to",
        description="Look at a damaged write-ahead log. With --apply, cut off a torn last "
        "transaction; copies of both files are kept.",
    )
    repair.add_argument("file", metavar="FILE")
    repair.add_argument("--apply", action="store_true", help="do it; otherwise only look")
    compact = command("compact", "Write a small copy of a file that nobody has open")
    compact.add_argument("file", metavar="FILE")
    compact.add_argument("out", metavar="OUT", help="must not exist yet")
    add_backups(command, number_from, moment)
