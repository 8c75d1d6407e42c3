"""`validate` and `plan`: what can be said of a definition without any engine."""

import typer

from cli.documents import load_definition
from cli.options import DefinitionArgument, JsonOption
from cli.outcome import ExitCode
from cli.output import describe_problems, print_document, print_error, print_message, printable
from engine.errors import InvalidDefinitionError
from planner.parse import parse_definition
from planner.planner import Planner
from planner.render import render_plan

app = typer.Typer()


@app.command()
def validate(source: DefinitionArgument, as_json: JsonOption = False) -> None:
    """Check a workflow definition: every problem at once, each with its place and the remedy.

    Exit code 0 when it is valid (warnings are no errors), 1 when it is not.
    """
    try:
        definition = parse_definition(load_definition(source))
        plan = Planner().plan(definition)
    except InvalidDefinitionError as error:
        if as_json:
            problems = error.data.get("errors", [error.message])
            print_document({"valid": False, "errors": problems, "warnings": [], "optimizations": []})
            print_message(f"error: {error.message}")
        else:
            print_error(error, as_json=False)
        raise typer.Exit(ExitCode.FAILED) from error
    if as_json:
        print_document(
            {
                "valid": True,
                "errors": [],
                "warnings": [problem.model_dump() for problem in plan.warnings],
                "optimizations": [problem.model_dump() for problem in plan.optimizations],
                "estimated_resources": plan.estimated_resources.model_dump(),
            }
        )
        return
    print(printable(f"{definition.name} {definition.version} is valid: {len(definition.tasks)} tasks"))
    for kind, problems in (("warning", plan.warnings), ("could be shorter", plan.optimizations)):
        for text in describe_problems(problems):
            print(printable(f"  {kind}: {text}"))


@app.command()
def plan(source: DefinitionArgument, as_json: JsonOption = False) -> None:
    """Show what would run before anything runs: the graph, waves, critical path and slack. Needs no engine."""
    definition = parse_definition(load_definition(source))
    planned = Planner().plan(definition)
    if as_json:
        print_document(planned.model_dump(mode="json"))
        return
    for line in (f"{definition.name} {definition.version} ({definition.orchestration_pattern})", *render_plan(planned)):
        print(printable(line))
