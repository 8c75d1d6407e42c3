"""The README's own example does what the README says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[3] / "README.md").read_text()
ORCHESTRATOR = Path(sys.executable).with_name("orchestrator")

pytestmark = pytest.mark.acceptance


def files() -> dict[str, str]:
    """What stands in code blocks that follow a file's name."""
    return dict(re.findall(r"`(words\.py|catalogue\.yaml|words\.yaml)`:\n\n```\w+\n(.*?)```", README, re.DOTALL))


def orchestrator(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command as it stands in the README, carried out by a shell as a reader's would."""
    command = line.replace(".venv/bin/orchestrator", str(ORCHESTRATOR))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_example_plans_and_runs_with_the_results_that_are_shown(tmp_path: Path) -> None:
    written = files()
    assert set(written) == {"words.py", "catalogue.yaml", "words.yaml"}
    for name, text in written.items():
        (tmp_path / name).write_text(text)
    plan_line, run_line = re.findall(r"^\.venv/bin/orchestrator .*$", README, re.MULTILINE)
    planned = orchestrator(plan_line, tmp_path)
    assert "Critical path" in planned.stdout, planned.stderr
    ran = orchestrator(run_line, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert f"```\n{ran.stdout}```" in README
