"""The saga's example from end to end: the books of four services prove that everything was undone."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_SECONDS = 240

pytestmark = pytest.mark.acceptance


def test_a_trip_that_cannot_be_completed_leaves_every_balance_as_it_was(data_dir: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "examples", "saga", "--data-dir", str(data_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Compensation: completed." in ended.stdout
    assert "Every balance is what it was, and each booking was cancelled exactly once." in ended.stdout
    assert "hotel had to be tried again: busy, call again." in ended.stdout
