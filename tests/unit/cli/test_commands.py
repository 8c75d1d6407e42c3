import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.client import EngineClient
from cli.connection import Connection
from cli.executions import read_events
from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import EXECUTION_ID, TOKEN, WORKFLOW_ID, FakeEngine, Refusal, status_of

DEFINITION = """
name: two
version: "1"
orchestration_pattern: supervisor
agents: {worker: {type: synthetic}}
tasks:
  - {id: a, agent: worker}
  - {id: b, agent: worker, depends_on: [a]}
coordination: {type: hybrid}
"""

At = tuple[str, ...]


@pytest.fixture
def definition(tmp_path: Path) -> str:
    file = tmp_path / "two.yaml"
    file.write_text(DEFINITION)
    return str(file)


def event(sequence: int, kind: str = "agent.task_assigned", **payload: Any) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "epoch": 1,
        "event_type": kind,
        "timestamp": "2026-01-01T00:00:00Z",
        "recorded_at": "2026-01-01T00:00:00Z",
        "payload": payload,
        "trace_id": EXECUTION_ID,
    }


def accepts_runs(engine: FakeEngine, *statuses: dict[str, Any]) -> None:
    engine.methods["workflow.create"] = lambda _: {
        "workflow_id": WORKFLOW_ID,
        "status": "validated",
        "validation_report": {"errors": [], "warnings": ["tasks[0]: lonely"], "optimizations": []},
        "estimated_resources": {},
    }
    engine.methods["workflow.execute"] = lambda params: {
        "execution_id": EXECUTION_ID,
        "workflow_id": params["workflow_id"],
        "status": "planning",
    }
    engine.statuses = list(statuses)
    engine.pages[f"/api/v1/executions/{EXECUTION_ID}/tasks"] = [
        {"items": [{"task_id": "a", "state": "completed", "result": {"n": 1}}]},
        {"items": [{"task_id": "b", "state": "failed", "result": None}]},
    ]


