"""The driver's errors, in the engine's terms."""

import asyncio

import asyncpg
import pytest

from engine.errors import ConfigurationError, EngineError, InvalidParametersError, NotFoundError, UnavailableError
from engine.postgres.failures import translated_failures


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (asyncpg.ConnectionDoesNotExistError("x"), UnavailableError),
        (asyncpg.CannotConnectNowError("x"), UnavailableError),
        (asyncpg.AdminShutdownError("x"), UnavailableError),
        (asyncpg.QueryCanceledError("x"), UnavailableError),
        (asyncpg.TooManyConnectionsError("x"), UnavailableError),
        (asyncpg.DiskFullError("x"), UnavailableError),
        (asyncpg.DeadlockDetectedError("x"), UnavailableError),
        (asyncpg.SerializationError("x"), UnavailableError),
        (asyncpg.LockNotAvailableError("x"), UnavailableError),
        (asyncpg.InterfaceError("x"), UnavailableError),
        (ConnectionRefusedError(), UnavailableError),
        (TimeoutError(), UnavailableError),
        (asyncpg.UntranslatableCharacterError("x"), InvalidParametersError),
        (asyncpg.CharacterNotInRepertoireError("x"), InvalidParametersError),
        (asyncpg.DataError("x"), InvalidParametersError),
        (asyncpg.UndefinedTableError("x"), ConfigurationError),
        (asyncpg.InvalidPasswordError("x"), ConfigurationError),
        (asyncpg.InvalidCatalogNameError("x"), ConfigurationError),
        (asyncpg.InsufficientPrivilegeError("x"), ConfigurationError),
        (asyncpg.CheckViolationError("x"), EngineError),
    ],
)
def test_each_failure_has_its_meaning(raised: Exception, expected: type[EngineError]) -> None:
    with pytest.raises(EngineError) as caught, translated_failures():
        raise raised
    assert type(caught.value) is expected
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [NotFoundError("x"), ZeroDivisionError(), asyncio.CancelledError()])
def test_what_is_not_the_drivers_passes(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, translated_failures():
        raise raised
    assert caught.value is raised
