"""The commands for a file that no server has open: verify, repair-wal, compact.

They are plain functions: nothing else happens meanwhile, and a Ctrl-C ends them where they are.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Final

from exo_stream.canonical.verify import CanonicalCheck
from exo_stream.cli.exit_codes import ERROR, OK
from exo_stream.cli.output import Output
from exo_stream.cli.standard_error import say
from exo_stream.cli.wording import counted, size
from exo_stream.storage import repair, rewrite
from exo_stream.storage.findings import Report
from exo_stream.storage.repair import WalVerdict
from exo_stream.storage.verify import verify as verified
from exo_stream.streams.verify import StreamCheck

FACES: Final = (StreamCheck, CanonicalCheck)
"""The faces whose rows are checked besides."""


def verify(args: Namespace, out: Output) -> int:
    """Say what was read and every contradiction in it; an error if there is one."""
    if Path(args.file).is_dir():
        from exo_stream.cli.backup import verify_backup  # noqa: PLC0415  only for a directory

        return verify_backup(args, out)
    report = verified(args.file, faces=FACES)
    if out.is_json:
        out.object(
            {
                **asdict(report),
                "findings": [asdict(f) for f in report.findings],
                "notes": [*report.notes],
            }
        )
    else:
        _print_report(report, out)
    return OK if report.sound else ERROR


def _print_report(report: Report, out: Output) -> None:
    for finding in report.findings:
        out.line(f"{finding.where}: {finding.sentence}")
    if report.more:
        out.line(f"and {report.more:,} more")
    for note in report.notes:
        out.line(f"note: {note}")
    if not report.log_id:
        out.line(f"{report.path} is damaged: nothing more of it can be read")
        return
    held = (
        f"{counted(report.batches, 'batch', 'batches')}"
        + (f" ({report.floor} to {report.newest})" if report.batches else "")
        + f", {counted(report.rows, 'row', 'rows')} in {counted(report.blocks, 'block', 'blocks')}"
    )
    out.line(f"{report.path} is {'sound' if report.sound else 'damaged'}: {held}")


def repair_wal(args: Namespace, out: Output) -> int:
    """Say how the write-ahead log is, and what was done; an error while it is still damaged."""
    report = repair.repair_wal(args.file, apply=args.apply)
    if out.is_json:
        out.object({**asdict(report), "verdict": report.verdict.value, "copies": [*report.copies]})
    else:
        out.line(f"{report.verdict.value.replace('_', ' ')}: {report.reason}")
        for copy in report.copies:
            out.line(f"copy kept: {copy}")
        if report.verdict is WalVerdict.REPAIRABLE:
            say(f"nothing was changed; to repair it: exo-stream repair-wal --apply {args.file}")
    return OK if report.verdict in {WalVerdict.SOUND, WalVerdict.REPAIRED} else ERROR


def compact(args: Namespace, out: Output) -> int:
    """Write the copy, and say what was gained."""
    done = rewrite.compact(args.file, args.out)
    before, after = size(done.bytes_before), size(done.bytes_after)
    out.answer(
        {
            "path": done.path,
            "out": done.out,
            "bytes_before": done.bytes_before,
            "bytes_after": done.bytes_after,
        },
        f"{done.out}: {after}, from {before}; verified, the same log, and every cursor is valid",
    )
    return OK
