"""Models made without validation are the same as validated ones, in every respect that anybody looks at."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import engine
import planner
import workflows
from engine.contracts.circuits import CallEnd
from engine.contracts.definition import RetryPolicy
from engine.contracts.dynamic import ExternalEvent
from engine.contracts.events import AgentEvent, AgentEventType, AuditEvent, AuditEventType, InboxBatch, TaskError
from engine.contracts.kernel import Attempt, Delta, Done, KernelTask, Metrics, Submission, TaskResult, TickProposal
from engine.contracts.model import Model

EVENT = AgentEvent(type=AgentEventType.TASK_COMPLETED, at_ms=5, task_id="a", result={"x": [1, None]})
FULL: dict[type[Model], dict[str, Any]] = {
    KernelTask: {"id": "a", "role": "r", "deps": (0, 1), "slack_ms": 3, "retry": RetryPolicy(), "alone": True},
    InboxBatch: {"entry_id": "1-0", "partition": 2, "fence": 3, "low": "0-0", "events": (EVENT,)},
    AgentEvent: {"type": AgentEventType.TASK_FAILED, "at_ms": 1, "task_id": "a", "attempt": 2,
                 "error": TaskError(code="X"), "spawn": ({"id": "b"},)},
    Attempt: {"task_id": "a", "agent_id": "b", "attempt": 3, "host_id": "h"},
    CallEnd: {"verdict": "failed", "call_id": "c", "counted_as": "host/h"},
    Done: {"task_id": "a", "attempt": 1, "agent_id": "b", "started_at_ms": 1, "at_ms": 2},
    Submission: {"task_id": "a", "attempt": 1, "at_ms": 2, "result": {"x": 1}, "code": "X", "message": "m"},
    ExternalEvent: {"event_id": "e", "type": "t", "at_ms": 1, "payload": {"x": [1]}},
    TaskResult: {"task_id": "a", "attempt": 1, "result": {"deep": [{}]}, "result_ref": None},
    AuditEvent: {"type": AuditEventType.TASK_ASSIGNED, "at_ms": 1, "payload": {"task_id": "a"}},
    TickProposal: {"tenant": "t", "execution_id": "e", "workflow_id": "w", "trace_id": "tr", "tick": 1, "base_tick": 0,
                   "epoch": 1, "partition": 0, "delta": Delta(tick=1, at_ms=1), "hosts": {"a": "h"},
                   "agent_failures": {"synthetic": 1},
                   "audit": (AuditEvent(type=AuditEventType.TASK_ASSIGNED, at_ms=1),), "metrics": Metrics()},
}  # fmt: skip
"""Every model that is made so, with all that it requires."""

WHAT_MAKES_THEM = [Path(package.__path__[0]) for package in (engine, planner, workflows)]


def must_be_given(model: type[Model]) -> set[str]:
    """What has no default, or one that is made anew for each."""
    return {name for name, field in model.model_fields.items() if field.is_required() or field.default_factory}


@st.composite
def made(draw: st.DrawFn) -> tuple[type[Model], dict[str, Any]]:
    """All that must be given, and any of the rest."""
    model = draw(st.sampled_from(list(FULL)))
    needed = must_be_given(model)
    return model, {name: value for name, value in FULL[model].items() if name in needed or draw(st.booleans())}


@given(made())
def test_they_equal_validated_models_however_they_are_looked_at(case: tuple[type[Model], dict[str, Any]]) -> None:
    model, values = case
    trusted, validated, constructed = model.trusted(**values), model(**values), model.model_construct(**values)
    assert type(trusted) is model
    for other in (validated, constructed):
        assert trusted == other
        assert trusted.model_fields_set == other.model_fields_set
        assert list(trusted.__dict__) == list(other.__dict__), "the order of what is written"
        assert trusted.model_dump() == other.model_dump()
        assert trusted.model_dump_json() == other.model_dump_json()
        assert trusted.model_dump_json(exclude_defaults=True) == other.model_dump_json(exclude_defaults=True)
        assert trusted.model_dump_json(exclude_unset=True) == other.model_dump_json(exclude_unset=True)
        assert repr(trusted) == repr(other)
    assert model.model_validate_json(trusted.model_dump_json()) == trusted
    assert trusted.model_copy() == validated.model_copy()


@given(made())
def test_they_are_frozen_too_and_share_no_defaults_that_can_change(case: tuple[type[Model], dict[str, Any]]) -> None:
    model, values = case
    one, two = model.trusted(**values), model.trusted(**values)
    name = next(iter(model.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(one, name, None)
    for field in set(model.model_fields) - set(values):
        value = getattr(one, field)
        assert value is getattr(two, field)
        assert not isinstance(value, list | dict | set | bytearray)


def test_what_is_made_anew_for_each_is_given_wherever_such_models_are_made() -> None:
    """`trusted` has no value for it."""
    calls = list(trusted_calls())
    assert {name for name, _, _ in calls} <= {model.__name__ for model in FULL}, "add it to what is tested here"
    by_name = {model.__name__: model for model in FULL}
    for name, given_fields, where in calls:
        model = by_name[name]
        assert must_be_given(model) <= given_fields, where
        assert given_fields <= set(model.model_fields), where


def trusted_calls() -> Iterator[tuple[str, set[str], str]]:
    """(model, fields that are given, place) of each `Model.trusted(...)` in the sources."""
    for path in sorted(path for folder in WHAT_MAKES_THEM for path in folder.rglob("*.py")):
        text = path.read_text()
        if ".trusted(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "trusted":
                assert isinstance(node.func.value, ast.Name), f"{path}:{node.lineno}: name the model"
                fields = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                assert len(fields) == len(node.keywords), f"{path}:{node.lineno}: name the fields"
                yield node.func.value.id, fields, f"{path}:{node.lineno}"


def test_the_sources_are_really_looked_through() -> None:
    assert {"Attempt", "TickProposal", "InboxBatch"} <= {name for name, _, _ in trusted_calls()}
