"""What an action knows of the event that it answers to.

Commands take it by placeholders (`{task_id}`, `{file}`, `{result.path}`), functions as the object itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import Field

from engine.contracts.model import Model


class HookContext(Model):
    """One event, flat. Fields that do not apply to a trigger are absent."""

    tenant: str
    trigger: str
    subject: str
    """The string against which `event_pattern` is matched."""
    hook_id: UUID | None = None
    hook_name: str | None = None
    event_type: str | None = None
    sequence: int | None = None
    execution_id: UUID | None = None
    workflow_id: UUID | None = None
    workflow_name: str | None = None
    task_id: str | None = None
    agent_id: str | None = None
    role: str | None = None
    attempt: int | None = None
    status: str | None = None
    file: str | None = None
    """The file that the task wrote, below the working directory; taken from `result["file"]` when absent."""
    input: Any = None
    result: Any = None
    error: str | None = None
    values: Mapping[str, Any] = Field(default_factory=dict)
    """What a simulated context of `hooks.execute` has besides."""
    work_dir: Path | None = None
    """The tenant's working directory: the only place that a command can write to."""
    run_key: str | None = None
    """The same for everybody who does this very run again; nothing of the event, so no placeholder has it."""
