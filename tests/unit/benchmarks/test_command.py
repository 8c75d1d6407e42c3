import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.engine import BrokenError
from benchmarks.results import Row, Target
from benchmarks.session import Session


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[Session], list[Row]]]:
    """Benchmarks that need no engine."""

    def rounds(session: Session) -> list[Row]:
        return [Row("rounds", tuple(float(number) for number in session.rounds("rounds", 10, 3)))]

    def slow(_: Session) -> list[Row]:
        return [Row("slow", (5.0,), target=Target("p95", 1)), Row("quick", (0.5,), (1.0,), Target("ratio", 1))]

    def broken(_: Session) -> list[Row]:
        raise BrokenError("no progress")

    table = {"rounds": rounds, "slow": slow, "broken": broken}
    monkeypatch.setattr(command, "BENCHMARKS", table)
    return table


@pytest.mark.usefixtures("benchmarks")
def test_a_missed_target_is_said_and_is_no_failure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert command.main(["--only", "slow", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "missed: slow\n" in shown
    assert "reached" in shown
    document = json.loads(file.read_text())
    assert [row["verdict"] for row in document["rows"]] == ["missed", "reached"]
    assert document["machine"]["cores"] >= 1
    assert document["quick"] is False


@pytest.mark.usefixtures("benchmarks")
@pytest.mark.parametrize(("arguments", "rounds"), [((), 10), (("--quick",), 3), (("--reps", "5"), 5)])
def test_a_quick_run_has_fewer_rounds_and_their_number_can_be_given(
    arguments: tuple[str, ...], rounds: int, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    assert command.main(["--only", "rounds", "--json", str(file), *arguments]) == 0
    assert json.loads(file.read_text())["rows"][0]["samples"] == rounds


@pytest.mark.usefixtures("benchmarks")
def test_what_breaks_fails_and_says_why_and_the_rest_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    assert command.main(["--only", "broken,slow", "--json", str(file)]) == 1
    shown = capsys.readouterr()
    assert "broken is broken: no progress" in shown.err
    assert "broken: broken\n" in shown.out
    assert [row["name"] for row in json.loads(file.read_text())["rows"]] == ["slow", "quick"]


@pytest.mark.usefixtures("benchmarks")
def test_an_unknown_name_is_answered_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(["--only", "slow,slower"])
    assert raised.value.code == 2
    assert "slower; there are rounds, slow, broken" in capsys.readouterr().err


@pytest.mark.usefixtures("benchmarks")
def test_less_than_one_round_is_refused() -> None:
    with pytest.raises(SystemExit):
        command.main(["--reps", "0"])


@pytest.mark.parametrize(("quick", "size"), [(False, 10_000), (True, 300)])
def test_a_small_size_has_no_target(quick: bool, size: int) -> None:
    with ExitStack() as stack:
        session = Session(stack, quick=quick, tell=lambda _: None)
        assert session.scaled(10_000, 300) == size
        assert session.target(Target("p50", 1)) == (None if quick else Target("p50", 1))
