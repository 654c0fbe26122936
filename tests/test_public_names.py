"""The public names: what is exported is listed, exists, and is all there is to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import exo_stream


def test_the_exported_names_are_the_listed_ones_in_order() -> None:
    assert exo_stream.__all__ == sorted(exo_stream.__all__)
    for name in exo_stream.__all__:
        assert hasattr(exo_stream, name), name


def test_every_public_name_explains_itself() -> None:
    unexplained = [
        name
        for name in exo_stream.__all__
        if not getattr(getattr(exo_stream, name), "__doc__", None)
    ]
    assert unexplained == []


def test_there_are_few_enough_names_to_remember() -> None:
    assert len(exo_stream.__all__) <= 40


@pytest.mark.slow
def test_importing_it_starts_nothing_and_leaves_logging_alone() -> None:
    code = (
        "import threading, exo_stream, structlog;"
        "assert threading.active_count() == 1;"
        "assert not structlog.is_configured()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
