"""`orchestrator hooks`: what is asked of the engine, and what is shown."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import EXECUTION_ID, FakeEngine, Refusal

At = tuple[str, ...]
HOOK_ID = "1b0d9c1e-2f6a-4a3f-9d1b-3a5e6f708192"
CREATED = "2026-01-01T00:00:00Z"


def hook(**changes: Any) -> dict[str, Any]:
    return {
        "hook_id": HOOK_ID,
        "name": "formats",
        "description": "",
        "trigger": "post_task",
        "event_pattern": "task=.*code",
        "action": {"type": "command", "command": "ruff format {file}", "function": None, "args": [], "secrets": {}},
        "mode": "asynchronous",
        "on_error": "veto",
        "priority": 50,
        "enabled": True,
        "timeout_seconds": 30,
        "retry_policy": {"max_attempts": 3, "backoff": "exponential"},
        "created_at": CREATED,
        "updated_at": CREATED,
        "execution_stats": {
            "total_executions": 4, "successful_executions": 3, "failed_executions": 1, "average_duration_ms": 12.5,
        },
        "circuit": {"state": "closed", "consecutive_failures": 0, "opened_at": None, "tried_at": None},
        **changes,
    }  # fmt: skip


def answer(engine: FakeEngine, method: str, result: dict[str, Any]) -> list[dict[str, Any]]:
    """What the method answers; and the parameters that it was called with."""
    asked: list[dict[str, Any]] = []

    def respond(params: dict[str, Any]) -> dict[str, Any]:
        asked.append(params)
        return result

    engine.methods[method] = respond
    return asked


REGISTERED = {
    "hook_id": HOOK_ID,
    "name": "formats",
    "trigger": "post_task",
    "status": "registered",
    "created_at": CREATED,
}


def test_a_hook_is_registered_from_options(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    asked = answer(engine, "hooks.register", REGISTERED)
    outcome = orchestrator(
        "hooks", "register", "--name", "formats", "--trigger", "post_task", "--pattern", "task=x", "--command",
        "ruff format {file}", "--arg", "--quiet", "--secret", "API_TOKEN=github", "--priority", "5", "--timeout", "9",
        "--retries", "2", "--backoff", "linear", "--mode", "asynchronous", "--disabled", *at,
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    assert HOOK_ID in outcome.stdout
    assert asked == [
        {
            "name": "formats",
            "trigger": "post_task",
            "event_pattern": "task=x",
            "action": {
                "type": "command",
                "command": "ruff format {file}",
                "args": ["--quiet"],
                "secrets": {"API_TOKEN": "github"},
            },
            "mode": "asynchronous",
            "priority": 5,
            "timeout_seconds": 9,
            "retry_policy": {"max_attempts": 2, "backoff": "linear"},
            "enabled": False,
        }
    ]


def test_a_hook_is_registered_from_a_file_and_options_go_before_it(
    orchestrator: Orchestrator, engine: FakeEngine, at: At, tmp_path: Path
) -> None:
    asked = answer(engine, "hooks.register", REGISTERED)
    source = tmp_path / "hook.yaml"
    source.write_text("name: a\ntrigger: post_task\naction: {type: function, function: note}\n")
    assert orchestrator("hooks", "register", str(source), "--name", "b", *at, "--json").document == REGISTERED
    assert asked[0]["name"] == "b"
    assert asked[0]["action"] == {"type": "function", "function": "note"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("register", "--command", "ruff", "--function", "f"),
        ("register", "--arg", "x"),
        ("register", "--function", "f", "--secret", "NONE"),
        ("register", "/nowhere/at/all.yaml"),
        ("switch", "perhaps"),
        ("execute", HOOK_ID, "--context", "{"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_engine_is_asked(
    orchestrator: Orchestrator, engine: FakeEngine, at: At, arguments: tuple[str, ...]
) -> None:
    outcome = orchestrator("hooks", *arguments, *at)
    assert outcome.code == 2, outcome.stderr
    assert engine.calls == []


def test_a_file_without_a_hook_is_refused(orchestrator: Orchestrator, at: At, tmp_path: Path) -> None:
    source = tmp_path / "hook.yaml"
    source.write_text("- 1\n")
    assert orchestrator("hooks", "register", str(source), *at).code == 2


def test_listings_show_what_is_on_disabled_and_switched_off(
    orchestrator: Orchestrator, engine: FakeEngine, at: At
) -> None:
    names = ("hook_id", "name", "trigger", "mode", "priority", "enabled", "timeout_seconds", "created_at")
    row = {name: hook()[name] for name in names} | {"circuit": "closed"}
    rows = [row, row | {"name": "off", "enabled": False}, row | {"name": "broken", "circuit": "open"}]
    asked = answer(engine, "hooks.list", {"hooks": rows, "next_page_token": "t"})
    outcome = orchestrator("hooks", "list", "--trigger", "post_task", "--enabled", *at)
    lines = outcome.stdout.splitlines()[1:]
    assert [line.rstrip().split("  ")[-1].strip() for line in lines] == ["on", "disabled", "switched off"]
    assert "--page-token t" in outcome.stderr
    assert asked == [{"limit": 100, "trigger": "post_task", "enabled": True}]
    assert orchestrator("hooks", "list", *at, "--json").document["hooks"] == rows


def test_a_hook_is_shown_with_its_statistics_and_circuit(
    orchestrator: Orchestrator, engine: FakeEngine, at: At
) -> None:
    circuit = {"state": "open", "consecutive_failures": 5, "opened_at": CREATED, "tried_at": CREATED}
    answer(engine, "hooks.get", hook(circuit=circuit, retry_policy=None))
    shown = orchestrator("hooks", "get", HOOK_ID, *at).stdout
    assert "4, 1 failed, 12.5 ms on average" in shown
    assert "open, tried" in shown
    assert "no repetition" in shown
    assert "ruff format {file}" in shown


@pytest.mark.parametrize(("command", "method"), [("enable", "hooks.enable"), ("disable", "hooks.disable")])
def test_hooks_are_enabled_and_disabled(
    orchestrator: Orchestrator, engine: FakeEngine, at: At, command: str, method: str
) -> None:
    asked = answer(engine, method, hook())
    assert orchestrator("hooks", command, HOOK_ID, *at, "--json").document == hook()
    assert asked == [{"hook_id": HOOK_ID}]


def test_an_update_says_only_what_changes_and_an_empty_pattern_takes_it_away(
    orchestrator: Orchestrator, engine: FakeEngine, at: At
) -> None:
    asked = answer(engine, "hooks.update", hook())
    assert orchestrator("hooks", "update", HOOK_ID, "--pattern", "", "--function", "note", *at).code == 0
    action = {"type": "function", "function": "note", "args": []}
    assert asked == [{"hook_id": HOOK_ID, "event_pattern": None, "action": action}]


def test_a_hook_is_deleted(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    answer(engine, "hooks.delete", {"hook_id": HOOK_ID, "status": "deleted"})
    assert "is deleted" in orchestrator("hooks", "delete", HOOK_ID, *at).stdout
    assert orchestrator("hooks", "delete", HOOK_ID, *at, "--json").document["status"] == "deleted"


def test_a_run_shows_its_output_and_ends_as_the_run_did(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    run = {
        "execution_id": EXECUTION_ID, "hook_id": HOOK_ID, "status": "completed", "output": "done",
        "error_message": None, "duration_ms": 7,
    }  # fmt: skip
    asked = answer(engine, "hooks.execute", run)
    outcome = orchestrator("hooks", "execute", HOOK_ID, "--context", '{"task_id": "a"}', *at)
    assert (outcome.code, outcome.stdout) == (0, "done\n")
    assert "completed after 7 ms" in outcome.stderr
    assert asked == [{"hook_id": HOOK_ID, "context": {"task_id": "a"}}]
    answer(engine, "hooks.execute", run | {"status": "failed", "error_message": "no"})
    failed = orchestrator("hooks", "execute", HOOK_ID, *at, "--json")
    assert (failed.code, failed.document["status"]) == (1, "failed")


def test_runs_are_listed(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    run = {
        "execution_id": EXECUTION_ID, "hook_id": HOOK_ID, "workflow_execution_id": None, "status": "failed",
        "output": "", "error_message": "broken", "duration_ms": 3, "attempts": 4, "trigger": "post_task",
        "event_matched": "task.completed", "executed_at": CREATED,
    }  # fmt: skip
    engine.documents["/api/v1/hooks/executions"] = {"items": [run], "next_page_token": "t"}
    outcome = orchestrator("hooks", "executions", "--hook", HOOK_ID, *at)
    assert "broken" in outcome.stdout
    assert "--page-token t" in outcome.stderr
    assert orchestrator("hooks", "executions", *at, "--json").document["items"] == [run]


def test_the_switch_is_shown_and_turned(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    answer(engine, "hooks.switch", {"enabled": True, "engine_enabled": False})
    outcome = orchestrator("hooks", "switch", *at)
    assert outcome.stdout == "hooks are on\n"
    assert "ORCHESTRATOR_HOOKS_ENABLED" in outcome.stderr
    asked = answer(engine, "hooks.set_switch", {"enabled": False, "engine_enabled": True})
    assert orchestrator("hooks", "switch", "off", *at).stdout == "hooks are off\n"
    assert asked == [{"enabled": False}]
    assert orchestrator("hooks", "switch", "off", *at, "--json").document["enabled"] is False


@pytest.mark.parametrize(("code", "exit_code"), [(-32011, 4), (-32012, 2), (-32013, 2), (-32014, 3), (-32015, 4)])
def test_what_the_engine_refuses_has_its_exit_code(
    orchestrator: Orchestrator, engine: FakeEngine, at: At, code: int, exit_code: int
) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise Refusal(code, "no")

    engine.methods["hooks.delete"] = refuse
    assert orchestrator("hooks", "delete", HOOK_ID, *at).code == exit_code
