"""Examples in containers, as far as no container is needed: what is refused, and a cluster that does not come."""

import sys
from pathlib import Path

import pytest

from cli.outcome import ExitCode
from examples.containers import main


@pytest.mark.parametrize("pattern", ["supervisor", "saga", "network", "quantum"])
def test_what_cannot_run_in_containers_is_refused_with_what_can(
    pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([pattern]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert pattern in said
    assert "editing, estimation, tournament" in said


def test_a_cluster_that_does_not_come_ends_the_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    says_why = (sys.executable, "-c", "import sys; sys.exit('Go is not installed')")
    assert main(["handoff", "--data-dir", str(tmp_path)], cluster=says_why) == ExitCode.UNAVAILABLE
    assert "Go is not installed" in capfd.readouterr().err
