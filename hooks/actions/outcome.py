"""How an action ended. Its texts are capped and free of secrets' values, so that it may be stored as it is."""

from typing import Final, Literal

from pydantic import Field

from engine.contracts import limits
from engine.contracts.model import Model

ActionStatus = Literal["completed", "failed", "timeout"]

OUTPUT_LENGTH_MAX: Final = 256 * 1024
"""No setting keeps more of an output than this."""


class ActionOutcome(Model):
    """`error_code` is stable and absent only when `completed`; `output` is what the action printed or returned."""

    status: ActionStatus
    output: str = Field("", max_length=OUTPUT_LENGTH_MAX)
    output_truncated: bool = False
    error_code: str | None = None
    error_message: str | None = Field(None, max_length=limits.ERROR_MESSAGE_LENGTH_MAX)
    refused: bool = False
    """The action was not allowed to run, or was stopped for what it tried: for the audit log."""
    retryable: bool = True
    """Whether another attempt can end otherwise; a refusal stays one."""
    duration_ms: int = Field(ge=0)
