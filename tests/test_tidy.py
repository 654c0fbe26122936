"""Checks on the code itself that no linter makes; docs/testing.md gives the reasons."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exo_stream"
FOLDERS = (PACKAGE, ROOT / "tests", ROOT / "scripts")
MODULES = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))
PROGRAMS = sorted(
    path
    for path in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]
    if path.suffix == "" and path.is_file()
)
FUNCTION_LINES_MAX = 50
FILE_LINES_MAX = 500
NAMES_NOTHING = {"base", "common", "core", "helpers", "manager", "misc", "types", "utils"}

# The words are put together here, so that this file passes its own check.
INDEX_HOSTS = ("py" + "pi.org", "python" + "hosted.org", "crates" + ".io", "npm" + "js.org")
INDEX_OPTIONS = ("--index" + "-url", "--extra-index" + "-url", "--find" + "-links", "/simple" + "/")
MACHINE_FOLDERS = ("home", "opt", "root", "Users", "work")
BELONGS_TO_A_MACHINE = re.compile(
    "|".join(map(re.escape, INDEX_HOSTS + INDEX_OPTIONS))
    + r"|(?<![\w.}/~-])/(?:"
    + "|".join(MACHINE_FOLDERS)
    + r")/\w"
)
"""What is true of one machine or one network only, and so belongs in nobody's checkout."""


def complaints(path: Path) -> Iterator[str]:
    source = path.read_text()
    tree = ast.parse(source)
    first_line = (ast.get_docstring(tree) or "").partition("\n")[0]
    if not first_line.endswith((".", "!")):
        yield "its docstring does not begin with a sentence"
    if source.count("\n") > FILE_LINES_MAX:
        yield f"longer than {FILE_LINES_MAX} lines"
    if path.stem in NAMES_NOTHING:
        yield "its name says nothing"
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno >= FUNCTION_LINES_MAX:
                    yield f"{node.name} is longer than {FUNCTION_LINES_MAX} lines"
            case ast.ClassDef(bases=bases) if len(bases) > 1:
                yield f"{node.name} has more than one base"
            case ast.Attribute(attr=("skip" | "skipif" | "xfail") as mark):
                if not has_reason(tree, node):
                    yield f"line {node.lineno}: {mark} without a reason"
            case _:
                pass


def has_reason(tree: ast.Module, mark: ast.Attribute) -> bool:
    """Whether ``pytest.skip`` and its kin are called with a sentence that says why."""
    if ast.unparse(mark) not in {
        "pytest.skip",
        "pytest.xfail",
        "pytest.mark.skip",
        "pytest.mark.skipif",
        "pytest.mark.xfail",
    }:
        return True  # something else of that name
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and call.func is mark:
            named = any(keyword.arg == "reason" for keyword in call.keywords)
            return named or (bool(call.args) and mark.attr == "skip")
    return False


def tracked_files() -> list[Path]:
    """Everything that others will read: what git tracks, or what an unpacked archive holds."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode == 0:
        found = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        folders = ("exo_stream", "tests", "docs", "requirements", "scripts")
        found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return [path for path in found if path.is_file()]


def particulars(path: Path) -> list[str]:
    """The words in ``path`` that are true of one machine or network only."""
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return []  # a picture
    return BELONGS_TO_A_MACHINE.findall(text)


@pytest.mark.slow  # each of them is quick, all of them are not
@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tidy(path: Path) -> None:
    assert list(complaints(path)) == []


def test_nothing_names_a_package_index_or_a_machine() -> None:
    named = {str(path.relative_to(ROOT)): particulars(path) for path in tracked_files()}
    assert {path: words for path, words in named.items() if words} == {}


@pytest.mark.parametrize("name", ["setup", "run", "dev"])
def test_every_locked_package_has_its_version_and_hashes(name: str) -> None:
    locked = (ROOT / "requirements" / f"{name}.txt").read_text()
    packages = re.findall(r"^(?!\s|#).+(?:\n\s+--hash=.+)*", locked, flags=re.MULTILINE)
    assert packages
    for package in packages:
        assert re.match(r"[\w.-]+==[\w.]+", package), package
        assert "--hash=sha256:" in package, package


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program_can_be_run_as_it_is(path: Path) -> None:
    source = path.read_text()
    assert path.stat().st_mode & 0o111, "not executable"
    assert source.startswith("#!/usr/bin/env "), "names no interpreter"
    if "bash" in source.partition("\n")[0]:
        subprocess.run(["bash", "-n", path], check=True)
        assert "\nset -euo pipefail\n" in source, "goes on after an error"


def test_tidy_complains(tmp_path: Path) -> None:
    untidy = tmp_path / "utils.py"
    untidy.write_text(
        "class C(A, B):\n  def f(self):\n"
        + "    pass\n" * FILE_LINES_MAX
        + "pytest.mark.skip\npytest.skip('why')\npytest.mark.xfail(strict=True)\nio.skip(3)\n"
    )
    assert list(complaints(untidy)) == [
        "its docstring does not begin with a sentence",
        f"longer than {FILE_LINES_MAX} lines",
        "its name says nothing",
        "C has more than one base",
        f"f is longer than {FUNCTION_LINES_MAX} lines",
        f"line {FILE_LINES_MAX + 3}: skip without a reason",
        f"line {FILE_LINES_MAX + 5}: xfail without a reason",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("see https://" + INDEX_HOSTS[0] + "/project", 1, id="an index"),
        pytest.param("pip install " + INDEX_OPTIONS[0] + " X", 1, id="an option that names one"),
        pytest.param('open("/' + 'home/ada/feed.duckdb")', 1, id="somebody's home"),
        pytest.param(
            "GET /v1/" + "work/items, ~/home/x, /tmp/feed.duckdb", 0, id="only look like it"
        ),
    ],
)
def test_what_belongs_to_a_machine_is_found(tmp_path: Path, text: str, found: int) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert len(particulars(page)) == found


def test_a_picture_is_not_searched(tmp_path: Path) -> None:
    picture = tmp_path / "plot.png"
    picture.write_bytes(b"\x89PNG\xff/" + b"home/ada")
    assert particulars(picture) == []
