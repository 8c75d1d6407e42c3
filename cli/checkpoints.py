"""`checkpoints`: where an execution can be resumed from."""

import typer
from rich.console import Console
from rich.table import Table

from cli.options import ExecutionArgument, JsonOption, LimitOption, PageTokenOption
from cli.output import print_document, print_more
from cli.sharing import Connect, engine, shares
from cli.tables import local_time, plain

app = typer.Typer()


@app.command()
@shares(connect=engine)
def checkpoints(
    execution_id: ExecutionArgument,
    limit: LimitOption = 100,
    page_token: PageTokenOption = None,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """List an execution's checkpoints; `resume` takes one of them."""
    with connect() as client:
        page = client.get(f"/api/v1/executions/{execution_id}/checkpoints", limit=limit, page_token=page_token)
    if as_json:
        print_document(page)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("checkpoint", "when", "reason", "epoch", "done", "in flight"):
        table.add_column(column, no_wrap=column in ("checkpoint", "when"))
    for point in page["items"]:
        counts = (point["epoch"], len(point["completed_tasks"]), len(point["in_flight"]))
        when = local_time(point["created_at"])
        table.add_row(*map(plain, (point["checkpoint_id"], when, point["reason"], *counts)))
    Console().print(table)
    print_more(page)
