"""`breakers`: the circuit breakers of agent types: how they are, and closing one by hand."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.options import JsonOption, LimitOption, PageTokenOption
from cli.output import print_document, print_message, print_more, printable
from cli.sharing import Connect, engine, shares
from cli.tables import plain

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@shares(connect=engine)
def list_breakers(
    *,
    connect: Connect,
    limit: LimitOption = 100,
    page_token: PageTokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List circuit breakers that have seen a failure lately. All others are closed."""
    with connect() as client:
        page = client.get("/api/v1/breakers", limit=limit, page_token=page_token)
    if as_json:
        print_document(page)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("breaker", "state", "failures", "opens at", "tries again", "in all", "opened by"):
        table.add_column(column, overflow="fold")
    for breaker in page["items"]:
        again = "" if breaker["state"] == "closed" else f"in {breaker['retry_in_seconds']:.0f} s"
        row = (breaker["service"], breaker["state"], breaker["failures"], breaker["threshold"] or "", again)
        table.add_row(*map(plain, row), plain(breaker["failures_total"]), plain(breaker["opened_by"]))
    Console().print(table)
    print_more(page)


@app.command()
@shares(connect=engine)
def reset(
    service: Annotated[str, typer.Argument(metavar="BREAKER", help='As `list` shows it, e.g. "agent:coder".')],
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Close a circuit breaker, and forget what it has seen."""
    with connect() as client:
        answer = client.call("breaker.reset", {"service": service})
    if as_json:
        print_document(answer)
        return
    print_message(printable(f"{answer['service']} is {answer['state']}"))
