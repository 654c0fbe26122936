"""Settings that every test runs under."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

# No test asserts a time, and a loaded machine is no failure: so no deadlines. CI runs the same
# examples every time, so that a red run is about the change; a developer's machine explores.
settings.register_profile("explore", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "explore")


@pytest.fixture(autouse=True)
def fresh_logs() -> Iterator[None]:
    """Undo what the command line configures: it runs in this process, and other tests listen."""
    yield
    structlog.reset_defaults()
