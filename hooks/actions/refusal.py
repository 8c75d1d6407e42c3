"""Why an action is refused: one place for the reasons, so that the audit log and clients can tell them apart."""

from typing import Literal

from engine.errors import InvalidHookActionError

Reason = Literal[
    "ADDRESS_FORBIDDEN",
    "ADDRESS_INVALID",
    "ARGUMENT_INVALID",
    "ARGUMENT_TOO_LONG",
    "COMMAND_MISSING",
    "COMMAND_NOT_ALLOWED",
    "CONTROL_CHARACTER",
    "ENVIRONMENT_NAME_RESERVED",
    "FLAG_NOT_PERMITTED",
    "FUNCTION_NOT_REGISTERED",
    "PATH_OUTSIDE_WORK_DIRECTORY",
    "PLACEHOLDER_UNKNOWN",
    "REPOSITORY_HOSTILE",
    "REQUEST_INVALID",
    "SANDBOX_REQUIRED",
    "SECRET_MISPLACED",
    "SHELL_SYNTAX",
    "SUBCOMMAND_NOT_PERMITTED",
    "URL_INVALID",
    "VALUE_MISSING",
    "WORK_DIRECTORY_INVALID",
]


def refused(reason: Reason, field: str, message: str, remedy: str) -> InvalidHookActionError:
    """To be raised. `message` may show what the client sent, never a secret's value."""
    return InvalidHookActionError(f"{field}: {message}", reason=reason, field=field, remedy=remedy)
