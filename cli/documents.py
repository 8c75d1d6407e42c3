"""Reading what users write: definitions and input. Errors name the file, the place and the remedy."""

import json
import sys
from pathlib import Path
from typing import Any

from engine.contracts.limits import REQUEST_BYTES_MAX
from engine.errors import ConfigurationError, InvalidDefinitionError, InvalidParametersError
from planner.text import parse_text

STDIN = "-"


def load_definition(source: str) -> dict[str, Any]:
    """The definition in a file, or from stdin, JSON or YAML. Only its form is checked."""
    try:
        return parse_text(_read(source))
    except InvalidDefinitionError as error:
        raise InvalidDefinitionError(f"{_name(source)}: {error.message}", **error.data) from error


def load_input(option: str | None) -> dict[str, Any]:
    """`--input`: a JSON object, or `@FILE` (JSON or YAML). No option is an empty input."""
    if option is None:
        return {}
    if option.startswith("@"):
        try:
            return parse_text(_read(option[1:]))
        except InvalidDefinitionError as error:
            raise InvalidParametersError(f"--input {option}: {error.message}", **error.data) from error
    try:
        document = json.loads(option)
    except json.JSONDecodeError as error:
        raise InvalidParametersError(
            f"--input is not JSON (column {error.colno}: {error.msg}); "
            """write --input '{"key": "value"}', or --input @FILE"""
        ) from error
    except RecursionError as error:
        raise InvalidParametersError("--input is nested too deeply") from error
    if not isinstance(document, dict):
        raise InvalidParametersError("""--input must be a JSON object, such as '{"key": "value"}'""")
    return document


def _read(source: str) -> str:
    name = _name(source)
    try:
        if source == STDIN:
            content = sys.stdin.buffer.read(REQUEST_BYTES_MAX + 1)
        else:
            with Path(source).open("rb") as file:
                content = file.read(REQUEST_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {name}: {error.strerror}; check the path") from error
    if len(content) > REQUEST_BYTES_MAX:
        raise ConfigurationError(f"{name} is larger than {REQUEST_BYTES_MAX} bytes, which is the limit")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _name(source: str) -> str:
    return "stdin" if source == STDIN else source
