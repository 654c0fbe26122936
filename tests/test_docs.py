"""The documentation keeps its word: every block of every page is run, or else checked.

How a page is run:

- ``python`` blocks are programs: each runs alone, in an empty folder, and must exit with 0.
- ``console`` blocks are a terminal session, the whole page in one folder: lines that begin with
  ``$ `` are run, and the lines below must appear in what they print, in order (``…`` is anything).
  A command that has shown everything but does not end, a ``follow`` say, gets a Ctrl-C.
- ``exo-stream serve`` runs until the page ends, another ``serve`` begins, or a command needs the
  file (``verify``, ``compact``, ``repair-wal``). A page that names none but needs one is given one.
- The port 4437 is replaced by a free one, in blocks and in ``EXO_STREAM_URL``.
- Setting up (``./scripts/…``, ``just …``, ``git clone``) is checked to exist, and not run.

A comment on the line above a block changes that: ``<!-- check: until TEXT -->`` (stop a program
once it has printed TEXT), ``<!-- check: exits 3 -->`` (of the last command) and
``<!-- check: not run, REASON -->``.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.pages import NEVER_RUN, ROOT, Block, blocks, commands, open_terminal, shows

PAGES = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.exists()
]
BLOCKS = [block for page in PAGES for block in blocks(page)]
TEST_NAMED = re.compile(r"`(tests/test_\w+\.py)::(\w+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?:|#|mailto:)([^)#\s]+)")
DIAGRAMS = ("flowchart", "graph", "sequenceDiagram", "stateDiagram", "classDiagram")


def squeezed(text: str) -> str:
    return " ".join(text.split())


def check_source(block: Block) -> None:
    """What can be said of a block without running it."""
    match block.language.partition(" ")[0]:
        case "python":
            compile(block.text, block.place, "exec")
        case "console":
            for command, _ in commands(block):
                check_command(command)
        case "json":
            for value in (
                [block.text] if block.text.startswith(("{\n", "[\n")) else block.text.splitlines()
            ):
                json.loads(value)
        case "toml":
            tomllib.loads(block.text)
        case "cddl":
            schema = (ROOT / "docs" / "protocol.cddl").read_text()
            assert squeezed(block.text) in squeezed(schema), "not a quotation of protocol.cddl"
        case "sh" | "bash":
            subprocess.run(["bash", "-n", "-c", block.text], check=True)
        case "mermaid":
            assert block.text.lstrip().startswith(DIAGRAMS), "not a diagram we draw"
        case "text" | "http" | "ini":
            assert block.text.strip(), "empty"
        case "":
            pytest.fail(f"{block.place}: a block names its language; `text` if it has none")
        case directive if directive.startswith("{"):
            pass  # MyST's own; the documentation build judges it
        case other:
            pytest.fail(f"{block.place}: nothing here knows how to check {other}")


def check_command(command: str) -> None:
    """That what we do not run is there to be run."""
    if not NEVER_RUN.match(command):
        return
    words = command.split()
    if words[0].startswith("./scripts/"):
        assert (ROOT / words[0]).stat().st_mode & 0o111, f"{words[0]} is not executable"
    if words[0] == "just" and len(words) > 1:
        assert re.search(rf"^{words[1]}\b.*:", (ROOT / "justfile").read_text(), re.MULTILINE), words


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_block_is_well_formed(block: Block) -> None:
    check_source(block)
    reason = block.remarked("not run,")
    assert reason is None or len(reason.split()) > 2, "say why it is not run"
    assert not block.remark or any(map(block.remarked, ("not run,", "until", "exits")))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name)
async def test_every_example_does_what_its_page_says(page: Path, tmp_path: Path) -> None:
    async with open_terminal(tmp_path) as terminal:
        for block in blocks(page):
            if block.remarked("not run,"):
                continue
            if block.language == "python":
                await terminal.python(block)
            elif block.language == "console":
                await terminal.console(block)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    broken = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_test_a_page_names_exists(page: Path) -> None:
    for file, test in TEST_NAMED.findall(page.read_text()):
        source = (ROOT / file).read_text()
        assert re.search(rf"^\s*(async )?(def|class) {test}\b", source, re.MULTILINE), (file, test)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_test_file_a_page_names_exists(page: Path) -> None:
    for pattern in re.findall(r"`(?:tests/)?(test_[\w*]+\.py)`", page.read_text()):
        assert list((ROOT / "tests").glob(pattern)), pattern


SESSION = """\
Words.

