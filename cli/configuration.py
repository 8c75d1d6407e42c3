"""Settings for commands: a wrong one is a message that names the variable, not a stack trace."""

from typing import Any

from pydantic import ValidationError

from engine.errors import ConfigurationError
from engine.settings import Settings


def load_settings(**given: Any) -> Settings:
    """Settings from the environment; options that are not None come before it."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"{_variable(problem['loc'])}: {problem['msg']}" for problem in error.errors())
        raise ConfigurationError(f"settings are wrong: {problems}") from error


def _variable(location: tuple[int | str, ...]) -> str:
    """The environment variable of a field: the four addresses have names of their own."""
    name = str(location[0]) if location else "settings"
    return name if name.isupper() else f"ORCHESTRATOR_{name.upper()}"