class TestStatus:
    def test_the_answer_is_the_json_document(self, orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
        engine.statuses = [status_of("executing", a="running")]
        outcome = orchestrator("status", EXECUTION_ID, *at, "--json")
        assert (outcome.code, outcome.document, outcome.stderr) == (0, engine.statuses[0], "")

    def test_people_see_tasks_and_the_error(self, orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
        view = status_of("failed", a="failed", b="skipped")
        view["error_details"] = {"error_code": "TASK_FAILED", "error_message": "boom", "failed_task": "a"}
        view["latest_checkpoint_id"] = "c-1"
        view["current_phase"] = "a"
        engine.statuses = [view]
        outcome = orchestrator("status", EXECUTION_ID, *at)
        assert outcome.code == 0
        assert "TASK_FAILED: boom (task a)" in outcome.stdout
        assert "1 failed, 1 skipped" in outcome.stdout
        assert "c-1" in outcome.stdout

    def test_many_tasks_are_cut_and_counted(self, orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
        engine.statuses = [status_of("executing", **{f"t{number}": "pending" for number in range(50)})]
        assert "... 10 more" in orchestrator("status", EXECUTION_ID, *at).stdout

    def test_what_is_not_there_ends_with_3(self, orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
        def refuse(_: dict[str, Any]) -> dict[str, Any]:
            raise Refusal(-32003, "there is no such execution")

        engine.methods["workflow.status"] = refuse
        outcome = orchestrator("status", "x", *at, "--json")
        assert outcome.code == 3
        assert outcome.document == {"error": {"code": "NOT_FOUND", "message": "there is no such execution"}}
        assert outcome.stderr == "error: there is no such execution\n"

    def test_a_refused_token_ends_with_4(self, orchestrator: Orchestrator, engine: FakeEngine) -> None:
        assert orchestrator("status", "x", "--url", engine.url, "--token", "forged").code == 4


class TestList:
    def test_filters_are_passed_and_the_next_page_is_named(
        self, orchestrator: Orchestrator, engine: FakeEngine, at: At
    ) -> None:
        item = {
            "execution_id": EXECUTION_ID,
            "workflow_name": "two",
            "orchestration_pattern": "supervisor",
            "status": "completed",
            "started_at": "not a time",
            "tasks_total": 2,
            "tasks_completed": 2,
            "tasks_failed": 0,
        }
        engine.methods["execution.list"] = lambda _: {"items": [item], "next_page_token": "more"}
        outcome = orchestrator("list", *at, "--status", "completed", "--limit", "1")
        assert engine.calls == [("execution.list", {"limit": 1, "status": "completed"})]
        assert "2/2" in outcome.stdout
        assert "--page-token more" in outcome.stderr
        assert orchestrator("list", *at, "--json").document["items"] == [item]


class TestEvents:
    def test_all_pages_come_in_order(self, orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
        pages = [{"items": [event(1, task_id="a"), event(2)]}, {"items": [event(3)]}]
        engine.pages[f"/api/v1/executions/{EXECUTION_ID}/events"] = pages
        outcome = orchestrator("events", EXECUTION_ID, *at)
        assert [int(line.split()[0]) for line in outcome.stdout.splitlines()] == [1, 2, 3]
        assert "task_id=a" in outcome.stdout
        document = orchestrator("events", EXECUTION_ID, *at, "--json").document
        assert [item["sequence"] for item in document["items"]] == [1, 2, 3]

    def test_following_shows_each_event_once_until_the_end(self, engine: FakeEngine) -> None:
        pages = [{"items": [event(1)]}, {"items": [event(2)]}]
        engine.pages[f"/api/v1/executions/{EXECUTION_ID}/events"] = pages
        engine.statuses = [status_of("executing"), status_of("executing"), status_of("completed")]
        shown: list[int] = []

        def more_happens(_: float) -> None:
            pages.append({"items": [event(len(pages) + 1)]})

        with EngineClient(Connection(engine.url, TOKEN)) as client:
            read_events(
                client, EXECUTION_ID, lambda each: shown.append(each["sequence"]), follow=True, pause=more_happens
            )
        assert shown == [1, 2, 3, 4]

    def test_following_with_json_tells_on_stderr_and_ends_with_one_document(
        self, orchestrator: Orchestrator, engine: FakeEngine, at: At
    ) -> None:
        engine.pages[f"/api/v1/executions/{EXECUTION_ID}/events"] = [{"items": [event(1)]}]
        engine.statuses = [status_of("completed")]
        outcome = orchestrator("events", EXECUTION_ID, *at, "--follow", "--json")
        assert len(outcome.document["items"]) == 1
        assert "agent.task_assigned" in outcome.stderr

    def test_an_unknown_execution_ends_with_3(self, orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
        assert orchestrator("events", EXECUTION_ID, *at).code == 3
        assert engine.calls == []


class TestControl:
    def test_pause_names_the_checkpoint(self, orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
        engine.methods["workflow.pause"] = lambda params: params | {"status": "paused", "checkpoint_id": "c1"}
        assert orchestrator("pause", EXECUTION_ID, *at).stdout == f"{EXECUTION_ID} is paused, checkpoint c1\n"
        assert orchestrator("pause", EXECUTION_ID, *at, "--json").document["checkpoint_id"] == "c1"

    def test_resume_takes_a_checkpoint_and_names_what_runs_again(
        self, orchestrator: Orchestrator, engine: FakeEngine, at: At
    ) -> None:
        engine.methods["workflow.resume"] = lambda params: (
            params
            | {
                "status": "executing",
                "recovered_tasks": 2,
                "repeated_side_effects": ["b"],
            }
        )
        outcome = orchestrator("resume", EXECUTION_ID, "--checkpoint", "c1", *at)
        assert engine.calls == [("workflow.resume", {"execution_id": EXECUTION_ID, "checkpoint_id": "c1"})]
        assert "2 tasks done are kept" in outcome.stdout
        assert "runs again, though it was done: b" in outcome.stderr
        assert orchestrator("resume", EXECUTION_ID, *at, "--json").document["recovered_tasks"] == 2
        assert engine.calls[-1] == ("workflow.resume", {"execution_id": EXECUTION_ID})

    def test_cancel_says_what_became_of_it(self, orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
        engine.methods["workflow.cancel"] = lambda params: params | {"status": "cancelled"}
        assert orchestrator("cancel", EXECUTION_ID, *at).stdout == f"{EXECUTION_ID} is cancelled\n"
        assert orchestrator("cancel", EXECUTION_ID, *at, "--json").document["status"] == "cancelled"

    def test_what_the_present_state_forbids_ends_with_4(
        self, orchestrator: Orchestrator, engine: FakeEngine, at: At
    ) -> None:
        def refuse(_: dict[str, Any]) -> dict[str, Any]:
            raise Refusal(-32007, "a completed execution cannot be paused")

        engine.methods["workflow.pause"] = refuse
        assert orchestrator("pause", EXECUTION_ID, *at).code == 4


class TestRun:
    def test_without_follow_it_prints_the_id_and_goes(
        self, orchestrator: Orchestrator, engine: FakeEngine, at: At, definition: str
    ) -> None:
        accepts_runs(engine)
        outcome = orchestrator(
            "run", definition, *at, "--input", '{"n": 1}', "--timeout", "60", "--allow-concurrent",
            "--priority", "high", "--idempotency-key", "k",
        )  # fmt: skip
        assert outcome.stdout == f"{EXECUTION_ID}\n"
        assert "warning: tasks[0]: lonely" in outcome.stderr
        assert engine.calls[-1] == (
            "workflow.execute",
            {
                "workflow_id": WORKFLOW_ID,
                "input_data": {"n": 1},
                "execution_options": {"timeout": 60, "allow_concurrent": True, "priority": "high"},
                "idempotency_key": "k",
            },
        )
        assert orchestrator("run", definition, *at, "--json").document["execution_id"] == EXECUTION_ID

    def test_follow_shows_progress_and_ends_with_the_results(
        self, orchestrator: Orchestrator, engine: FakeEngine, at: At, definition: str
    ) -> None:
        accepts_runs(engine, status_of("executing", a="pending"), status_of("completed", a="completed"))
        engine.messages = [
            {"type": "agent.task_assigned", "data": {"task_id": "a", "agent_id": "w1"}},
            {"type": "workflow.status_changed", "data": {"new_status": "completed"}},
        ]
        outcome = orchestrator("run", definition, *at, "--follow", "--json")
        assert outcome.code == 0
        assert outcome.document["execution"]["status"] == "completed"
        assert outcome.document["results"] == {"a": {"n": 1}}
        assert "a assigned to w1" in outcome.stderr
        assert engine.sockets_opened == 1

    def test_results_that_the_listing_refers_to_are_asked_for_up_to_a_number(
        self,
        orchestrator: Orchestrator,
        engine: FakeEngine,
        at: At,
        definition: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("cli.run.LARGE_RESULTS_MAX", 2)
        accepts_runs(engine, status_of("completed", a="completed"))
        large = {"state": "completed", "result": None, "result_ref": "sha256:1"}
        engine.pages[f"/api/v1/executions/{EXECUTION_ID}/tasks"].append(
            {"items": [large | {"task_id": task_id} for task_id in ("l1", "l2", "l3")]}
        )
        engine.methods["execution.result"] = lambda params: {"result": f"all of {params['task_id']}"}
        outcome = orchestrator("run", definition, *at, "--follow", "--json")
        assert outcome.document["results"] == {"a": {"n": 1}, "l1": "all of l1", "l2": "all of l2", "l3": None}
        assert "1 more large results are shown as null" in outcome.stderr
        asked = [params for method, params in engine.calls if method == "execution.result"]
        assert asked == [{"execution_id": EXECUTION_ID, "task_id": task_id} for task_id in ("l1", "l2")]

    def test_an_execution_that_fails_ends_with_1_and_its_reason(
        self, orchestrator: Orchestrator, engine: FakeEngine, at: At, definition: str
    ) -> None:
        failed = status_of("failed", a="failed") | {"error_details": {"error_code": "X", "error_message": "boom"}}
        accepts_runs(engine, failed)
        outcome = orchestrator("run", definition, *at, "--follow")
        assert outcome.code == 1
        assert "error: X: boom" in outcome.stderr
        assert 'a: {"n": 1}' in outcome.stdout

    def test_a_definition_that_the_engine_refuses_ends_with_1_and_all_problems(
        self, orchestrator: Orchestrator, engine: FakeEngine, at: At, definition: str
    ) -> None:
        def refuse(_: dict[str, Any]) -> dict[str, Any]:
            raise Refusal(-32602, "the definition has problems", errors=[f"problem {number}" for number in range(60)])

        engine.methods["workflow.create"] = refuse
        outcome = orchestrator("run", definition, *at)
        assert outcome.code == 1
        assert "  - problem 0" in outcome.stderr
        assert "... and 10 more" in outcome.stderr
        assert len(orchestrator("run", definition, *at, "--json").document["error"]["errors"]) == 60

    def test_a_catalogue_is_refused_where_an_engine_runs_already(
        self, orchestrator: Orchestrator, engine: FakeEngine, at: At, definition: str, tmp_path: Path
    ) -> None:
        catalogue = tmp_path / "catalogue.yaml"
        catalogue.write_text("agents: {}")
        outcome = orchestrator("run", definition, *at, "--catalogue", str(catalogue))
        assert outcome.code == 2
        assert "orchestrator up" in outcome.stderr
        assert engine.calls == []

    def test_an_interrupt_says_how_to_go_on(
        self,
        orchestrator: Orchestrator,
        engine: FakeEngine,
        at: At,
        definition: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        accepts_runs(engine)
        monkeypatch.setattr("cli.run.follow_updates", interrupt)
        outcome = orchestrator("run", definition, *at, "--follow")
        assert outcome.code == 130
        assert f"orchestrator status {EXECUTION_ID}" in outcome.stderr


class TestRunWithAnEngineOfItsOwn:
    """Without a running engine."""

    @pytest.fixture(autouse=True)
    def _own_engine(self, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
        @contextmanager
        def start(data_dir: Path, catalogue: Path | None) -> Iterator[Connection]:
            self.started = (data_dir, catalogue)
            yield Connection(engine.url, TOKEN)

        monkeypatch.setattr("cli.run.own_engine", start)

    def test_it_is_started_and_followed_to_the_end(
        self, orchestrator: Orchestrator, engine: FakeEngine, definition: str, tmp_path: Path
    ) -> None:
        catalogue = tmp_path / "catalogue.yaml"
        catalogue.write_text("agents: {}")
        accepts_runs(engine, status_of("completed", a="completed"))
        arguments = ("run", definition, "--data-dir", str(tmp_path), "--catalogue", str(catalogue), "--json")
        outcome = orchestrator(*arguments)
        assert outcome.code == 0
        assert outcome.document["results"] == {"a": {"n": 1}}
        assert self.started == (tmp_path, catalogue)

    def test_an_interrupt_says_what_becomes_of_the_execution(
        self, orchestrator: Orchestrator, engine: FakeEngine, definition: str, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        accepts_runs(engine)
        monkeypatch.setattr("cli.run.follow_updates", interrupt)
        outcome = orchestrator("run", definition, "--data-dir", str(tmp_path))
        assert outcome.code == 130
        assert f"orchestrator up --data-dir {tmp_path}" in outcome.stderr


class TestDefinitions:
    def test_a_valid_definition_is_planned_without_any_engine(
        self, orchestrator: Orchestrator, definition: str
    ) -> None:
        assert orchestrator("validate", definition).code == 0
        document = orchestrator("validate", definition, "--json").document
        assert document["valid"] is True
        assert document["errors"] == []

    def test_every_problem_is_named_with_its_place(self, orchestrator: Orchestrator, tmp_path: Path) -> None:
        file = tmp_path / "bad.yaml"
        file.write_text(DEFINITION.replace("agent: worker, depends_on: [a]", "agent: nobody, depends_on: [zz]"))
        outcome = orchestrator("validate", str(file), "--json")
        assert outcome.code == 1
        document = outcome.document
        assert document["valid"] is False
        assert {error["location"] for error in document["errors"]} == {"tasks[1].agent", "tasks[1].depends_on[0]"}
        people = orchestrator("validate", str(file))
        assert people.code == 1
        assert "tasks[1].agent" in people.stderr

    def test_the_plan_shows_waves_and_the_critical_path(self, orchestrator: Orchestrator, definition: str) -> None:
        outcome = orchestrator("plan", definition)
        assert outcome.code == 0
        assert "two 1 (supervisor)" in outcome.stdout
        plan = orchestrator("plan", definition, "--json").document
        assert plan["waves"] == [[0], [1]]
        assert plan["critical_path"] == [0, 1]

    def test_a_definition_with_problems_has_no_plan(self, orchestrator: Orchestrator, tmp_path: Path) -> None:
        file = tmp_path / "bad.json"
        file.write_text(json.dumps({"name": "x"}))
        assert orchestrator("plan", str(file)).code == 1

    def test_advice_is_shown_with_a_valid_definition(self, orchestrator: Orchestrator, tmp_path: Path) -> None:
        file = tmp_path / "lonely.yaml"
        file.write_text(
            DEFINITION.replace("depends_on: [a]", "depends_on: [a], timeout_seconds: 1, estimated_seconds: 9")
        )
        outcome = orchestrator("validate", str(file))
        assert outcome.code == 0
        assert "  warning: tasks[1]" in outcome.stdout
