"""`statistics`: how executions have gone, by pattern and by workflow."""

from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table

from cli.options import JsonOption
from cli.output import print_document
from cli.sharing import Connect, engine, shares
from cli.tables import plain

app = typer.Typer()

FAILURES_SHOWN = 3

WorkflowOption = Annotated[str | None, typer.Option("--workflow", help="Of this workflow's executions only.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many workflows to show.")]


@app.command()
@shares(connect=engine)
def statistics(
    *, workflow: WorkflowOption = None, limit: LimitOption = 100, connect: Connect, as_json: JsonOption = False
) -> None:
    """Show how executions have gone: by status, how long they took, what they failed with."""
    with connect() as client:
        numbers = client.get("/api/v1/statistics", limit=limit, workflow_id=workflow)
    if as_json:
        print_document(numbers)
    else:
        Console().print(statistics_view(numbers))


def statistics_view(numbers: dict[str, Any]) -> RenderableType:
    """All, then a row a pattern, then a row a workflow."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "open", "completed", "failed", "cancelled", "p50", "p95", "failed with"):
        table.add_column(column, justify="left" if column in ("", "failed with") else "right", no_wrap=True)
    table.add_row(plain("all"), *_cells(numbers["total"]))
    for pattern, row in numbers["patterns"].items():
        table.add_row(plain(f"pattern {pattern}"), *_cells(row))
    for row in numbers["items"]:
        table.add_row(plain(f"{row['workflow_name']} {row['version']}"), *_cells(row))
    notes = [plain(f"counted {numbers['as_of'] or 'not yet'}")]
    if numbers["next_page_token"]:
        notes.append(plain("more workflows are there: ask with a higher --limit"))
    return Group(table, "", *notes)


def _cells(row: dict[str, Any]) -> list[Any]:
    by_status = row["executions"]
    still_open = sum(by_status[status] for status in ("planning", "executing", "paused"))
    worst = sorted(row["failures"].items(), key=lambda item: -item[1])[:FAILURES_SHOWN]
    return [
        plain(str(still_open)),
        *(plain(str(by_status[status])) for status in ("completed", "failed", "cancelled")),
        *(plain(_seconds(row[name])) for name in ("duration_p50_seconds", "duration_p95_seconds")),
        plain(", ".join(f"{code or '?'} {count}" for code, count in worst)),
    ]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} s"
