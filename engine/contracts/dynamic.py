"""What lets a graph change while it runs: conditions, fan-out over results, external events, added tasks, reuse.

The kernel only ever sees outcomes. What an expression gives is found out by an activity and recorded, so that every
replay sees the same, whatever evaluates expressions by then.
"""

from typing import Any, Literal

from pydantic import Field

from engine.contracts.limits import EVENT_NAME_PATTERN, NAME_LENGTH_MAX
from engine.contracts.model import Model


class ExternalEvent(Model):
    """Something that happened outside, as the signal `external_event` brings it."""

    event_id: str = Field(min_length=1, max_length=NAME_LENGTH_MAX)
    type: str = Field(min_length=1, max_length=NAME_LENGTH_MAX, pattern=EVENT_NAME_PATTERN)
    at_ms: int
    payload: Any = None


class Arrival(Model):
    """An external event in the workflow's state: its payload is in PostgreSQL."""

    event_id: str
    type: str
    at_ms: int
    number: int = Field(description="position among the execution's external events, from 1")


class Triggered(Model):
    """A task whose wait an event has ended."""

    task_id: str
    event_id: str


class Looked(Model):
    """None of the task's triggers took any event up to this number."""

    task_id: str
    number: int


class Expanded(Model):
    """A `for_each` task that became one task an element."""

    task_id: str
    size: int
    items_ref: str | None = Field(None, description="where the list is stored; none for an empty one")


class SpawnedBody(Model):
    """What the dispatcher needs of a spawned task, on its way into the database."""

    task_id: str
    spawned_by: str
    body: dict[str, Any]
    blocks: tuple[str, ...] = ()


class GraphWrites(Model):
    """What a tick stores beside its delta when the graph changed. Not part of the workflow's state."""

    bodies: tuple[SpawnedBody, ...] = ()
    received: tuple[ExternalEvent, ...] = ()
    reusable: tuple[str, ...] = Field((), description="completed tasks whose results others may take")


class EvaluationRequest(Model):
    """The argument of `evaluate_tasks`."""

    tenant: str
    execution_id: str
    epoch: int
    room: int = Field(description="elements that the execution may still add")
    tasks: tuple[str, ...] = Field((), description="tasks to decide on")
    matches: tuple["Candidate", ...] = ()


class Candidate(Model):
    """A trigger with a condition, and an event that it might take."""

    task_id: str
    trigger: int
    event_id: str


class TaskOutcome(Model):
    """What becomes of a task whose dependencies are done."""

    task_id: str
    decision: Literal["run", "skip", "expand", "reuse", "fail"]
    size: int = 0
    items_ref: str | None = None
    result: Any = None
    result_ref: str | None = None
    code: str = ""
    message: str = ""


class MatchOutcome(Model):
    task_id: str
    trigger: int
    event_id: str
    matched: bool


class Evaluation(Model):
    """The answer of `evaluate_tasks`. What is left out was not reached in time: ask again."""

    epoch: int
    tasks: tuple[TaskOutcome, ...] = ()
    matches: tuple[MatchOutcome, ...] = ()
