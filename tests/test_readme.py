"""The README keeps to what it promises its reader; that its blocks run is checked by test_docs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT, Block, blocks

README = ROOT / "README.md"
TEXT = README.read_text()
PYTHON, CONSOLE = "python", "console"


def examples() -> list[Block]:
    """The blocks that show how to use it: three programs and a terminal."""
    return [block for block in blocks(README) if block.language == PYTHON] + [
        block for block in blocks(README) if "exo-stream serve" in block.text
    ]


def test_there_are_three_examples_of_ten_lines_and_a_transfer() -> None:
    ten_lines = [block for block in examples() if "transfer" not in block.text]
    assert (len(ten_lines), len(examples())) == (3, 4)
    for block in ten_lines:
        lines = [line for line in block.text.splitlines() if line.strip()]
        assert 8 <= len(lines) <= 11, block.place


def test_the_two_commands_come_first_and_exist() -> None:
    first = next(blocks(README))
    assert first.text.splitlines() == ["$ ./scripts/run", "$ ./scripts/test"]


def test_the_reading_list_names_files_that_exist_in_the_order_of_the_layers() -> None:
    reading = TEXT.partition("## Reading the source")[2].partition("\n## ")[0]
    named = re.findall(r"`(exo_stream/[\w/]+\.py)`", reading)
    assert len(named) >= 12
    assert [path for path in named if not (ROOT / path).is_file()] == []
    assert named[0].endswith("model.py")
    assert named[-1].endswith("cli/program.py")


@pytest.mark.slow
def test_the_exit_codes_are_those_of_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "exo_stream", "--help"], capture_output=True, text=True, check=True
    )
    codes = re.search(r"0 ok, .*?5 unavailable", TEXT)
    assert codes
    assert codes[0] in " ".join(done.stdout.split())


@pytest.mark.parametrize("page", ["guarantees", "operations", "embedding", "protocol"])
def test_it_leads_to_the_documentation(page: str) -> None:
    assert f"(docs/{page}.md)" in TEXT
    assert Path(ROOT / "docs" / f"{page}.md").exists()
