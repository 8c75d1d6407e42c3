"""`patterns`: what patterns there are, registering one, and templates to start from."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.client import EngineClient
from cli.documents import load_definition
from cli.options import JsonOption
from cli.output import print_document, print_message, printable
from cli.sharing import Connect, engine, shares
from cli.tables import plain
from engine.errors import NotFoundError
from planner.language.check import parse_registration, read_registration
from planner.language.templates import template_names, template_text
from planner.parse import parse_text

app = typer.Typer(no_args_is_help=True)

PAGE_SIZE = 1_000
PAGES_MAX = 100


@app.callback()
def patterns() -> None:
    """Coordination patterns: the built-in ones, and those that are registered as data."""


@app.command("list")
@shares(connect=engine)
def list_patterns(
    filter: Annotated[str, typer.Option("--filter", help="built-in, custom or all.")] = "all",
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """List patterns, the built-in ones first."""
    with connect() as client:
        items = _all_patterns(client, filter)
    if as_json:
        print_document({"items": items})
        return
    table = Table(box=None, pad_edge=False)
    for column in ("pattern", "version", "type", "description"):
        table.add_column(column, no_wrap=column != "description")
    for item in items:
        table.add_row(*(plain(item[field]) for field in ("name", "version", "type", "description")))
    Console().print(table)


def _all_patterns(client: EngineClient, which: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    token: str | None = None
    for _ in range(PAGES_MAX):
        page = client.get("/api/v1/patterns", limit=PAGE_SIZE, filter=which, page_token=token)
        items += page["items"]
        token = page["next_page_token"]
        if token is None:
            break
    return items


@app.command()
@shares(connect=engine)
def get(
    name: Annotated[str, typer.Argument(help="The pattern's name.")],
    version: Annotated[str | None, typer.Option("--version", help="Of a registered one; default: the last.")] = None,
    *,
    connect: Connect,
    as_json: JsonOption = False,  # noqa: ARG001 - it is JSON in any case
) -> None:
    """Show a pattern with the JSON Schema of its settings and, of a registered one, its program."""
    query = {"name": name} | ({} if version is None else {"version": version})
    with connect() as client:
        print_document(client.call("pattern.get", query))


@app.command()
@shares(connect=engine)
def register(
    source: Annotated[str, typer.Argument(help="A JSON or YAML file, or - for standard input.")],
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Register a pattern: its program and the schema of its settings are checked whole."""
    registration = load_definition(source)
    with connect() as client:
        registered = client.call("pattern.register", registration)
    if as_json:
        print_document(registered)
    else:
        print(printable(f"{registered['name']} is registered: {registered['pattern_id']}"))


@app.command()
def check(
    source: Annotated[str, typer.Argument(help="A JSON or YAML file, or - for standard input.")],
    as_json: JsonOption = False,
) -> None:
    """Check a pattern as `register` would, without any engine."""
    registration = read_registration(load_definition(source))
    logic = parse_registration(registration)
    if as_json:
        print_document({"valid": True, "states": len(logic.states)})
    else:
        print(printable(f"{registration.name} {registration.version} is valid: {len(logic.states)} states"))


@app.command()
def templates(
    name: Annotated[str | None, typer.Argument(help="The template to print; default: list them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Patterns to start from. `orchestrator patterns templates debate > mine.yaml` writes one to a file."""
    if name is None:
        _list_templates(as_json=as_json)
        return
    text = template_text(name)
    if text is None:
        raise NotFoundError(f"no template {name!r}; there are {', '.join(template_names())}")
    if as_json:
        print_document(parse_text(text))
    else:
        print(text, end="")


def _list_templates(*, as_json: bool) -> None:
    items: list[dict[str, Any]] = []
    for name in template_names():
        described = parse_text(template_text(name) or "")
        items.append({"name": name, "version": described["version"], "description": described["description"]})
    if as_json:
        print_document({"items": items})
        return
    for item in items:
        print(printable(f"{item['name']:<14}{item['description']}"))
    print_message("orchestrator patterns templates NAME prints one")
