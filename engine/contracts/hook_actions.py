"""What a hook does: run an allowed command, or call a function that the operator registered by name."""

from typing import Annotated, Final, Literal

from pydantic import Field

from engine.contracts.model import StrictModel

HookActionType = Literal["command", "function"]

ARGUMENTS_MAX: Final = 100
ARGUMENT_LENGTH_MAX: Final = 8_192
COMMAND_LENGTH_MAX: Final = 8_192
SECRETS_MAX: Final = 20

SECRET_ID_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"  # noqa: S105 - a pattern, not a secret
ENVIRONMENT_NAME_PATTERN: Final = r"^[A-Z][A-Z0-9_]{0,63}$"

SecretId = Annotated[str, Field(pattern=SECRET_ID_PATTERN)]
EnvironmentName = Annotated[str, Field(pattern=ENVIRONMENT_NAME_PATTERN)]


class HookAction(StrictModel):
    """As clients write it. What it may name is checked by `hooks.actions.command` and `hooks.actions.functions`."""

    type: HookActionType
    command: str | None = Field(None, min_length=1, max_length=COMMAND_LENGTH_MAX)
    """A program's name or a whole command line, which is split as a shell would and never given to one."""
    function: str | None = Field(None, min_length=1, max_length=255)
    """The name under which the operator registered it, not an import path."""
    args: Annotated[list[Annotated[str, Field(max_length=ARGUMENT_LENGTH_MAX)]], Field(max_length=ARGUMENTS_MAX)] = (
        Field(default_factory=list)
    )
    secrets: Annotated[dict[EnvironmentName, SecretId], Field(max_length=SECRETS_MAX)] = Field(default_factory=dict)
    """Environment variables of the command and the ids of the secrets that they hold."""
