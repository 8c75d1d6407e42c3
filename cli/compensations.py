"""`compensations`: steps that could not be undone: look at them, have one tried again, say that one is done."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.options import ExecutionArgument, JsonOption, LimitOption, PageTokenOption
from cli.output import print_document, print_more, printable
from cli.sharing import Connect, engine, shares
from cli.tables import plain, state_text

app = typer.Typer(no_args_is_help=True)

TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="The step's task id.")]


@app.command("list")
@shares(connect=engine)
def list_compensations(
    execution_id: ExecutionArgument,
    limit: LimitOption = 100,
    page_token: PageTokenOption = None,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """List an execution's steps that could not be undone."""
    with connect() as client:
        page = client.get(f"/api/v1/executions/{execution_id}/compensations", limit=limit, page_token=page_token)
    if as_json:
        print_document(page)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("task", "state", "attempts", "waits for", "error"):
        table.add_column(column, overflow="fold")
    for step in page["items"]:
        error = " ".join(part for part in (step["error_code"], step["error_message"]) if part)
        waits = ", ".join(step["blocked_by"])
        cells = (plain(step["attempts"]), plain(waits), plain(error))
        table.add_row(plain(step["task_id"]), state_text(step["state"]), *cells)
    Console().print(table)
    print_more(page)


@app.command()
@shares(connect=engine)
def retry(execution_id: ExecutionArgument, task: TaskArgument, connect: Connect, as_json: JsonOption = False) -> None:
    """Have a step's compensation tried again, and then what waits for it."""
    with connect() as client:
        answer = client.call("execution.retry_compensation", {"execution_id": execution_id, "task_id": task})
    _show(answer, as_json=as_json)


@app.command("mark-done")
@shares(connect=engine)
def mark_done(
    execution_id: ExecutionArgument,
    task: TaskArgument,
    reason: Annotated[str | None, typer.Option("--reason", help="Stands in the audit log.")] = None,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Say that a step was undone by hand; what waits for it is undone then."""
    params = {"execution_id": execution_id, "task_id": task} | ({} if reason is None else {"reason": reason})
    with connect() as client:
        answer = client.call("execution.mark_compensation_done", params)
    _show(answer, as_json=as_json)


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_document(answer)
    else:
        print(printable(f"{answer['task_id']} is {answer['state']}; compensation {answer['compensation_status']}"))
