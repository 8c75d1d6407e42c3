"""Hooks: what people hang on the engine's events, the runs that come of it, and what passes through the queue."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from engine.contracts.definition import Text
from engine.contracts.hook_actions import HookAction
from engine.contracts.limits import NAME_LENGTH_MAX
from engine.contracts.model import Model, StrictModel

EVENT_PATTERN_LENGTH_MAX: Final = 500
HOOK_TIMEOUT_DEFAULT_SECONDS: Final = 30
HOOK_TIMEOUT_MAX_SECONDS: Final = 3_600
HOOK_RETRIES_MAX: Final = 10
HOOK_RETRY_DELAY_MAX_SECONDS: Final = 60.0
PRIORITY_DEFAULT: Final = 100
PRIORITY_MAX: Final = 1_000_000
HOOKS_MAX: Final = 10_000
"""Of one tenant."""
OUTPUT_KEPT_CHARACTERS_MAX: Final = 64 * 1024
"""Of a run's output, in its record."""


class HookTrigger(StrEnum):
    PRE_TASK = "pre_task"
    POST_TASK = "post_task"
    PRE_WORKFLOW = "pre_workflow"
    POST_WORKFLOW = "post_workflow"
    SESSION_START = "session_start"
    SESSION_END = "session_end"
    AGENT_ASSIGNED = "agent_assigned"
    AGENT_FAILED = "agent_failed"


class HookMode(StrEnum):
    BLOCKING = "blocking"
    """Runs before what it guards, and may veto it or change its input."""
    ASYNCHRONOUS = "asynchronous"
    """Queued; the workflow goes on meanwhile."""


GUARDING: Final = frozenset({HookTrigger.PRE_TASK, HookTrigger.PRE_WORKFLOW})
"""Always blocking: what they are told of has not happened yet."""

BLOCKABLE: Final = GUARDING | {HookTrigger.POST_WORKFLOW}
"""What an execution can wait for. The others report what has happened already."""


class HookRetryPolicy(StrictModel):
    """How often and when a failed run is repeated."""

    max_attempts: int = Field(3, ge=0, le=HOOK_RETRIES_MAX, description="repetitions after the first run")
    backoff: Literal["exponential", "linear"] = "exponential"
    initial_delay_seconds: float = Field(1.0, ge=0, le=HOOK_RETRY_DELAY_MAX_SECONDS, strict=False)
    max_delay_seconds: float = Field(HOOK_RETRY_DELAY_MAX_SECONDS, ge=0, le=3600, strict=False)

    def delay_seconds(self, failures: int) -> float | None:
        """Between the `failures`-th failure (from 1) and the next run; None when there is none."""
        if failures > self.max_attempts:
            return None
        factor = 2 ** min(failures - 1, 30) if self.backoff == "exponential" else failures
        return min(self.initial_delay_seconds * factor, self.max_delay_seconds)


_NULL_IS_ABSENT: Final = ("description", "mode")


def _printable(value: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ValueError("must not contain control characters")
    if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise ValueError("must be text")
    return value


HookName = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX), AfterValidator(_printable)]


class HookSettings(StrictModel):
    """What a client says of a hook, beside its name."""

    description: Text = ""
    trigger: HookTrigger = Field(strict=False)
    event_pattern: Annotated[str, Field(min_length=1, max_length=EVENT_PATTERN_LENGTH_MAX)] | None = Field(
        None, description="RE2; found anywhere in the event's subject; absent: every event of the trigger"
    )
    action: HookAction
    mode: HookMode = Field(HookMode.ASYNCHRONOUS, strict=False)
    on_error: Literal["veto", "proceed"] = Field(
        "veto", description="what a blocking hook's own failure means for what it guards"
    )
    priority: int = Field(PRIORITY_DEFAULT, ge=-PRIORITY_MAX, le=PRIORITY_MAX, description="lower runs first")
    enabled: bool = True
    timeout_seconds: int = Field(HOOK_TIMEOUT_DEFAULT_SECONDS, ge=1, le=HOOK_TIMEOUT_MAX_SECONDS)
    retry_policy: HookRetryPolicy | None = Field(None, description="absent: a failed run is not repeated")

    @model_validator(mode="before")
    @classmethod
    def _guards_block(cls, data: Any) -> Any:
        """A trigger that guards something is blocking without saying so."""
        if not isinstance(data, dict):
            return data
        data = {name: value for name, value in data.items() if value is not None or name not in _NULL_IS_ABSENT}
        return {"mode": HookMode.BLOCKING, **data} if data.get("trigger") in GUARDING else data

    @model_validator(mode="after")
    def _mode_fits(self) -> Self:
        if self.trigger in GUARDING and self.mode is not HookMode.BLOCKING:
            raise ValueError(f"mode: {self.trigger.value} hooks are blocking: what they guard has not happened yet")
        if self.mode is HookMode.BLOCKING and self.trigger not in BLOCKABLE:
            blockable = ", ".join(sorted(trigger.value for trigger in BLOCKABLE))
            raise ValueError(f"mode: {self.trigger.value} reports what has happened; only {blockable} can be blocking")
        return self


