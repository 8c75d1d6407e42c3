"""Exit codes of the command and which error ends in which. They are part of the contract: scripts rely on them."""

from enum import IntEnum

from engine.errors import (
    CheckpointNotFoundError,
    ConfigurationError,
    EngineError,
    InvalidDefinitionError,
    InvalidHookActionError,
    InvalidHookTriggerError,
    InvalidLogicError,
    InvalidParametersError,
    NotFoundError,
)


class ExitCode(IntEnum):
    """What the process answers to its shell."""

    OK = 0
    FAILED = 1
    """The execution failed or was cancelled, the definition has errors, or `doctor` found something."""
    USAGE = 2
    """The command line, a file or a setting is wrong."""
    NOT_FOUND = 3
    REFUSED = 4
    """Not allowed, or not possible in the present state."""
    UNAVAILABLE = 5
    """No engine, or a server that it needs, answers. The same command may work later."""
    INTERNAL = 70
    """A defect of the engine."""
    INTERRUPTED = 130


def exit_code_of(error: EngineError) -> ExitCode:
    if isinstance(error, NotFoundError | CheckpointNotFoundError):
        return ExitCode.NOT_FOUND
    if isinstance(error, InvalidDefinitionError | InvalidLogicError):
        return ExitCode.FAILED
    if isinstance(
        error, InvalidParametersError | ConfigurationError | InvalidHookActionError | InvalidHookTriggerError
    ):
        return ExitCode.USAGE
    if error.transient:
        return ExitCode.UNAVAILABLE
    if error.code == EngineError.code:
        return ExitCode.INTERNAL
    return ExitCode.REFUSED
