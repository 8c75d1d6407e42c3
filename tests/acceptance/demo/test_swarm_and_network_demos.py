"""The swarm's and the network's example from end to end; in the network's, a process is killed on the way."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_SECONDS = 240

pytestmark = pytest.mark.acceptance


def shown_by(pattern: str, data_dir: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", f"examples.{pattern}", "--data-dir", str(data_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_swarm_estimates_and_its_votes_are_counted_again(data_dir: Path) -> None:
    shown = shown_by("estimation", data_dir)
    assert re.search(r"The swarm says [\d,]+ lines", shown)
    assert re.search(r"rule=unanimous +no decision +below_threshold", shown)


def test_a_network_gossips_and_loses_nothing_with_a_killed_process(data_dir: Path) -> None:
    shown = shown_by("gossip", data_dir)
    assert "with SIGKILL" in shown
    assert "each message took effect exactly once" in shown
