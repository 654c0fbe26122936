"""The commands for a file that no server has open: verify, repair-wal, compact."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

import trio

from exo_stream.cli.exit_codes import ERROR, OK
from exo_stream.cli.output import Output
from exo_stream.cli.wording import size
from exo_stream.storage.repair import WalReport, WalVerdict
from exo_stream.storage.repair import repair_wal as repair


async def repair_wal(args: Namespace, out: Output) -> int:
    """Say how the write-ahead log is, and what was done; an error while it is still damaged."""
    report: WalReport = await trio.to_thread.run_sync(lambda: repair(args.file, apply=args.apply))
    if out.is_json:
        out.object({**asdict(report), "verdict": report.verdict.value, "copies": [*report.copies]})
    else:
        out.line(f"{report.verdict.value.replace('_', ' ')}: {report.reason}")
        out.line(
            f"{report.transactions} whole transactions in {size(report.kept_bytes)}"
            f" of {size(report.wal_bytes)}"
        )
        for copy in report.copies:
            out.line(f"copy kept: {copy}")
        if report.verdict is WalVerdict.REPAIRABLE:
            out.line(
                f"nothing was changed; repair it with: exo-stream repair-wal --apply {args.file}"
            )
    return OK if report.verdict in {WalVerdict.SOUND, WalVerdict.REPAIRED} else ERROR