<!-- check: exits 3 -->
```console
$ echo one \\
>     two
one …
$ exit 3
```

  ~~~python
  print(1)
  ~~~
<!-- check: until 2 -->

Words between forget the remark.

````text
```
````
"""


def test_blocks_are_found_as_markdown_means_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(SESSION)
    console, python, text = blocks(page)
    assert (console.language, console.line, console.remarked("exits")) == ("console", 4, "3")
    assert list(commands(console)) == [("echo one two", ["one …"]), ("exit 3", [])]
    assert (python.language, python.text, python.remark) == ("python", "print(1)", "")
    assert (text.language, text.text, text.remark) == ("text", "```", "")


@pytest.mark.slow
async def test_a_page_is_run_as_its_reader_would(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    endless = "```console\n$ echo begun; sleep 1000\nbe…n\n```\n"
    until = "<!-- check: until 7 -->\n```python\nprint(7)\nwhile True: pass\n```\n"
    page.write_text(SESSION + endless + until)
    console, _, _, forever, program = blocks(page)
    async with open_terminal(tmp_path) as terminal:
        await terminal.console(console)
        await terminal.console(forever)
        await terminal.python(program)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("```console\n$ false\n```\n", id="exits with an error"),
        pytest.param("```console\n$ echo one\ntwo\n```\n", id="prints something else"),
        pytest.param("<!-- check: exits 3 -->\n```console\n$ true\n```\n", id="succeeds"),
        pytest.param("```console\ntrue\n```\n", id="has no command"),
    ],
)
async def test_a_page_that_is_wrong_is_found_out(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    [block] = blocks(page)
    failed = False
    async with open_terminal(tmp_path) as terminal:
        try:
            await terminal.console(block)
        except AssertionError:
            failed = True
    assert failed


@pytest.mark.parametrize(
    ("output", "expected", "shown"),
    [
        pytest.param("a  b\nc\n", ["a b", "c"], True, id="but for white space"),
        pytest.param("noise\na\nnoise\nc", ["a", "c"], True, id="among other lines"),
        pytest.param("c\na\n", ["a", "c"], False, id="in another order"),
        pytest.param("log 7f3a at 1\n", ["log … at 1"], True, id="with something left out"),
        pytest.param("aa\n", ["a"], False, id="the whole line"),
    ],
)
def test_output_is_compared_as_a_reader_would(
    output: str, expected: list[str], *, shown: bool
) -> None:
    assert shows(output, expected) is shown


@pytest.mark.parametrize(
    ("language", "text"),
    [
        pytest.param("python", "await (", id="python"),
        pytest.param("json", '{"a": 1}\n{"a"', id="json, a value a line"),
        pytest.param("toml", "a =", id="toml"),
        pytest.param("console", "$ ./scripts/nothing", id="a script that is missing"),
        pytest.param("console", "$ just nothing", id="a recipe that is missing"),
        pytest.param("mermaid", "pie", id="a diagram of another kind"),
        pytest.param("sh", "if", id="a shell script"),
        pytest.param("text", " ", id="nothing at all"),
        pytest.param("", "text", id="no language"),
        pytest.param("cobol", "STOP RUN.", id="a language nobody checks"),
    ],
)
def test_a_malformed_block_is_found_out(language: str, text: str) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)):
        check_source(Block(ROOT / "README.md", 1, language, text))
