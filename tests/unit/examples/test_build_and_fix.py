"""The parts of the hierarchical example, without an engine."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.build_and_fix import leads, repository, workers
from examples.build_and_fix.mending import TRIES_MAX, mend
from orchestration_agent import Task, TaskFailed
from planner.parse import parse_definition

HERE = Path(repository.__file__).parent


def task(action: str, folder: Path, role: str = "builder", context: Any = None, **given: Any) -> Task:
    return Task(
        task_id=action, agent_id=f"{role}-1", role=role, action=action, execution_id="x", report=lambda _: None,
        input=given, execution_input={"repository": str(folder)}, context=context,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    repository.lay_out(tmp_path / "work")
    return tmp_path / "work"


def test_the_definition_is_valid() -> None:
    definition = parse_definition(yaml.safe_load((HERE / "workflow.yaml").read_text()))
    assert definition.orchestration_pattern == "hierarchical"


def test_the_repository_is_broken_and_the_fixer_mends_what_it_can(folder: Path) -> None:
    for action in ("lint", "test-wrap"):
        with pytest.raises(TaskFailed):
            workers.build(task(action, folder, module="wrap"))
        workers.fix(task(action, folder, "fixer", module="wrap"))
    assert "<= width" in repository.module_path(folder, "wrap").read_text()
    assert repository.lint(folder) == ""
    workers.fix(task("test-wrap", folder, "fixer", module="wrap"))  # it may run twice


def test_what_no_small_change_mends_is_taken_from_the_release(folder: Path) -> None:
    with pytest.raises(TaskFailed) as failure:
        workers.fix(task("test-money", folder, "fixer", module="money"))
    assert failure.value.code == "CANNOT_MEND"
    assert workers.restore(task("test-money", folder, "architect", module="money")) == {"passed": "money"}


def test_a_package_has_a_new_version(folder: Path) -> None:
    with pytest.raises(TaskFailed) as failure:
        workers.build(task("package", folder, version="1.0.0"))
    assert failure.value.code == "VERSION_TAKEN"
    for _ in range(2):
        made = workers.build(task("package", folder, version="1.0.1"))
    assert (folder / "dist" / made["package"]).is_file()


@pytest.mark.parametrize(("action", "code"), [("sign", "NO_KEY"), ("sing", "UNKNOWN_ACTION")])
def test_what_a_builder_cannot_do(folder: Path, action: str, code: str) -> None:
    with pytest.raises(TaskFailed) as failure:
        workers.build(task(action, folder))
    assert failure.value.code == code


def told(code: str, task_id: str = "a", **more: Any) -> dict[str, Any]:
    return {"escalation": {"task_id": task_id, "error": {"code": code}}, **more}


@pytest.mark.parametrize(
    ("lead", "context", "decision"),
    [
        (leads.foreman, told("AGENT_LOST"), "retry"),
        (leads.architect, told("AGENT_LOST"), "retry"),
        (leads.foreman, told("LINT"), "reassign"),
        (leads.foreman, told("TESTS", "test-money"), "reassign"),
        (leads.foreman, told("TESTS", "test-money", refused="no"), "reassign"),
        (leads.foreman, told("VERSION_TAKEN"), "retry"),
        (leads.foreman, told("NO_KEY"), "escalate"),
        (leads.architect, told("CANNOT_MEND"), "reassign"),
        (leads.architect, told("NO_KEY"), "resolve"),
        (leads.architect, told("LINT"), "escalate"),
    ],
)
def test_leads_decide_by_the_error(tmp_path: Path, lead: Any, context: Any, decision: str) -> None:
    assert lead(task("escalation", tmp_path, context=context))["decision"] == decision


def test_a_lead_knows_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed):
        leads.foreman(task("cook", tmp_path))


def test_an_architect_restores(folder: Path) -> None:
    assert leads.architect(task("test-money", folder, "architect", module="money")) == {"passed": "money"}


def test_mending_tries_comparisons_operations_and_numbers_and_then_gives_up() -> None:
    tried: list[str] = []

    def passes(candidate: str) -> bool:
        tried.append(candidate)
        return False

    assert mend("x = a < b\ny = a + 1\n", passes) == (None, 4)
    assert tried == [
        "x = a <= b\ny = a + 1\n",
        "x = a < b\ny = a - 1\n",
        "x = a < b\ny = a + 2\n",
        "x = a < b\ny = a + 0\n",
    ]
    assert mend("x = [" + "1, " * 100 + "]\n", passes) == (None, TRIES_MAX)
