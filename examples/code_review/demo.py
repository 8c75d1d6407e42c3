"""The demo: starts an engine, runs the review, kills a reviewer in mid-task, shows what came of it, stops."""

import json
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from rich.console import Console

from cli.board import Board
from cli.client import EngineClient
from cli.connection import Connection, read_engine_file
from cli.documents import load_definition
from cli.engine_process import own_engine
from cli.tables import describe_error
from cli.watch import ExecutionWatch
from engine.contracts.plan import Plan
from engine.errors import ConfigurationError, UnavailableError
from examples.code_review.chronicle import Takeover, compare, completed_once, find_takeover, read_runs
from examples.code_review.lint import LintError, ruff_program
from examples.code_review.repository import Repository, RepositoryError
from examples.code_review.sabotage import Saboteur
from examples.code_review.screen import show_head, show_timings
from examples.screen import follow, make_console, stop_leftovers
from planner.parse import parse_definition
from planner.planner import Planner
from planner.render import render_plan

HERE: Final = Path(__file__).resolve().parent
CATALOGUE: Final = HERE / "catalogue.yaml"
WORKFLOW: Final = HERE / "workflow.yaml"
TARGET_TASK: Final = "trend"
"""The longest task."""

TENANT: Final = "default"
PAGE_SIZE: Final = 1_000
EXECUTION_TIMEOUT_SECONDS: Final = 600
KEEP_POLL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    repository: Path
    report: Path
    data_dir: Path
    keep: bool = False


def run_demo(options: DemoOptions, console: Console | None = None) -> int:
    """The exit code: 0 when the review was completed and the killed reviewer's task taken over.

    Raises EngineError when the engine cannot be started or reached, ConfigurationError when something is missing.
    """
    console = console or make_console()
    began = time.monotonic()
    commit = _check(options)
    definition = load_definition(str(WORKFLOW))
    plan = Planner().plan(parse_definition(definition))
    # An edited definition must not meet the one that this data directory knows already.
    definition["version"] += f"-{plan.plan_hash[:8]}"
    console.print(f"Review of {options.repository} at commit {commit}. The plan:\n", markup=False, style="bold")
    for line in render_plan(plan):
        console.print(line, markup=False)
    console.print("\nStarting the engine: PostgreSQL, Valkey, Temporal, gateway, worker, agent hosts", style="bold")
    with own_engine(options.data_dir, CATALOGUE) as connection, EngineClient(connection) as client:
        stop_leftovers(client, console)
        show = _Show(options, console, client, connection, plan)
        good = show.run(definition)
        console.print(f"\n{time.monotonic() - began:.1f} s from the start of the demo.")
        if options.keep:
            show.wait()
        else:
            console.print("Stopping the engine.")
    if not options.keep:
        console.print(
            f"Everything has stopped; what happened is kept in {options.data_dir}.\n"
            "To look around in Temporal's UI and the console: make demo DEMO_ARGS=--keep",
            markup=False,
        )
    return 0 if good else 1


def _check(options: DemoOptions) -> str:
    """The commit under review. Raises ConfigurationError, which says what is missing."""
    try:
        ruff_program()
        repository = Repository(options.repository)
        repository.files()
        return repository.head()
    except (RepositoryError, LintError) as error:
        raise ConfigurationError(f"{error}; a review needs git, ruff, and a repository with a commit") from error


