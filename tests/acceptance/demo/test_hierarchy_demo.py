"""The hierarchical example from end to end."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_SECONDS = 280

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


def test_each_failure_is_solved_on_the_lowest_level_that_can(data_dir: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "examples.build_and_fix", "--data-dir", str(data_dir)],
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "5 failures solved; 1 decision refused" in ended.stdout
    assert "2 of 2 modules pass their tests, ruff finds nothing; textkit-1.0.1.zip holds 3 files" in ended.stdout
