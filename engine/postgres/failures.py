"""What the driver raises, in the engine's own terms."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from engine.errors import ConfigurationError, EngineError, InvalidParametersError, UnavailableError

_TRANSIENT = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # statement timeout, server shutting down or starting up
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # deadlock, serialization
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCachedStatementError,  # the schema was migrated under the connection
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection broke in the middle of an answer
    OSError,
    TimeoutError,
)
_MISCONFIGURED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
)


def translate(error: BaseException) -> EngineError:
    """The engine's error for one of the driver's."""
    if isinstance(error, asyncpg.DataError):
        # NUL characters are the usual reason; PostgreSQL's message does not contain the value.
        return InvalidParametersError("a value cannot be stored: it holds a NUL character or is out of range")
    if isinstance(error, _MISCONFIGURED):
        return ConfigurationError(
            f"PostgreSQL refuses: {error}; check the address and the roles, and run `orchestrator migrate`"
        )
    if isinstance(error, _TRANSIENT):
        return UnavailableError("PostgreSQL does not answer", reason=type(error).__name__)
    return EngineError("PostgreSQL refuses a statement", reason=type(error).__name__)


@contextmanager
def translated_failures() -> Iterator[None]:
    """Raises `engine.errors` for whatever the driver raises inside."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise translate(error) from error
