"""`capacity`: what the engine runs, what waits, and how much more it would start."""

from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table

from cli.options import JsonOption
from cli.output import print_document
from cli.sharing import Connect, engine, shares
from cli.tables import plain

app = typer.Typer()

GIB = 1024**3


@app.command()
@shares(connect=engine)
def capacity(
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Show what the engine runs and what waits for capacity, in all and of your tenant."""
    with connect() as client:
        numbers = client.get("/api/v1/capacity")
    if as_json:
        print_document(numbers)
    else:
        Console().print(capacity_view(numbers))


def capacity_view(numbers: dict[str, Any]) -> RenderableType:
    """The engine beside the tenant, a row an amount."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "limit", "in use", "your tenant"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    limits, used, own = numbers["limits"], numbers["in_use"], numbers["tenant"]
    for name in ("executions", "agents", "cpu_cores", "memory_bytes"):
        table.add_row(
            plain(name.replace("_bytes", "").replace("_", " ")),
            *(plain(_amount(name, amounts[name])) for amounts in (limits, used, own["in_use"])),
        )
    for priority, waiting in numbers["waiting"].items():
        table.add_row(plain(f"waiting, {priority}"), "", plain(waiting), plain(own["waiting"][priority]))
    facts = Table(box=None, show_header=False, pad_edge=False)
    refused = ", ".join(priority for priority, accepted in numbers["accepts"].items() if not accepted)
    facts.add_row("refused at present", plain(refused or "nothing"))
    facts.add_row("would start at once", plain(_amount("executions", own["available_executions"])))
    facts.add_row("your hosts", plain(f"{numbers['hosts']} with {numbers['slots']} slots"))
    return Group(table, "", facts)


def _amount(name: str, value: float | None) -> str:
    if value is None:
        return "no limit"
    return f"{value / GIB:.1f} GiB" if name == "memory_bytes" else f"{value:g}"
