"""A run: blocks whose key ranges do not overlap, from one fold or one merge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Blocks in key order; in ``runs`` of a Version the newer run always has the newer rows."""
