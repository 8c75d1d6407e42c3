"""Commands that look at executions or steer them, through the engine's HTTP interface."""

import json
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.board import ENDED_STATUSES
from cli.client import EngineClient
from cli.options import ExecutionArgument, JsonOption, LimitOption, PageTokenOption
from cli.output import print_document, print_message, print_more
from cli.sharing import Connect, engine, shares
from cli.tables import event_line, executions_table, status_view
from engine.errors import InvalidParametersError

app = typer.Typer()

FOLLOW_INTERVAL_SECONDS = 0.5


@app.command("list")
@shares(connect=engine)
def list_executions(
    *,
    connect: Connect,
    status: Annotated[str | None, typer.Option(help="Only those in this status.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only those of the workflow with this id.")] = None,
    limit: LimitOption = 100,
    page_token: PageTokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List executions, the newest first."""
    params = {"limit": limit, "page_token": page_token, "status": status, "workflow_id": workflow}
    with connect() as client:
        page = client.call("execution.list", {name: value for name, value in params.items() if value is not None})
    if as_json:
        print_document(page)
        return
    Console().print(executions_table(page["items"]))
    print_more(page)


@app.command()
@shares(connect=engine)
def status(
    execution_id: ExecutionArgument,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Show the state of an execution: phase, tasks, agents, metrics, errors."""
    with connect() as client:
        view = client.call("workflow.status", {"execution_id": execution_id})
    if as_json:
        print_document(view)
    else:
        Console().print(status_view(view))


@app.command()
@shares(connect=engine)
def events(
    execution_id: ExecutionArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution has ended.")] = False,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Show the audit log of an execution, in order.

    With --json one document, {"items": [...]}, comes at the end; with --follow as well, each event also goes to
    stderr when it happens.
    """
    items: list[dict[str, Any]] = []

    def show(event: dict[str, Any]) -> None:
        if as_json:
            items.append(event)
        if not as_json:
            print(event_line(event), flush=True)
        elif follow:
            print_message(event_line(event))

    with connect() as client:
        read_events(client, execution_id, show, follow=follow)
    if as_json:
        print_document({"items": items})


def read_events(
    client: EngineClient,
    execution_id: str,
    show: Callable[[dict[str, Any]], None],
    *,
    follow: bool,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Show each event once, in order; with `follow` until the execution is closed and all its events are shown."""
    path = f"/api/v1/executions/{execution_id}/events"
    page_token: str | None = None
    last_sequence = 0
    while True:
        # Asked before the events are read, so that the last events are there when it says closed.
        closed = not follow or is_closed(client, execution_id)
        for page in client.pages(path, limit=1000, page_token=page_token):
            for event in page["items"]:
                if event["sequence"] > last_sequence:
                    last_sequence = event["sequence"]
                    show(event)
            # The last page has no token: the next round reads it again and skips what was shown.
            page_token = page.get("next_page_token") or page_token
        if closed:
            return
        pause(FOLLOW_INTERVAL_SECONDS)


def is_closed(client: EngineClient, execution_id: str) -> bool:
    return client.call("workflow.status", {"execution_id": execution_id})["status"] in ENDED_STATUSES


@app.command()
@shares(connect=engine)
def pause(
    execution_id: ExecutionArgument,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Pause an execution: no new task starts, and a checkpoint is taken."""
    result = _control("workflow.pause", {"execution_id": execution_id}, connect)
    if as_json:
        print_document(result)
    else:
        print(f"{result['execution_id']} is {result['status']}, checkpoint {result['checkpoint_id']}")


@app.command()
@shares(connect=engine)
def resume(
    execution_id: ExecutionArgument,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Checkpoint to go back to; the latest when absent.")
    ] = None,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Resume a paused execution, from its latest or an earlier checkpoint."""
    params = {"execution_id": execution_id} | ({"checkpoint_id": checkpoint} if checkpoint else {})
    result = _control("workflow.resume", params, connect)
    if as_json:
        print_document(result)
        return
    print(f"{result['execution_id']} is {result['status']}, {result['recovered_tasks']} tasks done are kept")
    for task_id in result.get("repeated_side_effects", ()):
        print_message(f"runs again, though it was done: {task_id}")


@app.command()
@shares(connect=engine)
def cancel(
    execution_id: ExecutionArgument,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Cancel an execution: what runs is stopped, what is done stays done."""
    result = _control("workflow.cancel", {"execution_id": execution_id}, connect)
    if as_json:
        print_document(result)
    else:
        print(f"{result['execution_id']} is {result['status']}")


@app.command()
@shares(connect=engine)
def send_event(
    execution_id: ExecutionArgument,
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="The event's type, as triggers name it.")],
    payload: Annotated[
        str | None, typer.Option("--payload", help="The event's payload, JSON; null when absent.")
    ] = None,
    event_id: Annotated[
        str | None, typer.Option("--event-id", help="Names the event, so that it counts once however often it is sent.")
    ] = None,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Send an external event: a task with a trigger for its type takes it."""
    params: dict[str, Any] = {"execution_id": execution_id, "event_type": event_type}
    if payload is not None:
        try:
            params["payload"] = json.loads(payload)
        except ValueError as error:
            raise InvalidParametersError(f"--payload is not JSON: {error}") from error
    if event_id is not None:
        params["event_id"] = event_id
    result = _control("execution.send_event", params, connect)
    if as_json:
        print_document(result)
    else:
        print(f"event {result['event_id']} is on its way")


def _control(method: str, params: dict[str, Any], connect: Connect) -> dict[str, Any]:
    with connect() as client:
        return client.call(method, params)
