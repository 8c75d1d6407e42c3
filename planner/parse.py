"""A definition as a client wrote it to a checked one, or every problem at once."""

from typing import Any

from pydantic import ValidationError

from engine.contracts.definition import WorkflowDefinition
from planner.conditions import check_expressions
from planner.fields import add_field_problems
from planner.pattern_config import check_against_settings, check_settings
from planner.problems import ProblemList, Suggester, kind_of
from planner.text import parse_text
from planner.validate import bound, check_agents, check_graph, check_values

__all__ = ["parse_definition", "parse_text"]


def parse_definition(data: Any) -> WorkflowDefinition:
    """The definition in `data`, a JSON object.

    Raises InvalidDefinitionError: `data["errors"]` lists the problems (`code`, `location`, `message`) of the fields
    and of the graph together, at most about a thousand; `data["error_count"]` counts them all.
    """
    problems, suggester = ProblemList(), Suggester()
    if not isinstance(data, dict):
        problems.add("INVALID_TYPE", (), f"a definition must be an object, not {kind_of(data)}")
        problems.raise_if_any()
    tasks = data.get("tasks")
    every_id = [task.get("id") for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
    bounded = bound({str(key): value for key, value in data.items()}, problems)
    check_graph(bounded, every_id, problems, suggester)
    check_agents(bounded, problems)
    if check_values(bounded, problems):
        check_settings(bounded, problems, suggester)
    check_expressions(bounded, {name for name in every_id if isinstance(name, str)}, problems, suggester)
    try:
        definition = WorkflowDefinition.model_validate(bounded)
    except ValidationError as error:
        add_field_problems(error, bounded, problems, suggester)
        problems.raise_if_any()
        raise  # Only if an error of the models were left out above.
    problems.raise_if_any()
    check_against_settings(definition, problems)
    problems.raise_if_any()
    return definition
