"""The benchmarks run, and their report is whole. No time is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import machine, plot, rounds, runner, table
from benchmarks.catalogue import ROWS
from benchmarks.result import MET, MISSED, UNJUDGED, UNKNOWN, Budget, Result
from benchmarks.row import Row
from benchmarks.scale import SCALES
from tests.node_programs import node_folder

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"


FAST = Result("r", "ours beside a peer", "x/s", [3, 1, 2], {"redis": [1, 1, 1], "nats": []})


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(ROOT)])}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_each_row_runs_and_leaves_nothing(row: Row, tmp_path: Path) -> None:
    node_folder()  # a row has no time to install it
    measured = list(runner.run(row, SCALES["smoke"], tmp_path))

    assert measured
    for result in measured:
        assert result.row == row.name
        assert result.rounds, result.note
        assert result.value is not None
        assert result.value > 0, result
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_report_and_the_plot_of_rows_are_whole(tmp_path: Path) -> None:
    report, picture = tmp_path / "report.json", tmp_path / "plot.png"
    folder = tmp_path / "files"
    files = ("--json", str(report), "--plot", str(picture), "--folder", str(folder))

    ended = bench("--smoke", "--row", "import", "--row", "reduce", *files)

    assert ended.returncode == 0, ended.stderr
    told = json.loads(report.read_text())
    assert told["scale"] == "smoke"
    assert told["machine"]["python"]
    measured = [result for result in told["results"] if result["row"] != "peers"]
    assert {result["row"] for result in measured} == {"import", "reduce"}
    assert all(result["what"] in ended.stdout for result in measured)
    assert "durable" not in ended.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(folder.iterdir()) == []


def test_a_row_that_does_not_exist_is_refused() -> None:
    ended = bench("--row", "nothing")
    assert ended.returncode == 2
    assert "nothing" in ended.stderr


@pytest.mark.slow
def test_a_row_that_fails_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    [failed] = runner.run(Row("ghost", "what is not there", "ghost"), SCALES["smoke"], tmp_path)
    assert failed.verdict == UNKNOWN
    assert failed.note.startswith("ended with 1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("budget", "verdict"),
    [
        pytest.param(None, UNJUDGED, id="no budget"),
        pytest.param(Budget("at least", 2), MET, id="the median counts"),
        pytest.param(Budget("at least", 2.1), MISSED, id="not the best"),
        pytest.param(Budget("at most", 2), MET, id="at most"),
        pytest.param(Budget("at most", 1.9), MISSED, id="too much"),
        pytest.param(Budget("at least", 2, "ratio"), MET, id="against the best peer"),
        pytest.param(Budget("at least", 2.1, "ratio"), MISSED, id="not enough of it"),
    ],
)
def test_verdicts(budget: Budget | None, verdict: str) -> None:
    result = Result(FAST.row, FAST.what, FAST.unit, FAST.rounds, FAST.peers, budget)
    assert result.verdict == verdict
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_ratio_without_peers_is_not_measured() -> None:
    alone = Result("r", "alone", "x/s", [1], {"redis": []}, Budget("at least", 1, "ratio"))
    assert alone.ratio is None
    assert alone.verdict == UNKNOWN
    assert Result("r", "nothing").verdict == UNKNOWN
    assert Result("r", "nothing").best is None


def test_the_best_round_is_the_least_where_less_is_better() -> None:
    assert FAST.best == 3
    assert Result("r", "w", "s", [3, 1], budget=Budget("at most", 5)).best == 1


def test_the_table_says_what_was_missed_and_who_is_not_there() -> None:
    missed = Result("r", "w", "ms", [3], {"nats": []}, Budget("at most", 1), note="why")
    text = table.render([missed])
    assert "**missed**" in text
    assert "not installed" in text
    assert text.endswith("- r, w: why")


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (None, "–"),
        (0.123456, "0.123"),
        (12.3456, "12.3"),
        (123.456, "123"),
        (9_999, "9,999"),
        (123_456, "123 k"),
        (1_234_567, "1.23 M"),
    ],
)
def test_numbers_have_three_digits_that_mean_something(figure: float | None, text: str) -> None:
    assert table.number(figure) == text
    if figure is not None:
        assert table.number(figure, "s") == f"{text} s"


def test_headroom_is_to_the_right_when_a_budget_is_met() -> None:
    assert plot.headroom(FAST) is None
    assert plot.headroom(Result("r", "w", "s", [2], budget=Budget("at most", 4))) == 2
    assert plot.headroom(Result("r", "w", "s", [2], budget=Budget("at least", 4))) == 0.5
    assert plot.headroom(Result("r", "w", "s", budget=Budget("at least", 4))) is None


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def contender(name: str) -> rounds.Contender:
        figures = iter([99.0, 1.0, 2.0])

        def contend() -> float:
            order.append(name)
            return next(figures)

        return contend

    given, peers = rounds.alternate(
        2, {rounds.OURS: contender("ours"), "redis": contender("redis"), "nats": None}
    )
    assert given == [1, 2]
    assert peers == {"redis": [1, 2], "nats": []}
    assert order == ["ours", "redis"] * 3


def test_a_peer_that_is_not_installed() -> None:
    assert machine.find_peer("no-such-server") is None
    assert machine.peer_version("no-such-server") == "not installed"
