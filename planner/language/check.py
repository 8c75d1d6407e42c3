"""A program as a client wrote it to a checked one, or every problem at once."""

from typing import Any, Final

import orjson
from pydantic import ValidationError

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.language import LOGIC_BYTES_MAX, CoordinationLogic, PatternRegistration
from engine.contracts.patterns.registered import RegisteredPattern
from engine.errors import InvalidLogicError
from engine.expressions import ExpressionError, evaluate, names_of, parse
from planner.language.names import GLOBAL_NAMES, LOCAL_NAMES, Use, uses, variables_of
from planner.language.schema import check_schema, check_settings_by_schema, with_defaults
from planner.language.states import check_states
from planner.language.types import Inference
from planner.pattern_config import FIELD, add_config_problems
from planner.problems import Location, ProblemList, Suggester, quoted
from planner.values import check_value

LOGIC: Final[Location] = ("coordination_logic",)
SCHEMA: Final[Location] = ("configuration_schema",)
CHECK_STEPS_MAX: Final = 10_000


def read_registration(data: dict[str, Any]) -> PatternRegistration:
    """A registration as a client wrote it. Raises InvalidLogicError."""
    try:
        return PatternRegistration.model_validate(data)
    except ValidationError as error:
        problems = ProblemList()
        add_config_problems(error, PatternRegistration, data, problems, Suggester(), ())
        raise _invalid(problems) from error


def parse_registration(registration: PatternRegistration) -> CoordinationLogic:
    """The program of a registration. Raises InvalidLogicError with every problem, located."""
    problems, suggester = ProblemList(), Suggester()
    schema = registration.configuration_schema
    check_value(schema, SCHEMA, problems)
    if not problems.count:
        check_schema(schema, SCHEMA, problems)
    readable = not problems.count
    logic = _parse(registration.coordination_logic, problems, suggester)
    if logic is not None:
        check_states(logic, LOGIC, problems, suggester)
        _check_variables(logic, problems)
        for use in uses(logic, schema if readable else {}):
            _check_expression(use, problems)
    if problems.count or logic is None:
        raise _invalid(problems)
    return logic


def check_definition(definition: WorkflowDefinition, pattern: RegisteredPattern) -> dict[str, Any]:
    """The definition's settings under this pattern, with defaults. Raises InvalidDefinitionError."""
    problems = ProblemList()
    schema, given = pattern.configuration_schema, definition.pattern_config
    check_settings_by_schema(given, schema, (FIELD,), problems)
    problems.raise_if_any()
    config = with_defaults(given, schema)
    logic = CoordinationLogic.model_validate(pattern.coordination_logic)
    _check_known_roles(definition, logic, config, problems)
    _check_lists(definition, logic, config, problems)
    problems.raise_if_any()
    return config


def _check_lists(
    definition: WorkflowDefinition, logic: CoordinationLogic, config: dict[str, Any], problems: ProblemList
) -> None:
    """A program runs for a task as a whole: it goes through lists itself."""
    for index, task in enumerate(definition.tasks):
        if task.for_each is not None and _is_handled(logic, task.id, task.agent, config):
            message = "the pattern handles this task, which then cannot be one task an element; its program can gather"
            problems.add("NOT_IN_PATTERN", ("tasks", index, "for_each"), message)


def _is_handled(logic: CoordinationLogic, task_id: str, role: str, config: dict[str, Any]) -> bool:
    if logic.handles is None:
        return True
    names = {"task": {"id": task_id, "role": role, "attempts": 0}, "config": config}
    try:
        return bool(evaluate(parse(logic.handles), names, steps_max=CHECK_STEPS_MAX))
    except ExpressionError:
        return True


def _check_known_roles(
    definition: WorkflowDefinition, logic: CoordinationLogic, config: dict[str, Any], problems: ProblemList
) -> None:
    """Roles that the settings alone decide must be the definition's."""
    roles = list(definition.agents)
    for name, state in logic.states.items():
        text = getattr(state, "role", None)
        if text is None:
            continue
        expression = parse(text)
        if {root for root, _ in names_of(expression)} - {"config"}:
            continue
        try:
            role = evaluate(expression, {"config": config}, steps_max=CHECK_STEPS_MAX)
        except ExpressionError as error:
            message = f"the pattern's state {name} takes its role from {quoted(text)}: {error.message}"
            problems.add(error.code, (FIELD,), message)
            continue
        if role not in roles:
            known = ", ".join(map(quoted, roles))
            message = f"the pattern's state {name} needs the role {quoted(role)}; there are {known}"
            problems.add("UNKNOWN_AGENT_ROLE", (FIELD,), message)


def _parse(data: dict[str, Any], problems: ProblemList, suggester: Suggester) -> CoordinationLogic | None:
    before = problems.count
    check_value(data, LOGIC, problems)
    if problems.count > before:
        return None
    size_bytes = len(orjson.dumps(data))
    if size_bytes > LOGIC_BYTES_MAX:
        message = f"has {size_bytes} bytes as JSON; at most {LOGIC_BYTES_MAX} are taken"
        problems.add("TOO_LARGE", LOGIC, message)
        return None
    try:
        return CoordinationLogic.model_validate(data)
    except ValidationError as error:
        add_config_problems(error, CoordinationLogic, data, problems, suggester, LOGIC)
        return None


def _check_variables(logic: CoordinationLogic, problems: ProblemList) -> None:
    for name in sorted(variables_of(logic) & {*GLOBAL_NAMES, *LOCAL_NAMES}):
        message = f"{name} means something else in expressions; give the variable another name"
        problems.add("RESERVED_NAME", (*LOGIC, "variables", name), message)


def _check_expression(use: Use, problems: ProblemList) -> None:
    location = (*LOGIC, *use.location)
    try:
        expression = parse(use.text)
    except ExpressionError as error:
        problems.add(error.code, location, error.message)
        return

    def report(code: str, at: int, message: str) -> None:
        problems.add(code, location, f"at character {at}: {message}")

    before = problems.count
    shape = Inference(use.names, report).shape(expression)
    if problems.count == before and not shape.kinds & use.wanted:
        wanted = " or ".join(sorted(use.wanted))
        report("EXPRESSION_TYPE", 1, f"must give {wanted}, and gives {' or '.join(sorted(shape.kinds))}")


def _invalid(problems: ProblemList) -> InvalidLogicError:
    listed = problems.listed()
    first = str(listed[0])
    summary = first if problems.count == 1 else f"{problems.count} problems; the first: {first}"
    errors = [problem.model_dump() for problem in listed]
    return InvalidLogicError(f"invalid pattern: {summary}", errors=errors, error_count=problems.count)
