"""Turns the models' field errors into located problems with a remedy."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.contracts.definition import (
    AgentRequirement,
    CircuitBreakerConfig,
    Coordination,
    FaultTolerance,
    PatternReference,
    Resources,
    RetryPolicy,
    SagaConfig,
    TaskDefinition,
    Trigger,
    WorkflowDefinition,
)
from engine.contracts.limits import EVENT_NAME_PATTERN
from planner.problems import Location, ProblemList, Suggester, kind_of, quoted

_WANTED: Final[Mapping[str, str]] = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_LENGTHS: Final[Mapping[str, tuple[str, str]]] = {
    "string_too_long": ("max_length", "must have at most {} characters"),
    "too_long": ("max_length", "must have at most {} items"),
}
_POLICY_BRANCH = "RetryPolicy"


def add_field_problems(
    error: ValidationError, data: dict[str, Any], problems: ProblemList, suggester: Suggester
) -> None:
    """Add a problem for each of the models' errors; `data` is what was validated."""
    for details in error.errors(include_url=False):
        location = details["loc"]
        if len(location) > 3 and location[0] == "tasks" and location[2] == "retry_policy":
            narrowed = _in_the_branch_that_was_meant(details, data)
            if narrowed is None:
                continue
            location = narrowed
        _add(details, location, data, problems, suggester)


def _in_the_branch_that_was_meant(details: ErrorDetails, data: dict[str, Any]) -> Location | None:
    """A retry policy is a name or an object, and fails as both: only the branch that was meant is of use."""
    location = details["loc"]
    written = data["tasks"][location[1]]["retry_policy"]
    in_object = location[3] == _POLICY_BRANCH
    if in_object != isinstance(written, dict):
        return None
    return (*location[:3], *location[4:])


def _model_at(location: Location) -> type[BaseModel] | None:
    """The model whose field stands at `location`."""
    match location:
        case (_,):
            return WorkflowDefinition
        case ("agents", _, _):
            return AgentRequirement
        case ("agents", _, "resources", _):
            return Resources
        case ("tasks", _, _):
            return TaskDefinition
        case ("tasks", _, "retry_policy", _):
            return RetryPolicy
        case ("tasks", _, "triggers", _, _):
            return Trigger
        case ("pattern", _):
            return PatternReference
        case ("coordination", _):
            return Coordination
        case ("fault_tolerance", _):
            return FaultTolerance
        case ("fault_tolerance", "circuit_breaker", _):
            return CircuitBreakerConfig
        case ("fault_tolerance", "saga_pattern", _):
            return SagaConfig
    return None


def _add(
    details: ErrorDetails,
    location: Location,
    data: dict[str, Any],
    problems: ProblemList,
    suggester: Suggester,
) -> None:
    kind, given, context = details["type"], details.get("input"), details.get("ctx", {})
    if location[-1:] == ("[key]",):
        location = location[:-1]
    location = _as_written(location, data)
    if kind in ("string_too_short", "string_too_long") and location[-1] in ("when", "for_each"):
        return  # `planner.conditions` says so, as of every text that is no expression.
    model = _model_at(location)
    fields = list(model.model_fields) if model is not None else ()
    if add_plain_problem(details, location, fields, problems, suggester):
        return
    if kind in ("string_pattern_mismatch", "string_too_short") or (kind == "string_too_long" and _names(location)):
        problems.add(*_name_problem(location, given))
    elif kind in _LENGTHS:
        key, words = _LENGTHS[kind]
        problems.add("TOO_LONG", location, words.format(context[key]))
    elif kind == "value_error" and location[-1:] != ("resources",):
        problems.add("INVALID_CHARACTERS", location, str(context.get("error", details["msg"])))
    elif kind != "value_error":
        problems.add("INVALID_VALUE", location, details["msg"])


def add_plain_problem(
    details: ErrorDetails, location: Location, fields: Collection[str], problems: ProblemList, suggester: Suggester
) -> bool:
    """Add what means the same in every model: types, choices, bounds, missing and unknown fields.

    `fields` are those that could stand where the last part of `location` does. False: it is none of these.
    """
    kind, given, context = details["type"], details.get("input"), details.get("ctx", {})
    if kind == "missing":
        problems.add("MISSING_FIELD", location, "is required")
    elif kind == "extra_forbidden":
        problems.add("UNKNOWN_FIELD", location, f"is not a field here{suggester.hint(location[-1], fields)}")
    elif kind in ("literal_error", "enum"):
        _add_choice(location, given, str(context.get("expected", "")), problems, suggester)
    elif kind in _WANTED:
        problems.add("INVALID_TYPE", location, _type_message(_WANTED[kind], given))
    elif kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        problems.add("OUT_OF_RANGE", location, f"must be {words} {context[key]:g}, not {quoted(given)}")
    elif kind == "too_short":
        problems.add("EMPTY", location, "must not be empty")
    else:
        return False
    return True


def _as_written(location: Location, data: dict[str, Any]) -> Location:
    """`timeout` is an alias that the model has already renamed when it checks the value."""
    match location:
        case ("tasks", int(index), "timeout_seconds") if "timeout" in data["tasks"][index]:
            return ("tasks", index, "timeout")
    return location


def _names(location: Location) -> bool:
    return location[-1:] != ("description",) and "capabilities" not in location and "resources" not in location


def _name_problem(location: Location, given: object) -> tuple[str, Location, str]:
    if location == ("version",):
        return (
            "INVALID_VERSION",
            location,
            (
                f"{quoted(given)} is not a version: 1 to 50 letters, digits and . _ + -, "
                'the first a letter or digit, as in "1.0.0"'
            ),
        )
    if location[-1:] == ("event",):
        message = (
            f"{quoted(given)} is not an event's name: 1 to 255 letters, digits, _ . : and - ({EVENT_NAME_PATTERN})"
        )
        return "INVALID_NAME", location, message
    return (
        "INVALID_NAME",
        location,
        (f"{quoted(given)} is not a name: 1 to 255 letters, digits, _ and - (^[a-zA-Z0-9_-]+$)"),
    )


def _type_message(wanted: str, given: object) -> str:
    message = f"must be {wanted}, not {kind_of(given)}"
    if wanted == "a string" and isinstance(given, int | float) and not isinstance(given, bool):
        message += f'; write it in quotes: "{quoted(given)}"'
    return message


def _add_choice(location: Location, given: object, expected: str, problems: ProblemList, suggester: Suggester) -> None:
    choices = expected.replace(" or ", ", ").replace("'", "").split(", ")
    if location[-1:] == ("retry_policy",) and not isinstance(given, str):
        message = f"must be a policy's name or an object, not {kind_of(given)}"
        problems.add("INVALID_TYPE", location, message)
        return
    hint = suggester.hint(given, choices)
    problems.add("INVALID_CHOICE", location, f"{quoted(given)} is not one of {', '.join(choices)}{hint}")
