"""JSON Schemas that clients write: checked when they come in, and values checked against them.

Nothing is fetched: a schema that refers to another document is refused. Patterns are matched in linear time, and what
references unfold to is limited.
"""

from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs

from engine.errors import EngineError
from engine.schema_unfolding import Unfolding, UnfoldingError, depth_of

PATTERN_BYTES_MAX: Final = 1024 * 1024
"""Of a compiled pattern."""

VIOLATIONS_MAX: Final = 20
MESSAGE_LENGTH_MAX: Final = 300

Schema = Mapping[str, Any] | bool


class InvalidSchemaError(EngineError):
    """No JSON Schema, or one that this engine does not take. `data["path"]` is where."""

    code = "INVALID_SCHEMA"


class CompiledSchema:
    """A schema that is valid itself."""

    def __init__(self, schema: Schema) -> None:
        """Raises InvalidSchemaError."""
        document = schema if isinstance(schema, bool) else dict(schema)
        try:
            self._validator = jsonschema_rs.validator_for(
                document, offline=True, pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES_MAX)
            )
        except jsonschema_rs.ValidationError as error:
            path = list(error.instance_path)
            raise InvalidSchemaError(_located(path, error.message), path=path) from error
        except (jsonschema_rs.ReferencingError, ValueError) as error:
            raise InvalidSchemaError(str(error)[:MESSAGE_LENGTH_MAX], path=[]) from error
        try:
            self._unfolding = Unfolding({} if isinstance(document, bool) else document)
        except UnfoldingError as error:
            path = list(error.data["path"])
            raise InvalidSchemaError(_located(path, error.message), path=path) from error

    def violations(self, value: Any) -> list[str]:
        """What is wrong with the value, each with where; the first few. Empty: it fits."""
        found: list[str] = []
        try:
            if self._unfolding.refers:
                self._unfolding.check(depth_of(value))
            for error in self._validator.iter_errors(value):
                if len(found) == VIOLATIONS_MAX:
                    break
                found.append(_located(list(error.instance_path), error.message))
        except UnfoldingError as error:
            found.append(f"cannot be checked: for a value that is nested so deep the schema {error.message}")
        except ValueError as error:  # nested too deep, or text that is no Unicode
            found.append(f"cannot be checked: {str(error)[:MESSAGE_LENGTH_MAX]}")
        return found


def _located(path: list[str | int], message: str) -> str:
    where = ".".join(str(part) for part in path)
    short = message if len(message) <= MESSAGE_LENGTH_MAX else message[: MESSAGE_LENGTH_MAX - 3] + "..."
    return f"{where}: {short}" if where else short
