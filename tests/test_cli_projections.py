"""The command ``projections``: of files that nobody has open, of others, and of a server's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
import trio

from exo_stream import open_platform
from exo_stream.canonical.changes import Changes
from exo_stream.canonical.projection_rules import DeadLetterQueue, FailFast, ProjectorConfig
from exo_stream.canonical.projections import Projections
from exo_stream.canonical.store import CanonicalStore
from exo_stream.cli.arguments import parser
from exo_stream.cli.exit_codes import ERROR, OK, USAGE
from exo_stream.cli.output import Output
from exo_stream.cli.projections import COLUMNS
from exo_stream.cli.projections import projections as run_projections
from exo_stream.cli.tables import drawn
from exo_stream.errors import ProjectionError
from tests import wire
from tests.projections import TABLES, Handler, see
from tests.served import EXO_STREAM, Said, environment, speak
from tests.worlds import in_memory

pytestmark = pytest.mark.slow  # files are made


async def make(file: Path, *, broken: bool) -> None:
    """Three events; one projection has them all, one has put one aside, one stopped."""
    async with (
        open_platform(file) as platform,
        platform.canonical.projections(f"{file}.projections") as projections,
    ):
        await platform.canonical.submit(Changes(events=[b"a", b"b", b"c"]))
        config = ProjectorConfig(error_strategy=DeadLetterQueue())
        whole = await projections.add("whole", see, tables=TABLES)
        aside = await projections.add("aside", Handler({1: 1}), tables=TABLES, config=config)
        await whole.wait_applied(2)
        await aside.wait_applied(2)
        if broken:
            config = ProjectorConfig(error_strategy=FailFast())
            stopped = await projections.add(
                "stopped", Handler({1: 9}), tables=TABLES, config=config
            )
            with pytest.raises(ProjectionError):
                await stopped.wait_applied(2)


@pytest.fixture
def say(capfdbinary: pytest.CaptureFixture[bytes]) -> partial[Said]:
    return partial(speak, capfdbinary)


def test_each_projection_has_a_line(say: partial[Said], tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    trio.run(partial(make, file, broken=True))
    done = say("projections", file)
    assert done.code == ERROR, "one has stopped"
    assert done.lines == [
        "aside\t2\t0\tcaught up\t1",
        "stopped\t0\t2\tfailed: projection stopped at event 1: raised KeyError: 1\t0",
        "whole\t2\t0\tcaught up\t0",
    ]
    objects = [json.loads(line) for line in say("projections", file, "--json").lines]
    assert objects[0] == {
        "name": "aside",
        "cursor": 2,
        "lag": 0,
        "lag_seconds": None,
        "state": "caught up",
        "dead_letters": 1,
        "problem": None,
    }
    assert objects[1]["problem"] == "projection stopped at event 1: raised KeyError: 1"
    assert "dead letters" in drawn(COLUMNS, [line.split("\t") for line in done.lines], width=100)


def test_a_seal_events_to_come_and_no_projection_at_all_are_told(
    say: partial[Said], tmp_path: Path
) -> None:
    file = tmp_path / "x.duckdb"
    trio.run(partial(make, file, broken=False))

    async def more(seal: bool) -> None:
        async with open_platform(file) as platform:
            if seal:
                await platform.canonical.seal()
            else:
                await platform.canonical.submit(Changes(events=[b"d"]))

    trio.run(more, True)
    assert say("projections", file).lines[1] == "whole\t2\t0\tsealed\t0"

    async def unseal() -> None:
        async with open_platform(file) as platform:
            await platform.canonical.unseal()

    trio.run(unseal)
    trio.run(more, False)
    done = say("projections", file)
    assert (done.code, done.lines[1]) == (OK, "whole\t2\t1\tbehind\t0")
    done = say("projections", file, "--folder", tmp_path / "nowhere")
    assert (done.code, done.lines) == (OK, [])


def test_what_is_open_damaged_or_absent_is_told_and_left_alone(
    say: partial[Said], tmp_path: Path
) -> None:
    file = tmp_path / "x.duckdb"
    trio.run(partial(make, file, broken=False))
    foreign = Path(f"{file}.projections") / "diary.duckdb"
    foreign.write_bytes(b"dear diary" * 1_000)

    async def beside() -> list[str]:
        async with (
            open_platform(file) as platform,
            platform.canonical.projections(f"{file}.projections") as projections,
        ):
            projector = await projections.add("whole", see, tables=TABLES)
            await projector.wait_applied(2)
            command = [*EXO_STREAM, "projections", str(file)]
            done = await trio.run_process(command, capture_stdout=True, env=environment())
            return done.stdout.decode().splitlines()

    lines = trio.run(beside)
    assert lines[0] == "aside\t2\t-\tunknown\t1", "the next event id is not to be had"
    assert lines[1].startswith("diary\t-\t-\tunreadable: ")
    assert "whole\t-\t-\tunreadable: " in lines[2]
    assert "is in use by process" in lines[2]
    assert foreign.read_bytes().startswith(b"dear diary")
    done = say("projections", tmp_path / "none.duckdb")
    assert (done.code, done.sentence) == (
        ERROR,
        f"exo-stream projections: {tmp_path / 'none.duckdb'} is no file",
    )
    assert not (tmp_path / "none.duckdb").exists()


def test_dead_letters_of_a_file_are_listed(say: partial[Said], tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    trio.run(partial(make, file, broken=False))
    done = say("projections", file, "--dead-letters", "aside")
    [line] = done.lines
    assert done.code == OK
    assert line.split("\t")[::2] == ["1", "0"]
    assert line.endswith("projection aside at event 1: raised KeyError: 1")
    [line] = say("projections", file, "--dead-letters", "aside", "--json").lines
    found = json.loads(line)
    assert datetime.fromisoformat(found.pop("failed_at")).tzinfo is not None
    assert found == {
        "id": 1,
        "event": "b",
        "error": "projection aside at event 1: raised KeyError: 1",
        "retry_count": 0,
        "last_retry_at": None,
        "permanent": False,
    }
    assert say("projections", file, "--dead-letters", "aside", "--event", "2").lines == []
    assert say("projections", file, "--dead-letters", "whole").lines == []
    done = say("projections", file, "--dead-letters", "nobody")
    assert (done.code, "is no file" in done.sentence) == (ERROR, True)
    done = say("projections", file, "--replay", "aside")
    assert (done.code, "needs the handler" in done.sentence) == (USAGE, True)
    for words in (("--folder", tmp_path), ("--event", "1")):
        assert say("projections", *words).code == USAGE


class Asked:
    """The command, run in this process against a server in it."""

    def __init__(self, port: int, folder: Path) -> None:
        self._url = f"ws://127.0.0.1:{port}/v1/ws"
        self._path = folder / "said"

    async def __call__(self, *words: str) -> tuple[int, list[str]]:
        args = parser().parse_args(["projections", "--url", self._url, *words])
        with self._path.open("w+b") as file:
            out = Output(file.fileno(), is_json=args.json, is_terminal=False)
            code = await run_projections(args, out)
            file.seek(0)
            return code, file.read().decode().splitlines()


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[CanonicalStore, Projections, Asked]]:
    async with (
        in_memory()() as platform,
        wire.serving(platform) as (_, _, port),
        platform.canonical.projections(folder / "tables") as projections,
    ):
        yield platform.canonical, projections, Asked(port, folder)


ASIDE = ProjectorConfig(error_strategy=DeadLetterQueue())


async def test_projections_of_a_server_are_told(tmp_path: Path) -> None:
    async with served(tmp_path) as (canonical, projections, said):
        assert await said() == (OK, [])
        one = await projections.add("one", Handler({1: 1}), tables=TABLES, config=ASIDE)
        await canonical.submit(Changes(events=[b"a", b"b", b"c"]))
        await one.wait_applied(2)
        assert await said() == (OK, ["one\t2\t0\trunning\t1"])
        code, [line] = await said("--json")
        assert code == OK
        assert json.loads(line) == {
            "name": "one",
            "cursor": 2,
            "lag": 0,
            "lag_seconds": 0,
            "state": "running",
            "dead_letters": 1,
            "problem": None,
        }
        stop = ProjectorConfig(error_strategy=FailFast())
        two = await projections.add("two", Handler({1: 9}), tables=TABLES, config=stop)
        with pytest.raises(ProjectionError):
            await two.wait_applied(2)
        await canonical.seal()
        assert await said() == (
            ERROR,
            [
                "one\t2\t0\tsealed\t1",
                "two\t0\t2\tfailed: projection two at event 1: raised KeyError: 1\t0",
            ],
        )


async def test_dead_letters_of_a_server_are_listed_and_replayed(tmp_path: Path) -> None:
    async with served(tmp_path) as (canonical, projections, said):
        handler = Handler({1: 1, 2: 2})
        one = await projections.add("one", handler, tables=TABLES, config=ASIDE)
        await canonical.submit(Changes(events=[b"a", b"b", b"c"]))
        await one.wait_applied(2)
        code, lines = await said("--dead-letters", "one", "--count", "1")
        assert (code, [line.split("\t")[0] for line in lines]) == (OK, ["1"])
        assert await said("--replay", "one") == (ERROR, ["1 went through, 1 failed again"])
        code, [line] = await said("--dead-letters", "one", "--json")
        found = json.loads(line)
        assert (code, found["id"], found["retry_count"]) == (OK, 2, 1)
        assert found["last_retry_at"].endswith("Z")
        answer = ['{"applied":1,"failed":0}']
        assert await said("--replay", "one", "--event", "2", "--json") == (OK, answer)
        assert await said("--dead-letters", "one") == (OK, [])
