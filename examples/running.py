"""Runs an example: starts an engine with its catalogue, runs its definition, shows progress and what came of it, stops.

An example says what is its own in a `Demonstration`; its `__main__.py` is `sys.exit(main(DEMONSTRATION))`.
"""

import argparse
import copy
import hashlib
import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final
from urllib.parse import quote

from rich.console import Console

from cli.board import Board
from cli.client import EngineClient
from cli.connection import read_engine_file
from cli.documents import load_definition
from cli.engine_process import own_engine
from cli.outcome import ExitCode, exit_code_of
from cli.output import print_error
from cli.tables import describe_error
from cli.watch import ExecutionWatch
from engine.errors import EngineError, UnavailableError
from examples.screen import PAGE_SIZE, Notice, follow, make_console, stop_leftovers

ROOT: Final = Path(__file__).resolve().parents[1]
TENANT: Final = "default"
EXECUTION_TIMEOUT_SECONDS: Final = 600
KEEP_POLL_SECONDS: Final = 1.0


class Run:
    """One execution of an example, for its `show`, `notice` and `prepare` to look at."""

    def __init__(self, console: Console, client: EngineClient, data_dir: Path, definition: dict[str, Any]) -> None:
        self.console = console
        self.client = client
        self.data_dir = data_dir
        self.definition = definition
        self.execution_id = ""
        self.status: dict[str, Any] = {}
        """What `workflow.status` answered last."""

    def say(self, text: str = "", style: str = "") -> None:
        self.console.print(text, markup=False, style=style)

    def tasks(self) -> list[dict[str, Any]]:
        """The read model's row of each task, with its result."""
        return self._all("tasks")

    def results(self) -> dict[str, Any]:
        """The results of completed tasks, by id; whole, also where they are large."""
        done = [task for task in self.tasks() if task["state"] == "completed"]
        return {task["task_id"]: self.result(task["task_id"]) for task in done}

    def result(self, task_id: str) -> Any:
        path = f"/api/v1/executions/{self.execution_id}/tasks/{quote(task_id, safe='')}/result"
        return self.client.get(path)["result"]

    def events(self) -> list[dict[str, Any]]:
        """The audit log, in order."""
        return self._all("events")

    def _all(self, what: str) -> list[dict[str, Any]]:
        pages = self.client.pages(f"/api/v1/executions/{self.execution_id}/{what}", limit=PAGE_SIZE)
        return [item for page in pages for item in page["items"]]


def no_notice(_run: Run) -> Notice:
    return lambda _board: None


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What is an example's own."""

    title: str
    workflow: Path
    show: Callable[[Run], bool]
    """Shows what happened, in words and figures; whether all went as it should."""
    catalogue: Path | None = None
    input_data: Mapping[str, Any] | Callable[[Run], Mapping[str, Any]] = field(default_factory=dict)
    prepare: Callable[[Run], None] | None = None
    """Before the definition is created; may change `run.definition`."""
    notice: Callable[[Run], Notice] = no_notice
    """Looks at the board while it runs: to kill, to send events, to remark."""
    ends: frozenset[str] = frozenset({"completed"})
    """Statuses in which it may end; a saga that is undone ends as failed."""
    timeout_seconds: int = EXECUTION_TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class RunOptions:
    data_dir: Path
    keep: bool = False


def main(demonstration: Demonstration, arguments: list[str] | None = None) -> int:
    """The exit code: 0 when it ended as it should."""
    parser = argparse.ArgumentParser(description=demonstration.title)
    parser.add_argument("--data-dir", type=Path, default=ROOT / ".data" / "demo", help="the engine's data")
    parser.add_argument("--keep", action="store_true", help="keep the engine running afterwards, until Ctrl-C")
    given = parser.parse_args(arguments)
    options = RunOptions(given.data_dir.resolve(), given.keep)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return ExitCode.OK if run_demonstration(demonstration, options) else ExitCode.FAILED
    except EngineError as error:
        print_error(error, as_json=False)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return ExitCode.OK if options.keep else ExitCode.INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """As Ctrl-C does: the engine must be stopped on the way out."""
    raise KeyboardInterrupt


def run_demonstration(demonstration: Demonstration, options: RunOptions, console: Console | None = None) -> bool:
    """Whether all went as it should. Raises EngineError when the engine cannot be started or reached."""
    console = console or make_console()
    began = time.monotonic()
    definition = load_definition(str(demonstration.workflow))
    console.print(f"{demonstration.title}\n", markup=False, style="bold")
    console.print("Starting the engine: PostgreSQL, Valkey, Temporal, gateway, worker, agent hosts", style="bold")
    with own_engine(options.data_dir, demonstration.catalogue) as connection, EngineClient(connection) as client:
        stop_leftovers(client, console)
        run = Run(console, client, options.data_dir, definition)
        good = _run(demonstration, run, connection.url)
        console.print(f"\n{time.monotonic() - began:.1f} s from the start of the demo.")
        if options.keep:
            _keep(run)
        console.print("Stopping the engine.")
    return good


def _run(demonstration: Demonstration, run: Run, url: str) -> bool:
    if demonstration.prepare is not None:
        demonstration.prepare(run)
    _start(demonstration, run)
    _show_links(run, url)
    board = Board(run.execution_id)
    updates = ExecutionWatch(run.client, run.execution_id).updates()
    run.status = follow(run.console, updates, board, demonstration.notice(run))
    if run.status["status"] not in demonstration.ends:
        details = run.status.get("error_details") or {}
        run.say(f"The execution {run.status['status']}: {describe_error(details)}", style="red")
        return False
    run.console.rule("What happened", align="left")
    return demonstration.show(run)


def _start(demonstration: Demonstration, run: Run) -> None:
    definition = copy.deepcopy(run.definition)
    # An edited definition must not meet the one that this data directory knows already.
    content = json.dumps(definition, sort_keys=True)
    definition["version"] += f"-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    created = run.client.call("workflow.create", definition)
    given = demonstration.input_data
    started = run.client.call(
        "workflow.execute",
        {
            "workflow_id": created["workflow_id"],
            "input_data": dict(given(run) if callable(given) else given),
            "execution_options": {"timeout": demonstration.timeout_seconds},
        },
    )
    run.execution_id = started["execution_id"]


def _show_links(run: Run, url: str) -> None:
    engine = read_engine_file(run.data_dir)
    if engine is None:
        raise UnavailableError(f"the engine on {run.data_dir} has gone")
    workflow = quote(f"{TENANT}/{run.execution_id}", safe="")
    temporal = f"{engine['temporal_ui']}/namespaces/{engine['temporal_namespace']}/workflows/{workflow}"
    for name, link in (("Temporal UI", temporal), ("API docs", f"{url}/docs"), ("console", f"{url}/")):
        run.say(f"  {name:<12} {link}")


def _keep(run: Run) -> None:
    """Until Ctrl-C."""
    run.say("The engine keeps running until Ctrl-C.")
    while run.client.is_healthy():
        time.sleep(KEEP_POLL_SECONDS)
    raise UnavailableError("the engine has ended")
