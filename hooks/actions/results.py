"""Outcomes from what happened: texts decoded, freed of secrets and of what a database or a terminal cannot take."""

import re
import time
from typing import Final

from engine.contracts import limits
from engine.errors import InvalidHookActionError
from hooks.actions.outcome import OUTPUT_LENGTH_MAX, ActionOutcome, ActionStatus
from hooks.sandbox.spec import Ended, StopReason
from hooks.secrets import SecretValues

UNPRINTABLE: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")
"""Colours and control characters."""

STOPPED: Final[dict[StopReason, tuple[ActionStatus, str, str, bool]]] = {
    "time": ("timeout", "TIMEOUT", "took longer than it may", False),
    "memory": ("failed", "MEMORY_EXCEEDED", "used more memory than it may", True),
    "processes": ("failed", "PROCESSES_EXCEEDED", "started more processes than it may", True),
    "disk": ("failed", "DISK_EXCEEDED", "wrote more to disk than it may", True),
    "output": ("failed", "OUTPUT_EXCEEDED", "printed more than it may", True),
    "stopped": ("failed", "STOPPED", "was stopped", False),
}
"""Status, code, text, and whether it counts as tried against the limits."""


def readable(data: bytes) -> str:
    return UNPRINTABLE.sub("", data.decode(errors="replace"))


def from_ended(ended: Ended, program: str, secrets: SecretValues) -> ActionOutcome:
    """What a command printed, first the one output and then the other."""
    parts = [secrets.redact(readable(data), truncated=ended.truncated) for data in (ended.stdout, ended.stderr)]
    output = "\n".join(filter(None, (part.rstrip("\n") for part in parts)))
    return outcome_of(ended, program, output)


def outcome_of(ended: Ended, program: str, output: str) -> ActionOutcome:
    status: ActionStatus = "completed"
    code: str | None = None
    message: str | None = None
    breach = False
    if ended.reason is not None:
        status, code, text, breach = STOPPED[ended.reason]
        message = f"{program} {text}"
    elif ended.exit_code != 0:
        status, code = "failed", "EXIT_STATUS"
        exit_code = ended.exit_code or 0
        message = f"{program} ended with " + (f"status {exit_code}" if exit_code > 0 else f"signal {-exit_code}")
    return ActionOutcome(
        status=status,
        output=output[:OUTPUT_LENGTH_MAX],
        output_truncated=ended.truncated or len(output) > OUTPUT_LENGTH_MAX,
        error_code=code,
        error_message=message,
        refused=breach,
        retryable=not breach,
        duration_ms=ended.duration_ms,
    )


def refusal_outcome(error: InvalidHookActionError, secrets: SecretValues, started_at: float) -> ActionOutcome:
    """What was refused when it was about to run; it would be refused again."""
    message = secrets.redact(f"{error.message} ({error.data.get('remedy')})")
    return ActionOutcome(
        status="failed",
        error_code=str(error.data.get("reason", error.code)),
        error_message=message[: limits.ERROR_MESSAGE_LENGTH_MAX],
        refused=True,
        retryable=False,
        duration_ms=_elapsed_ms(started_at),
    )


def failed(
    code: str, message: str, secrets: SecretValues, started_at: float, status: ActionStatus = "failed"
) -> ActionOutcome:
    return ActionOutcome(
        status=status,
        error_code=code,
        error_message=readable(secrets.redact(message).encode(errors="replace"))[: limits.ERROR_MESSAGE_LENGTH_MAX],
        duration_ms=_elapsed_ms(started_at),
    )


def _elapsed_ms(started_at: float) -> int:
    return round((time.monotonic() - started_at) * 1000)
