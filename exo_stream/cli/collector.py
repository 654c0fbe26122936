"""The garbage collector of a program that stays: it looks seldom, and not at what was imported."""

from __future__ import annotations

import atexit
import gc
from typing import Final

ALLOCATIONS: Final = 50_000
"""New containers between two looks at the young ones; Python's own 700 are a few puts."""
MIDDLE, OLD = 20, 100
"""How many looks at a younger generation come before one at the next."""


def collect_seldom() -> None:
    """Collect as a server should, from now on.

    A memtable, a tail and a thousand connections are a million containers that live long and
    have no cycles. Looking through them as often as Python does is a fifth of an ingest's
    processor time, and now and then a pause of a third of a second.
    """
    gc.collect()
    gc.freeze()
    # What is frozen is not torn down at the end, and DuckDB calls that a leak, on standard error.
    atexit.register(gc.unfreeze)
    gc.set_threshold(ALLOCATIONS, MIDDLE, OLD)