class NewHook(HookSettings):
    name: HookName


class HookConfig(NewHook):
    """A registered hook."""

    hook_id: UUID = Field(strict=False)
    created_at: datetime = Field(strict=False)
    updated_at: datetime = Field(strict=False)

    @property
    def blocking(self) -> bool:
        return self.mode is HookMode.BLOCKING


class HookStatistics(Model):
    total_executions: int = 0
    successful_executions: int = 0
    failed_executions: int = 0
    average_duration_ms: float = 0.0


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    """Switched off after repeated failures, until its time is over."""
    HALF_OPEN = "half_open"
    """The next run is a trial: it closes the circuit or opens it again."""


class HookCircuit(Model):
    state: CircuitState = CircuitState.CLOSED
    consecutive_failures: int = 0
    skipped_executions: int = Field(0, description="events that it missed while it was switched off")
    opened_at: datetime | None = None
    tried_at: datetime | None = Field(None, description="when a run is tried again")


class HookDetail(HookConfig):
    """A hook with how it has done."""

    execution_stats: HookStatistics = HookStatistics()
    circuit: HookCircuit = HookCircuit()


class HookSummary(Model):
    hook_id: UUID
    name: str
    trigger: HookTrigger
    mode: HookMode
    priority: int
    enabled: bool
    timeout_seconds: int
    created_at: datetime
    circuit: CircuitState = CircuitState.CLOSED


class HookExecutionStatus(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"


class HookExecution(Model):
    """One run of a hook, its repetitions included."""

    execution_id: UUID
    hook_id: UUID
    workflow_execution_id: UUID | None = None
    status: HookExecutionStatus
    output: str = ""
    error_message: str | None = None
    duration_ms: int
    attempts: int = 1
    trigger: HookTrigger | None = None
    event_matched: str | None = Field(None, description="the subject that the hook's pattern was found in")
    executed_at: datetime


class HookRun(Model):
    """A run that has ended, on its way to its record."""

    execution_id: UUID = Field(description="of the run; the same whoever does it again")
    hook_id: UUID
    hook_name: str
    workflow_execution_id: UUID | None = None
    trace_id: str = ""
    status: HookExecutionStatus
    output: str = ""
    error_message: str | None = None
    duration_ms: int
    attempts: int = 1
    trigger: HookTrigger
    event_matched: str = ""
    refused: bool = Field(False, description="it was not allowed to run, or was stopped for what it tried")
    announcement: dict[str, Any] | None = Field(
        None, description="payload of its hook.triggered event, where no tick has written that"
    )


class HookEntry(Model):
    """The hooks that one event matches, in the order in which they run. Journalled with the tick that has the event."""

    execution_id: str
    workflow_id: str
    tick: int
    position: int = Field(description="tells apart the entries of one tick")
    trigger: HookTrigger
    event_type: str
    subject: str
    band: int = Field(description="which of the queues: 0 is read first")
    hooks: tuple[UUID, ...]
    payload: dict[str, Any] = Field(default_factory=dict, description="the event's own")
    workflow_name: str = ""
    trace_id: str = ""
    at_ms: int


class DeliveryKey(Model):
    """Names a journalled entry."""

    execution_id: UUID
    tick: int
    position: int


class HookRule(Model):
    """What matching needs of a hook."""

    hook_id: UUID
    name: str
    trigger: HookTrigger
    event_pattern: str | None
    mode: HookMode
    priority: int


class Verdict(Model):
    """What the blocking hooks before something have said together."""

    decision: Literal["proceed", "veto"] = "proceed"
    reason: str = ""
    hook_id: str = Field("", description="which one vetoed")
    hook_name: str = ""
    input: dict[str, Any] | None = Field(None, description="what the task is to be given instead of its own input")
