"""Checks `pattern_config` against the model of the definition's pattern, and the definition against its settings.

The settings travel to the workflow as the model writes them, with every default filled in: a policy that reads them
need not know any, and a default that changes later does not change an execution that runs.
"""

from collections.abc import Collection
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.contracts.definition import Pattern, WorkflowDefinition
from engine.contracts.patterns import PATTERN_CONFIGS
from planner.fields import add_plain_problem
from planner.patterns.registry import CHECKS
from planner.problems import Location, ProblemList, Suggester, quoted

FIELD: Final = "pattern_config"


def check_settings(data: dict[str, Any], problems: ProblemList, suggester: Suggester) -> None:
    """Add a problem for each setting that the pattern does not take. `data` is the definition as it was written."""
    pattern, config = data.get("orchestration_pattern"), data.get(FIELD, {})
    model = PATTERN_CONFIGS.get(pattern) if isinstance(pattern, str) else None
    if model is None or not isinstance(config, dict):
        return  # The definition's own model says so.
    try:
        model.model_validate(config)
    except ValidationError as error:
        add_config_problems(error, model, config, problems, suggester)


def check_against_settings(definition: WorkflowDefinition, problems: ProblemList) -> None:
    """Add what the pattern's own check finds in a definition whose fields are all valid."""
    config = PATTERN_CONFIGS[definition.orchestration_pattern].model_validate(definition.pattern_config)
    if definition.pattern is not None and definition.orchestration_pattern is not Pattern.CUSTOM:
        message = f"belongs to orchestration_pattern custom, not to {definition.orchestration_pattern}; leave it out"
        problems.add("CONFLICTING_FIELDS", ("pattern",), message)
    for finding in CHECKS[definition.orchestration_pattern](definition, config):
        problems.add(*finding)


def complete_settings(definition: WorkflowDefinition) -> dict[str, Any]:
    """The settings with every default filled in, as JSON holds them."""
    model = PATTERN_CONFIGS[definition.orchestration_pattern]
    return model.model_validate(definition.pattern_config).model_dump(mode="json")


def add_config_problems(
    error: ValidationError,
    model: type[BaseModel],
    config: Any,
    problems: ProblemList,
    suggester: Suggester,
    root: Location = (FIELD,),
) -> None:
    """Add a problem for each of the errors that `model` has with `config`, which stands at `root`."""
    seen: set[tuple[str, Location]] = set()
    for details in error.errors(include_url=False):
        inner = _as_written(details["loc"], config)
        if (details["type"], inner) in seen:
            continue  # Each branch of a union has said it.
        seen.add((details["type"], inner))
        location = (*root, *inner)
        if not add_plain_problem(details, location, _fields_beside(model, details["loc"]), problems, suggester):
            problems.add(*_other_problem(details, location))


def _other_problem(details: ErrorDetails, location: Location) -> tuple[str, Location, str]:
    kind, context, given = details["type"], details.get("ctx", {}), details.get("input")
    match kind:
        case "string_pattern_mismatch":
            return "INVALID_NAME", location, f"{quoted(given)} does not match {context['pattern']}"
        case "string_too_short":
            return "EMPTY", location, "must not be empty"
        case "string_too_long":
            return "TOO_LONG", location, f"must have at most {context['max_length']} characters"
        case "too_long":
            return "TOO_LONG", location, f"must have at most {context['max_length']} items"
        case "value_error" | "assertion_error":
            return "INVALID_VALUE", location, str(context.get("error", details["msg"]))
        case _:
            return "INVALID_VALUE", location, details["msg"]


def _as_written(location: Location, config: Any) -> Location:
    """Without the names of a union's branches, which are the model's own and stand nowhere in the document."""
    kept: list[str | int] = []
    value = config
    for number, part in enumerate(location):
        named = isinstance(value, dict) and isinstance(part, str) and part in value
        if named or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value[part]
        elif not isinstance(value, dict) or number != len(location) - 1 or part == "[key]":
            continue
        kept.append(part)
    return tuple(kept)


def _fields_beside(model: type[BaseModel], location: Location) -> Collection[str]:
    """The fields of the model in which the last part of `location` stands; none where that cannot be told."""
    here: Any = model
    for part in location[:-1]:
        here = _inner(here, part)
    here = _bare(here)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else ()


def _bare(annotation: Any) -> Any:
    """Without `Annotated` and `| None`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        options = [option for option in get_args(annotation) if option is not type(None)]
        return _bare(options[0]) if len(options) == 1 else None
    return annotation


def _inner(annotation: Any, part: str | int) -> Any:
    """The type of what stands under `part` in a value of this type."""
    bare = _bare(annotation)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        field = bare.model_fields.get(str(part))
        return field.annotation if field is not None else None
    arguments = get_args(bare)
    if get_origin(bare) is dict and len(arguments) == 2:
        return arguments[1]
    return arguments[0] if get_origin(bare) in (list, tuple) and arguments else None
