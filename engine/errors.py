"""Errors that callers can act on. Each has a stable code; how it looks on the wire is decided at the edge.

Permanent errors stay as they are however often one asks. Transient ones may pass: the same call may work later.
"""

from typing import Any, ClassVar


class EngineError(Exception):
    """Base of all. `code` is stable; `data` is safe to show to the caller."""

    code: ClassVar[str] = "INTERNAL"
    transient: ClassVar[bool] = False

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class InvalidDefinitionError(EngineError):
    """The definition has problems; `data["errors"]` lists them, located."""

    code = "INVALID_DEFINITION"


class InvalidParametersError(EngineError):
    code = "INVALID_PARAMETERS"


class UnsupportedPatternError(EngineError):
    code = "UNSUPPORTED_PATTERN"


class CapabilitiesUnavailableError(EngineError):
    code = "CAPABILITIES_UNAVAILABLE"


class ResourcesUnsatisfiableError(EngineError):
    code = "RESOURCES_UNSATISFIABLE"


class NotFoundError(EngineError):
    """No such thing, or not the caller's: the two are not to be told apart."""

    code = "NOT_FOUND"


class AlreadyExecutingError(EngineError):
    code = "ALREADY_EXECUTING"


class AllocationFailedError(EngineError):
    code = "RESOURCE_ALLOCATION_FAILED"


class AllocationTimeoutError(EngineError):
    code = "AGENT_ALLOCATION_TIMEOUT"
    transient = True


class InvalidTransitionError(EngineError):
    """The present state forbids it."""

    code = "INVALID_TRANSITION"


class CheckpointNotFoundError(EngineError):
    code = "CHECKPOINT_NOT_FOUND"


class UnauthenticatedError(EngineError):
    code = "UNAUTHENTICATED"


class ForbiddenError(EngineError):
    code = "FORBIDDEN"


class IdempotencyConflictError(EngineError):
    """The key was used before with another body."""

    code = "IDEMPOTENCY_KEY_REUSED"


class TooLargeError(EngineError):
    code = "TOO_LARGE"


class TooManyRequestsError(EngineError):
    """`data["retry_after_seconds"]` says when to come back."""

    code = "TOO_MANY_REQUESTS"
    transient = True


class UnavailableError(EngineError):
    """A server that the engine needs does not answer."""

    code = "UNAVAILABLE"
    transient = True


class CircuitOpenError(UnavailableError):
    """A circuit breaker lets nothing through at present; `data["retry_after_seconds"]` says when it may."""

    code = "CIRCUIT_OPEN"


class LaunchRefusedError(EngineError):
    """Temporal does not take the execution, and would not take it later either."""

    code = "LAUNCH_REFUSED"


class InvalidHookActionError(EngineError):
    """A hook's action is not allowed. `data` has `reason` (stable), `field` (where) and `remedy` (what to do)."""

    code = "INVALID_HOOK_ACTION"


class HookNameConflictError(EngineError):
    """Another hook of the tenant has that name."""

    code = "HOOK_NAME_CONFLICT"


class InvalidHookTriggerError(EngineError):
    code = "INVALID_HOOK_TRIGGER"


class HookNotFoundError(NotFoundError):
    """No such hook, or not the caller's."""

    code = "HOOK_NOT_FOUND"


class HookExecutionFailedError(EngineError):
    """The hook could not be run at all. A run that fails is a result, not an error."""

    code = "HOOK_EXECUTION_FAILED"


class PatternConflictError(EngineError):
    """The name is a built-in pattern's, or stands with that version for another pattern."""

    code = "PATTERN_NAME_CONFLICT"


class InvalidLogicError(EngineError):
    """A pattern's program or schema has problems; `data["errors"]` lists them, located."""

    code = "INVALID_COORDINATION_LOGIC"


class ConfigurationError(EngineError):
    """The operator's settings or files are wrong; the message names the setting and the remedy."""

    code = "CONFIGURATION"
