"""The demo, from end to end with a real engine, on a repository that is small but has history enough."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.examples.git_repository import commit, new_repository

ROOT = Path(__file__).resolve().parents[3]
ORCHESTRATOR = Path(sys.executable).with_name("orchestrator")
TIMEOUT_SECONDS = 300
REVISIONS = 40
FUNCTIONS = 150
WORKFLOW = ROOT / "examples" / "code_review" / "workflow.yaml"
REVIEWS = [task["id"] for task in yaml.safe_load(WORKFLOW.read_text())["tasks"] if task.get("depends_on") == ["plan"]]

pytestmark = pytest.mark.acceptance


def source(revision: int) -> str:
    functions = (
        f"def f{n}(x):\n    if x > {revision if n == 0 else n} and x:\n        return [i for i in range(x) if i]\n"
        f"    return {n}\n\n\n"
        for n in range(FUNCTIONS)
    )
    return "import os\n\n\n" + "".join(functions)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = new_repository(tmp_path_factory.mktemp("demo") / "subject")
    commit(folder, calm_py="x = 1\n")
    for revision in range(REVISIONS):
        commit(folder, busy_py=source(revision), steady_py=source(-revision))
    return folder


def processes_with(text: str) -> list[str]:
    """Command lines of processes that name it; this test's own are not among them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has just ended
                continue
            if text in command:
                found.append(command)
    return found


def events_of(data_dir: Path) -> list[dict[str, Any]]:
    """The audit log of the only execution, read from an engine that is started once more on the data."""
    command = [str(ORCHESTRATOR), "up", "--data-dir", str(data_dir), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as engine:
        try:
            assert engine.stdout is not None
            assert engine.stdout.readline()  # ready
            (execution,) = ask(data_dir, "list")
            return ask(data_dir, "events", execution["execution_id"])
        finally:
            engine.terminate()
            engine.wait(TIMEOUT_SECONDS)


def ask(data_dir: Path, *arguments: str) -> list[dict[str, Any]]:
    command = [str(ORCHESTRATOR), *arguments, "--data-dir", str(data_dir), "--json"]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=True)
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return items


@pytest.mark.timeout(900)
def test_a_killed_reviewers_task_is_taken_over_and_nothing_keeps_running(
    repository: Path, data_dir: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.md"
    demo = subprocess.run(
        [sys.executable, "-m", "examples.code_review",
         "--repo", repository, "--report", report, "--data-dir", data_dir],
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert processes_with(str(data_dir)) == []
    killed = re.search(r"SIGKILL to process (\d+) of (reviewer-\d)", demo.stdout)
    assert killed is not None
    assert not Path("/proc", killed[1]).exists()
    assert "is taken over by reviewer-" in demo.stdout
    assert "Every task was completed exactly once." in demo.stdout
    assert "/namespaces/default/workflows/default%2F" in demo.stdout
    for kind in ("planned", "actual"):
        path = re.search(rf"Critical path, {kind} +[0-9.]+ s   (\S.*)", demo.stdout)
        assert path is not None
        # Which reviewer's task it leads through is decided by this machine's speed.
        first, *between, last = path[1].split(" -> ")
        assert (first, last) == ("plan", "report")
        assert len(between) == 1
        assert between[0] in REVIEWS

    document = report.read_text()
    assert document.startswith("# Review of subject\n")
    ranked = [document.index(f"| {name} |") for name in ("busy.py", "steady.py", "calm.py")]
    assert max(ranked[:2]) < ranked[2]
    assert "F401" in document

    trend = [event for event in events_of(data_dir) if event["payload"].get("task_id") == "trend"]
    assigned = [event["payload"] for event in trend if event["event_type"] == "agent.task_assigned"]
    done = [event["payload"] for event in trend if event["event_type"] == "task.completed"]
    assert [item["attempt"] for item in assigned] == [1, 2]
    assert assigned[0]["agent_id"] == killed[2] != assigned[1]["agent_id"]
    assert [(item["attempt"], item["status"]) for item in done] == [(1, "failed"), (2, "success")]
    assert done[0]["error"]["code"] == "AGENT_LOST"
    assert processes_with(str(data_dir)) == []