class _Show:
    """One execution, from its start to the results on the screen."""

    def __init__(
        self, options: DemoOptions, console: Console, client: EngineClient, connection: Connection, plan: Plan
    ) -> None:
        self._options = options
        self._console = console
        self._client = client
        self._url = connection.url
        self._plan = plan
        engine = read_engine_file(options.data_dir)
        if engine is None:
            raise UnavailableError(f"the engine on {options.data_dir} has gone")
        self._engine = engine
        self._execution_id = ""

    def run(self, definition: dict[str, Any]) -> bool:
        """Whether all went as it should."""
        created = self._client.call("workflow.create", definition)
        started = self._client.call(
            "workflow.execute",
            {
                "workflow_id": created["workflow_id"],
                "input_data": {"repository": str(self._options.repository), "report": str(self._options.report)},
                "execution_options": {"timeout": EXECUTION_TIMEOUT_SECONDS},
            },
        )
        self._execution_id = started["execution_id"]
        self._links()
        saboteur = Saboteur(
            self._client,
            self._execution_id,
            task_id=TARGET_TASK,
            agent_type="reviewer",
            dependents=frozenset({"report"}),
        )
        board = Board(self._execution_id)
        told: list[str] = []

        def notice(board: Board) -> str | None:
            kill = saboteur.look(board)
            if kill is not None:
                return (
                    f"SIGKILL to process {kill.pid} of {kill.agent_id}, "
                    f"which has done {kill.progress:.0%} of {kill.task_id}"
                )
            row = board.tasks.get(TARGET_TASK)
            if saboteur.kill is not None and row is not None and row.attempts > 1 and not told:
                told.append(row.agent_id)
                return f"{row.task_id} is taken over by {row.agent_id}, attempt {row.attempts}"
            return None

        view = follow(self._console, ExecutionWatch(self._client, self._execution_id).updates(), board, notice)
        if view["status"] != "completed":
            self._console.print(f"The review {view['status']}: {describe_error(view.get('error_details') or {})}")
            return False
        return self._results(saboteur)

    def _results(self, saboteur: Saboteur) -> bool:
        console = self._console
        events: list[dict[str, Any]] = []
        for page in self._client.pages(f"/api/v1/executions/{self._execution_id}/events", limit=PAGE_SIZE):
            events += page["items"]
        runs = read_runs(events)
        takeover = find_takeover(runs, saboteur.kill.host_id) if saboteur.kill is not None else None
        once = completed_once(self._plan, runs)
        console.rule("The report", align="left")
        show_head(console, self._options.report)
        console.rule("The run", align="left")
        show_timings(console, compare(self._plan, runs), takeover)
        self._tell(takeover, saboteur, once=once)
        console.rule("Links", align="left")
        self._links()
        return takeover is not None and once

    def _tell(self, takeover: Takeover | None, saboteur: Saboteur, *, once: bool) -> None:
        if takeover is not None:
            lost, taken = takeover.lost, takeover.taken
            text = (
                f"{lost.agent_id} was killed {lost.seconds:.2f} s into {lost.task_id}; {taken.agent_id} began attempt "
                f"{taken.attempt} after {takeover.seconds * 1000:.0f} ms."
            )
            self._console.print(text, markup=False, style="green")
        elif saboteur.kill is None:
            text = (
                f"No reviewer was killed: {TARGET_TASK} was done too soon. A repository with more history takes longer."
            )
            self._console.print(text, markup=False, style="red")
        else:
            text = f"Process {saboteur.kill.pid} was killed, but the audit log shows no takeover of {TARGET_TASK}."
            self._console.print(text, markup=False, style="red")
        if once:
            self._console.print("Every task was completed exactly once.", style="green")
        else:
            self._console.print("Not every task was completed exactly once: see the audit log.", style="red")

    def _links(self) -> None:
        engine = self._engine
        namespace, workflow = engine["temporal_namespace"], quote(self._temporal_id(), safe="")
        for name, link in (
            ("Temporal UI", f"{engine['temporal_ui']}/namespaces/{namespace}/workflows/{workflow}"),
            ("API docs", f"{self._url}/docs"),
            ("console", f"{self._url}/"),
            ("report", str(self._options.report)),
        ):
            self._console.print(f"  {name:<12} {link}", markup=False)

    def _temporal_id(self) -> str:
        return f"{TENANT}/{self._execution_id}"

    def wait(self) -> None:
        """Keep the engine until Ctrl-C."""
        programs = Path(sys.executable).parent
        orchestrator = shlex.quote(str(programs / "orchestrator"))
        data = f"--data-dir {shlex.quote(str(self._options.data_dir))}"
        document = json.dumps({"repository": str(self._options.repository), "report": str(self._options.report)})
        temporal = (
            f"{shlex.quote(str(programs / 'temporal'))} workflow signal --address {self._engine['temporal_address']} "
            f"--namespace {self._engine['temporal_namespace']} --workflow-id {TENANT}/ID --name"
        )
        lines = [
            "",
            "The engine keeps running until Ctrl-C. In another terminal:",
            f"  {orchestrator} run {shlex.quote(str(WORKFLOW))} {data} --input {shlex.quote(document)}",
            "starts a review and prints its ID. While it runs, Temporal's own command pauses it and lets it go on:",
            f"  {temporal} pause",
            f"  {temporal} resume",
            "and so does ours:",
            f"  {orchestrator} pause ID {data}",
            f"  {orchestrator} resume ID {data}",
            f"  {orchestrator} events ID {data}",
        ]
        for line in lines:
            self._console.print(line, markup=False)
        while self._client.is_healthy():
            time.sleep(KEEP_POLL_SECONDS)
        raise UnavailableError("the engine has ended")
