"""Compensation: what undoes the steps of an execution that does not come to its end.

A step with a `compensation_action` is registered with its first assignment. When the execution fails or is cancelled,
what is registered and was done, or may have been, is undone in reverse order. What could not be undone is left to an
operator.
"""

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from engine.contracts.definition import RetryPolicy
from engine.contracts.model import Model

NEVER_HAPPENED: Final = "NEVER_HAPPENED"
"""The code with which an agent says that there is nothing to undo. It counts as undone."""

Undone = Literal["compensated", "never_happened", "marked_done"]
"""How a step came to be undone; the last by an operator's word."""

CompensationStatus = Literal["not_required", "completed", "partial", "skipped", "past_pivot"]
"""`compensation_status` in `error_details`: nothing was to be undone; all was; something is left; the definition wants
no rollback; a pivot was passed, after which nothing is undone."""

CompensationState = Literal["waiting", "failed", "retrying", "compensated", "never_happened", "marked_done"]
"""Of a step that was left to an operator. `waiting`: for others that must be undone before it."""


class UndoStep(Model):
    """A step that is to be undone."""

    task_id: str
    certain: bool = Field(True, description="false: an attempt of it has ended in a way that leaves open what it did")


class Compensating(Model):
    """A try begins."""

    task_id: str
    attempt: int = Field(description="from 1")


class Compensated(Model):
    task_id: str
    attempt: int
    outcome: Undone = "compensated"


class Uncompensated(Model):
    """A try has failed. `retry_at_ms` is None when there will be no other."""

    task_id: str
    attempt: int
    code: str
    message: str
    retry_at_ms: int | None = None


class LeftCompensation(Model):
    """A step that stays as it is, for an operator to retry or to mark as done."""

    task_id: str
    position: int = Field(description="in the order of undoing, from 1")
    failed: bool = Field(description="false: it was not tried, because of those that must be undone before it")
    blocked_by: tuple[str, ...] = Field((), description="those")
    certain: bool = True
    attempts: int = 0
    code: str = ""
    message: str = ""
    epoch: int = 1
    retry: RetryPolicy


class CompensationCall(Model):
    """What the activity that has a step undone is told."""

    attempt: int
    certain: bool = True
    agent_id: str = ""


class CompensationView(Model):
    """A step that was left, as operators see it."""

    task_id: str
    state: CompensationState
    certain: bool
    attempts: int
    blocked_by: tuple[str, ...] = ()
    error_code: str = ""
    error_message: str = ""
    actor: str | None = Field(None, description="who retried it or marked it as done")
    updated_at: datetime


class CompensationAnswer(Model):
    """What came of an operator's request."""

    task_id: str
    state: CompensationState
    compensation_status: CompensationStatus


class RetryRequest(Model):
    """The argument of the workflow that retries what an operator asks for."""

    tenant: str
    execution_id: str
    workflow_id: str
    trace_id: str
    task_id: str
    request_id: str = Field(description="names the run")
    undone: int = Field(0, description="by the runs before")


class PendingRetry(Model):
    """A step that an operator wants to be tried again."""

    task_id: str
    certain: bool
    attempts: int
    epoch: int
    retry: RetryPolicy


class RetryOutcome(Model):
    """What came of a try after the execution was closed."""

    tenant: str
    execution_id: str
    task_id: str
    attempt: int
    ok: bool
    outcome: Undone = "compensated"
    code: str = ""
    message: str = ""
    final: bool = Field(True, description="no other try follows by itself")


class TaskToUndo(Model):
    """What is stored of a task that is to be undone."""

    agent_id: str | None = None
    result: Any = None
