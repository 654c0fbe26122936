"""The commands that say what is kept: prune, retention. Their rules are JSON documents."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, fields

import trio

from exo_stream.cli.connection import connected
from exo_stream.cli.exit_codes import OK
from exo_stream.cli.output import Output
from exo_stream.cli.tables import print_table
from exo_stream.cli.wording import Json, counted, readable
from exo_stream.errors import InvalidRequestError
from exo_stream.policies.document import decode_policies, decode_retention, encode_retention
from exo_stream.policies.policy import GreaterThanOrEqual, Policy, SequenceScope
from exo_stream.policies.result import PruneCounts, PruneResult
from exo_stream.policies.retention import NO_RULES, LogRetention, RetentionState


async def prune(args: Namespace, out: Output) -> int:
    """Carry out the policies of a document, or evict the batches below the cutoff."""
    if args.policy is not None:
        document = await trio.Path(args.policy).read_bytes()
        return await _prune(args, decode_policies(document), out)
    if args.dry_run:
        below = Policy(SequenceScope(), GreaterThanOrEqual(args.cutoff))
        return await _prune(args, (below,), out)
    async with connected(args) as client:
        evicted = await client.prune_batch_log(args.cutoff)
    out.answer({"evicted": evicted}, str(evicted))
    return OK


async def _prune(args: Namespace, policies: Sequence[Policy], out: Output) -> int:
    async with connected(args) as client:
        result = await client.prune(policies, dry_run=args.dry_run)
    if out.is_json:
        out.object(
            {
                "dry_run": args.dry_run,
                "policies": [asdict(counts) for counts in result.policies],
                "sequences": list(result.sequences),
            }
        )
        return OK
    columns = ["policy", *(field.name.replace("_", " ") for field in fields(PruneCounts))]
    rows = [
        [str(number), *(f"{count:,}" for count in asdict(counts).values())]
        for number, counts in enumerate(result.policies, start=1)
    ]
    print_table(out, columns, rows)
    if out.is_terminal:
        out.line(_summary(result, is_dry=args.dry_run))
    return OK


def _summary(result: PruneResult, *, is_dry: bool) -> str:
    if is_dry:
        return "nothing was done: this was a dry run"
    if not result.sequences:
        return "no key was deleted"
    first, last = result.sequences[0], result.sequences[-1]
    through = f" to {last}" if last > first else ""
    batches = counted(len(result.sequences), "batch", "batches")
    return f"the deletions are {batches}: {first}{through}"


async def retention(args: Namespace, out: Output) -> int:
    """Say what the log keeps, after the rules were set or cleared if told to."""
    if (args.verb == "set") != (args.file is not None):
        raise InvalidRequestError("set needs the FILE of rules, and nothing else takes one")
    rules = NO_RULES
    if args.file is not None:
        rules = decode_retention(await trio.Path(args.file).read_bytes())
    async with connected(args) as client:
        if args.verb is None:
            state = await client.retention()
        else:
            state = await client.set_retention(rules)
    if out.is_json:
        out.object(_object(state))
    else:
        _print(state, out)
    return OK


def _object(state: RetentionState) -> Json:
    return {
        "stored": _rules(state.stored),
        "in_force": _rules(state.in_force),
        "source": state.source,
        "problem": state.problem,
        "oldest_retained": state.oldest_retained,
    }


def _rules(rules: LogRetention) -> Json:
    """The rules as their document has them."""
    found: dict[str, Json] = json.loads(encode_retention(rules) or b"{}")
    return found.get("retention", {})


def _print(state: RetentionState, out: Output) -> None:
    oldest = "-" if state.oldest_retained is None else f"{state.oldest_retained:,}"
    out.line(f"stored    {_line(state.stored)}")
    if state.source == "option":
        out.line(f"in force  {_line(state.in_force)} (the server was started with these)")
    out.line(f"oldest    {oldest}")
    if state.problem is not None:
        out.line(f"problem   {readable(state.problem.encode())}")


def _line(rules: LogRetention) -> str:
    return "everything" if rules == NO_RULES else json.dumps(_rules(rules))
