"""`run`: a definition from file to result."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.board import Board
from cli.client import EngineClient
from cli.connection import Connection, find_connection
from cli.documents import load_definition, load_input
from cli.engine_process import own_engine
from cli.live import follow_updates
from cli.options import DATA_DIR_DEFAULT, DataDirOption, DefinitionArgument, JsonOption, TokenOption, UrlOption
from cli.outcome import ExitCode
from cli.output import describe_problems, print_document, print_message, printable
from cli.tables import describe_error
from cli.watch import ExecutionWatch
from engine.errors import ConfigurationError

app = typer.Typer()

RESULTS_PAGE_SIZE = 1000

LARGE_RESULTS_MAX = 200
"""Large results are asked for one by one: no more of them than leaves the rate limit something for others."""


@app.command()
def run(
    source: DefinitionArgument,
    input_option: Annotated[
        str | None, typer.Option("--input", metavar="JSON|@FILE", help="The execution's input, a JSON object.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show progress until the end, and results.")] = False,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            "--catalogue", exists=True, dir_okay=False, help="Agent types, for the engine that this command starts."
        ),
    ] = None,
    timeout: Annotated[int | None, typer.Option(min=1, help="Seconds that the whole execution may take.")] = None,
    allow_concurrent: Annotated[
        bool, typer.Option("--allow-concurrent", help="Even while the same workflow is being executed.")
    ] = False,
    priority: Annotated[
        Literal["low", "normal", "high"] | None,
        typer.Option(help="Who goes first when executions wait for capacity; normal when absent."),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Repeating the command with the same key starts nothing new.")
    ] = None,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DATA_DIR_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Create the workflow and execute it.

    On the engine that --url names or that runs on --data-dir; when none runs there, one is started, and stopped when
    the execution has ended. With --json: without --follow the answer of `workflow.execute`; with --follow, or with an
    engine of its own, {"execution": the last status, "results": results by task}. Exit code 1 when it did not complete.
    """
    definition = load_definition(source)
    input_data = load_input(input_option)
    options: dict[str, Any] = {}
    if timeout is not None:
        options["timeout"] = timeout
    if allow_concurrent:
        options["allow_concurrent"] = True
    if priority is not None:
        options["priority"] = priority
    with _engine(url, token, data_dir, catalogue) as (connection, is_own), EngineClient(connection) as client:
        started = start_execution(client, definition, input_data, options, idempotency_key)
        execution_id = started["execution_id"]
        print_message(f"execution {execution_id}")
        if not (follow or is_own):
            if as_json:
                print_document(started)
            else:
                print(execution_id)
            return
        try:
            view = follow_updates(ExecutionWatch(client, execution_id).updates(), Board(execution_id))
        except KeyboardInterrupt:
            print_message(_how_to_go_on(execution_id, data_dir, is_own))
            raise
        results = read_results(client, execution_id)
    _report(view, results, as_json=as_json)
    if view["status"] != "completed":
        raise typer.Exit(ExitCode.FAILED)


@contextmanager
def _engine(
    url: str | None, token: str | None, data_dir: Path, catalogue: Path | None
) -> Iterator[tuple[Connection, bool]]:
    connection = find_connection(url, token, data_dir)
    if connection is None:
        print_message(f"no engine runs on {data_dir}: starting one for this execution")
        with own_engine(data_dir, catalogue) as started:
            yield started, True
        return
    if catalogue is not None:
        raise ConfigurationError(
            f"--catalogue is for an engine that this command starts, but one runs at {connection.url}; "
            "give the catalogue to `orchestrator up`, or choose another --data-dir"
        )
    yield connection, False


def start_execution(
    client: EngineClient,
    definition: dict[str, Any],
    input_data: dict[str, Any],
    options: dict[str, Any],
    idempotency_key: str | None,
) -> dict[str, Any]:
    """Create and execute; returns the answer of `workflow.execute`."""
    created = client.call("workflow.create", definition)
    for warning in describe_problems(created["validation_report"]["warnings"]):
        print_message(f"warning: {warning}")
    params: dict[str, Any] = {"workflow_id": created["workflow_id"], "input_data": input_data}
    if options:
        params["execution_options"] = options
    if idempotency_key is not None:
        params["idempotency_key"] = idempotency_key
    return client.call("workflow.execute", params)


def read_results(client: EngineClient, execution_id: str) -> dict[str, Any]:
    """Results of the completed tasks, by task; large ones, which the listing only refers to, up to a number."""
    results: dict[str, Any] = {}
    large = 0
    for page in client.pages(f"/api/v1/executions/{execution_id}/tasks", limit=RESULTS_PAGE_SIZE):
        for task in page["items"]:
            if task["state"] != "completed":
                continue
            result = task.get("result")
            if task.get("result_ref") is not None:
                large += 1
                if large <= LARGE_RESULTS_MAX:
                    params = {"execution_id": execution_id, "task_id": task["task_id"]}
                    result = client.call("execution.result", params)["result"]
            results[task["task_id"]] = result
    if large > LARGE_RESULTS_MAX:
        print_message(
            f"{large - LARGE_RESULTS_MAX} more large results are shown as null; each is at "
            f"/api/v1/executions/{execution_id}/tasks/TASK/result"
        )
    return results


def _report(view: dict[str, Any], results: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_document({"execution": view, "results": results})
    else:
        for task_id, result in results.items():
            print(printable(f"{task_id}: {json.dumps(result, ensure_ascii=False)}"))
    metrics = view["performance_metrics"]
    print_message(
        f"{view['status']}: {metrics['tasks_completed']} tasks completed, {metrics['tasks_failed']} failed, "
        f"{metrics['total_runtime_seconds']} s"
    )
    if view.get("error_details"):
        print_message(f"error: {describe_error(view['error_details'])}")


def _how_to_go_on(execution_id: str, data_dir: Path, is_own: bool) -> str:
    if is_own:
        return (
            f"execution {execution_id} stops with its engine and goes on when one starts again: "
            f"orchestrator up --data-dir {data_dir}"
        )
    return f"execution {execution_id} goes on; see: orchestrator status {execution_id}"
