"""Entry point of the `orchestrator` command.

Each command's module is loaded only when that command runs (`cli.lazy`): clients need no database driver, and each
role of the engine loads its own part of it.

Data goes to stdout, messages go to stderr, errors never show a stack trace (set ORCHESTRATOR_DEBUG=1 to see one),
and exit codes are those of `cli.outcome`.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from cli.lazy import LazyCommand, LazyGroup
from cli.outcome import ExitCode, exit_code_of
from cli.output import print_document, print_error, print_message
from engine.errors import EngineError
from engine.installation import check_packages

PROGRAM = "orchestrator"


COMMANDS: dict[str, LazyCommand] = {
    "up": LazyCommand("cli.up", "Start the engine with its servers on this machine and keep it running."),
    "run": LazyCommand("cli.run", "Execute a workflow definition; without a running engine, start one for it."),
    "validate": LazyCommand("cli.definitions", "Check a workflow definition: every problem at once."),
    "plan": LazyCommand("cli.definitions", "Show the graph, waves, critical path and slack before anything runs."),
    "list": LazyCommand("cli.executions", "List executions, the newest first."),
    "status": LazyCommand("cli.executions", "Show the state of an execution."),
    "events": LazyCommand("cli.executions", "Show the audit log of an execution."),
    "pause": LazyCommand("cli.executions", "Pause an execution at a checkpoint."),
    "resume": LazyCommand("cli.executions", "Resume a paused execution."),
    "cancel": LazyCommand("cli.executions", "Cancel an execution."),
    "send-event": LazyCommand("cli.executions", "Send an external event to an execution's waiting tasks."),
    "checkpoints": LazyCommand("cli.checkpoints", "List an execution's checkpoints, from which it can be resumed."),
    "compensations": LazyCommand(
        "cli.compensations", "Steps that could not be undone: list them, try one again, mark one as done.", group=True
    ),
    "recount": LazyCommand("cli.votes", "Count a swarm's votes again under another rule."),
    "capacity": LazyCommand("cli.capacity", "Show what the engine runs, what waits, and how much more it would start."),
    "statistics": LazyCommand("cli.statistics", "Show how executions have gone, by pattern and by workflow."),
    "agents": LazyCommand(
        "cli.agents", "Look at the host processes of agents: state, load, speed and history.", group=True
    ),
    "breakers": LazyCommand("cli.breakers", "Look at circuit breakers of agent types, and close one.", group=True),
    "dlq": LazyCommand(
        "cli.dead_letters", "Look at what could not be delivered, send it again, throw it away.", group=True
    ),
    "hooks": LazyCommand(
        "cli.hooks", "Steps of your own on the engine's events: register, look at, change, try, switch.", group=True
    ),
    "patterns": LazyCommand("cli.patterns", "List, show, check and register coordination patterns.", group=True),
    "replay": LazyCommand("cli.replay", "Replay an execution's history against the present code."),
    "token": LazyCommand("cli.tokens", "Issue a token for a tenant and a role."),
    "agent-url": LazyCommand("cli.tokens", "Show the Redis address with which a tenant's agents log in."),
    "doctor": LazyCommand("cli.doctor", "Check this installation and say what is missing."),
    "serve": LazyCommand("cli.serve", "Run one role of the engine against servers that run elsewhere.", group=True),
    "migrate": LazyCommand("cli.migrate", "Bring the database's schema up to date."),
}


class Commands(LazyGroup):
    table = COMMANDS


app = typer.Typer(
    name=PROGRAM,
    cls=Commands,
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {metadata.version('orchestration-engine')}")
        raise typer.Exit


@app.callback()
def orchestrator(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and stop.")
    ] = False,
) -> None:
    """Durable orchestration of many agents and tools.

    Exit codes: 0 done; 1 the execution failed, the definition has errors or doctor found something; 2 usage;
    3 not found; 4 refused; 5 no engine answers; 70 a defect.
    """


def main(arguments: Sequence[str] | None = None, end: Callable[[int], NoReturn] = os._exit) -> None:
    """Run the command and end the process with its exit code.

    Where Temporal's client was used, the interpreter is not torn down: the client's native threads outlive Python's
    and may crash then (temporalio/sdk-python#300).
    """
    code = run(sys.argv[1:] if arguments is None else arguments)
    if "temporalio" in sys.modules:
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        sys.stderr.flush()
        end(code)
    raise SystemExit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command; every error becomes a message and an exit code."""
    as_json = "--json" in arguments
    try:
        check_packages()
        outcome = typer.main.get_command(app)(list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except EngineError as error:
        print_error(error, as_json=as_json)
        code = int(exit_code_of(error))
    except TyperException as error:
        code = _report_usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        print_message("interrupted")
        code = int(ExitCode.INTERRUPTED)
    except SystemExit:
        # Typer's answer to a broken pipe (`orchestrator list | head`): the reader has seen enough.
        code = int(ExitCode.OK)
    except Exception as error:  # the process ends here: a defect shows as one line, not as a stack trace
        if os.environ.get("ORCHESTRATOR_DEBUG"):
            raise
        print_error(
            EngineError(f"defect: {type(error).__name__}: {error}; ORCHESTRATOR_DEBUG=1 shows where"), as_json=as_json
        )
        code = int(ExitCode.INTERNAL)
    else:
        code = outcome if isinstance(outcome, int) else int(ExitCode.OK)
    return code


def _report_usage(error: TyperException, *, as_json: bool) -> int:
    message = error.format_message()
    context = getattr(error, "ctx", None)
    print_message(f"error: {message}")
    if context is not None:
        print_message(f"see: {context.command_path} --help")
    if as_json:
        print_document({"error": {"code": "USAGE", "message": message}})
    return int(ExitCode.USAGE)
