"""The mark of tests that watch or break system calls by strace."""

from __future__ import annotations

import pytest

from tests.torture.life import can_trace

# scripts/test installs strace, so in CI these run. A container may forbid ptrace all the same, and
# no test can allow it: there, kills at random moments remain, which need no strace.
traced = pytest.mark.skipif(
    not can_trace(), reason="strace is not installed, or may not trace here; other kills remain"
)
