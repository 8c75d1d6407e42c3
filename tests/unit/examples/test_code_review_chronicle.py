"""What the demo reads from the audit log, and when it kills."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from rich.console import Console

from cli.board import Board
from cli.client import EngineClient
from cli.connection import Connection
from engine.agents.catalogue import check_capabilities, load_catalogue
from engine.contracts.plan import Plan
from engine.errors import ConfigurationError, UnavailableError
from examples.code_review.__main__ import main
from examples.code_review.chronicle import compare, completed_once, find_takeover, read_runs
from examples.code_review.demo import CATALOGUE, TARGET_TASK, WORKFLOW, DemoOptions, run_demo
from examples.code_review.sabotage import Saboteur
from examples.code_review.screen import show_head
from examples.screen import follow, stop_leftovers
from planner.parse import parse_definition
from planner.planner import Planner

LOST = {"code": "AGENT_LOST", "message": "gone"}


def event(second: float, kind: str, **payload: Any) -> dict[str, Any]:
    return {"event_type": kind, "timestamp": f"2026-01-01T00:00:{second:06.3f}Z", "payload": payload}


def bound(second: float, agent_id: str, host_id: str) -> dict[str, Any]:
    return event(second, "agent.bound", agent_id=agent_id, host_id=host_id, role="w")


def attempt(task_id: str, agent_id: str, begin: float, end: float, number: int = 1) -> list[dict[str, Any]]:
    where: dict[str, Any] = {"task_id": task_id, "agent_id": agent_id, "attempt": number}
    return [
        event(begin, "agent.task_assigned", **where),
        event(begin, "agent.task_started", **where),
        event(end, "task.completed", **where, status="success"),
    ]


def lost(task_id: str, agent_id: str, begin: float, end: float) -> list[dict[str, Any]]:
    events = attempt(task_id, agent_id, begin, end)
    events[-1]["payload"] |= {"status": "failed", "error": LOST}
    return events


def plan_of(**depends_on: list[str]) -> Plan:
    return Planner().plan(
        parse_definition(
            {
                "name": "n",
                "version": "1",
                "orchestration_pattern": "supervisor",
                "coordination": {"type": "hybrid"},
                "agents": {"w": {"type": "synthetic"}},
                "tasks": [{"id": name, "agent": "w", "depends_on": needs} for name, needs in depends_on.items()],
            }
        )
    )


RUN = [
    bound(0, "w-1", "h1"),
    bound(0, "w-2", "h2"),
    *attempt("a", "w-1", 1, 2),
    *lost("b", "w-1", 2, 3),
    *attempt("c", "w-2", 2, 2.5),
    *attempt("b", "w-2", 3.25, 5, number=2),
    *attempt("d", "w-2", 5, 6),
]
PLAN = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


class TestChronicle:
    def test_a_takeover_is_an_attempt_that_completes_elsewhere_what_was_lost(self) -> None:
        takeover = find_takeover(read_runs(RUN), "h1")
        assert takeover is not None
        assert (takeover.lost.agent_id, takeover.taken.agent_id, takeover.taken.attempt) == ("w-1", "w-2", 2)
        assert (takeover.lost.seconds, takeover.seconds) == (1.0, 0.25)

    def test_another_process_has_no_takeover_to_show(self) -> None:
        assert find_takeover(read_runs(RUN), "h2") is None

    def test_a_task_that_was_completed_twice_is_no_takeover(self) -> None:
        runs = read_runs([*RUN, *attempt("b", "w-2", 7, 8, number=3)])
        assert find_takeover(runs, "h1") is None
        assert not completed_once(plan_of(**PLAN), runs)

    def test_a_failure_of_the_task_itself_is_no_loss(self) -> None:
        events = json.loads(json.dumps(RUN))
        events[7]["payload"]["error"]["code"] = "AGENT_ERROR"
        runs = read_runs(events)
        assert [run.outcome for run in runs if run.task_id == "b"] == ["failed", "success"]
        assert find_takeover(runs, "h1") is None

    def test_all_tasks_completed_once_is_seen(self) -> None:
        assert completed_once(plan_of(**PLAN), read_runs(RUN))
        assert not completed_once(plan_of(**PLAN), read_runs(RUN[:-1]))

    def test_the_actual_critical_path_follows_what_was_waited_for(self) -> None:
        timings = compare(plan_of(**PLAN), read_runs(RUN))
        assert timings.actual_path == ("a", "b", "d")
        assert timings.actual_seconds == 5.0
        assert timings.planned_seconds == 3.0
        rows = {row.task_id: row for row in timings.tasks}
        assert (rows["b"].actual_start, rows["b"].actual_seconds, rows["b"].attempts) == (1.0, 3.0, 2)
        assert (rows["c"].actual_critical, rows["c"].planned_critical) == (False, True)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Looks like an agent host."""
    code = "import signal; print('started', flush=True); signal.pause()"
    command = [sys.executable, "-c", code, "--host-id", "h1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        yield process
        process.kill()


def saboteur(pid: int, host_id: str = "h1") -> Saboteur:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/agents":
            return httpx.Response(200, json={"items": [{"host_id": "h1", "pid": pid}], "next_page_token": None})
        events = [bound(0, "reviewer-1", "old"), bound(0, "reviewer-1", host_id)]
        return httpx.Response(200, json={"items": events, "next_page_token": None})

    client = EngineClient(Connection("http://engine", "t"), httpx.MockTransport(answer))
    return Saboteur(client, "e", task_id="trend", agent_type="reviewer", dependents=frozenset({"report"}))


def board(progress: float, **states: str) -> Board:
    board = Board("e")
    for task_id, state in {"trend": "running", "report": "pending", **states}.items():
        row = board._row(task_id)
        row.state, row.agent_id, row.attempts, row.progress = state, "reviewer-1", 1, 0.0
    board.tasks["trend"].progress = progress
    return board


class TestSaboteur:
    def test_it_kills_the_process_in_the_middle_of_the_task_and_only_once(
        self, process: subprocess.Popen[bytes]
    ) -> None:
        one = saboteur(process.pid)
        kill = one.look(board(0.4, lint="completed"))
        assert kill is not None
        assert (kill.pid, kill.agent_id, kill.host_id) == (process.pid, "reviewer-1", "h1")
        assert process.wait(10) == -signal.SIGKILL
        assert one.look(board(0.5)) is None

    @pytest.mark.parametrize(
        "seen",
        [
            board(0.0),
            board(0.95),
            board(0.4, lint="running"),
            board(0.4, lint="pending"),
            board(0.4, trend="completed"),
            Board("e"),
        ],
    )
    def test_it_waits_for_its_moment(self, seen: Board) -> None:
        assert saboteur(os.getpid()).look(seen) is None

    def test_it_does_not_wait_for_others_for_ever(self, process: subprocess.Popen[bytes]) -> None:
        assert saboteur(process.pid).look(board(0.7, lint="running")) is not None

    def test_a_second_attempt_is_left_alone(self) -> None:
        seen = board(0.4)
        seen.tasks["trend"].attempts = 2
        assert saboteur(os.getpid()).look(seen) is None

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="process ids can be checked where there is /proc")
    def test_a_process_that_is_not_that_host_is_spared(self) -> None:
        with pytest.raises(UnavailableError, match="no process"):
            saboteur(os.getpid()).look(board(0.4))

    def test_a_process_that_has_gone_by_itself_is_told(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        with pytest.raises(UnavailableError, match="no process"):
            saboteur(process.pid).look(board(0.4))


class TestDemo:
    def test_the_definition_is_valid_fits_the_catalogue_and_its_longest_task_is_the_target(self) -> None:
        definition = parse_definition(yaml.safe_load(WORKFLOW.read_text()))
        check_capabilities(load_catalogue(CATALOGUE), (), definition)
        plan = Planner().plan(definition)
        longest = max(plan.tasks, key=lambda task: task.estimate_seconds)
        assert longest.id == TARGET_TASK
        assert longest.on_critical_path

    def test_each_reviewer_has_a_process_of_its_own(self) -> None:
        definition = yaml.safe_load(WORKFLOW.read_text())
        reviewer = load_catalogue(CATALOGUE).agents["reviewer"]
        assert (reviewer.agents_per_host, reviewer.hosts_max) == (1, definition["agents"]["reviewer"]["count"])

    def test_without_a_repository_nothing_is_started_and_the_remedy_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = DemoOptions(tmp_path, tmp_path / "report.md", tmp_path / "data")
        with pytest.raises(ConfigurationError, match="not a git repository"):
            run_demo(options)
        before = signal.getsignal(signal.SIGTERM)
        assert main(["--repo", str(tmp_path), "--data-dir", str(tmp_path / "data")]) == 2
        assert "a review needs git, ruff, and a repository with a commit" in capsys.readouterr().err
        assert signal.getsignal(signal.SIGTERM) is before
        assert not (tmp_path / "data").exists()

    def test_what_an_earlier_demo_left_is_cancelled_even_if_it_ends_meanwhile(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cancelled: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            if request.method == "GET":
                left = {"executing": ["e-1"], "paused": ["e-2"]}.get(request.url.params["status"], [])
                items = [{"execution_id": execution_id} for execution_id in left]
                return httpx.Response(200, json={"items": items, "next_page_token": None})
            call = json.loads(request.content)
            cancelled.append(call["params"]["execution_id"])
            error = {"code": -32007, "message": "it is completed"}
            outcome = {"error": error} if call["params"]["execution_id"] == "e-1" else {"result": {}}
            return httpx.Response(200, json={"jsonrpc": "2.0", "id": call["id"], **outcome})

        stop_leftovers(EngineClient(Connection("http://engine", "t"), httpx.MockTransport(answer)), Console(width=200))
        assert cancelled == ["e-1", "e-2"]
        assert "cancelling execution e-1" in capsys.readouterr().out

    def test_a_terminal_shows_the_board_and_notices_above_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = Console(force_terminal=True, width=100, color_system=None)
        view = {"status": "completed", "task_states": {"a": "completed"}}
        last = follow(console, [("snapshot", view), ("idle", {})], Board("e-1"), lambda _: "noticed")
        assert last == view
        shown = capsys.readouterr().out
        assert "e-1" in shown
        assert "noticed" in shown

    def test_a_long_report_is_shown_in_part(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "report.md").write_text("\n".join(f"line {n}" for n in range(30)))
        show_head(Console(width=200), tmp_path / "report.md")
        shown = capsys.readouterr().out
        assert "line 17" in shown
        assert "line 18" not in shown
        assert "and 12 more lines" in shown
