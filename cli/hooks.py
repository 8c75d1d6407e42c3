"""`hooks`: steps of one's own, hung on the engine's events."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from rich.console import Console
from rich.table import Table

from cli.options import JsonOption, LimitOption, PageTokenOption
from cli.outcome import ExitCode
from cli.output import print_document, print_message, print_more, printable
from cli.sharing import Connect, engine, shares
from cli.tables import local_time, plain, state_text
from engine.errors import InvalidParametersError

app = typer.Typer(no_args_is_help=True)

ANSWER_SECONDS_MAX: Final = 3_700.0
"""Longer than any hook may run."""

HookArgument = Annotated[str, typer.Argument(metavar="ID", help="The hook's id.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Unique among the tenant's hooks.")]
DescriptionOption = Annotated[str | None, typer.Option("--description")]
TriggerOption = Annotated[
    str | None,
    typer.Option(
        "--trigger",
        help="pre_task, post_task, pre_workflow, post_workflow, session_start, session_end, agent_assigned or "
        "agent_failed.",
    ),
]
PatternOption = Annotated[
    str | None, typer.Option("--pattern", help="RE2 that is looked for in the event's subject; '' for none.")
]
CommandOption = Annotated[
    str | None, typer.Option("--command", help="A command line, e.g. 'ruff format {file}'; no shell sees it.")
]
FunctionOption = Annotated[str | None, typer.Option("--function", help="A function that the operator registered.")]
ArgumentOption = Annotated[list[str] | None, typer.Option("--arg", help="A further argument; repeat for several.")]
SecretOption = Annotated[
    list[str] | None, typer.Option("--secret", metavar="VARIABLE=ID", help="A secret's id for the command.")
]
ModeOption = Annotated[str | None, typer.Option("--mode", help="blocking or asynchronous.")]
OnErrorOption = Annotated[
    str | None, typer.Option("--on-error", help="What a blocking hook's own failure means: veto or proceed.")
]
PriorityOption = Annotated[int | None, typer.Option("--priority", help="Lower runs first.")]
TimeoutOption = Annotated[int | None, typer.Option("--timeout", help="Seconds.")]
RetriesOption = Annotated[
    int | None, typer.Option("--retries", min=0, help="Repetitions of a failed run, after 1, 2, 4 s.")
]
BackoffOption = Annotated[str | None, typer.Option("--backoff", help="exponential or linear.")]


Said = dict[str, Any]


def _fields(
    name: NameOption = None,
    description: DescriptionOption = None,
    trigger: TriggerOption = None,
    pattern: PatternOption = None,
    command: CommandOption = None,
    function: FunctionOption = None,
    argument: ArgumentOption = None,
    secret: SecretOption = None,
    mode: ModeOption = None,
    on_error: OnErrorOption = None,
    priority: PriorityOption = None,
    timeout: TimeoutOption = None,
    retries: RetriesOption = None,
    backoff: BackoffOption = None,
) -> Said:
    """What was said, as the interface takes it."""
    given: dict[str, Any] = {
        "name": name, "description": description, "trigger": trigger, "mode": mode, "on_error": on_error,
        "priority": priority, "timeout_seconds": timeout,
    }  # fmt: skip
    fields = {key: value for key, value in given.items() if value is not None}
    if pattern is not None:
        fields["event_pattern"] = pattern or None
    if command is not None or function is not None:
        if command is not None and function is not None:
            raise InvalidParametersError("give --command or --function, not both")
        kind = "command" if command is not None else "function"
        action = {"type": kind, kind: command or function, "args": list(argument or ())}
        fields["action"] = action | ({"secrets": _secrets(secret)} if secret else {})
    elif argument or secret:
        raise InvalidParametersError("--arg and --secret belong to --command or --function")
    if retries is not None or backoff is not None:
        policy = {"max_attempts": retries, "backoff": backoff}
        fields["retry_policy"] = {key: value for key, value in policy.items() if value is not None}
    return fields


def _secrets(given: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in given]
    if any(not variable or not secret for variable, _, secret in pairs):
        raise InvalidParametersError("--secret is VARIABLE=ID, e.g. API_TOKEN=github")
    return {variable: secret for variable, _, secret in pairs}


@app.command()
@shares(said=_fields, connect=engine)
def register(
    source: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The hook as JSON or YAML; options go before it.")
    ] = None,
    *,
    said: Said,
    disabled: Annotated[bool, typer.Option("--disabled", help="Register it without letting it run.")] = False,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Register a hook, from a file or from options."""
    fields = (_document(source) if source is not None else {}) | said | ({"enabled": False} if disabled else {})
    with connect() as client:
        made = client.call("hooks.register", fields)
    if as_json:
        print_document(made)
    else:
        print(printable(f"{made['hook_id']} is registered: {made['name']}, {made['trigger']}"))


def _document(source: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidParametersError(f"{source}: {error}") from error
    if not isinstance(document, dict):
        raise InvalidParametersError(f"{source} does not hold a hook")
    return document


@app.command("list")
@shares(connect=engine)
def list_hooks(
    trigger: TriggerOption = None,
    enabled: Annotated[bool | None, typer.Option("--enabled/--disabled", help="Only those.")] = None,
    limit: LimitOption = 100,
    page_token: PageTokenOption = None,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """List hooks, the oldest first."""
    given = {"limit": limit, "page_token": page_token, "trigger": trigger, "enabled": enabled}
    with connect() as client:
        page = client.call("hooks.list", {key: value for key, value in given.items() if value is not None})
    if as_json:
        print_document(page)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("hook", "name", "trigger", "mode", "priority", "state"):
        table.add_column(column, no_wrap=column == "hook", overflow="fold")
    for hook in page["hooks"]:
        state = "disabled" if not hook["enabled"] else "on" if hook["circuit"] == "closed" else "switched off"
        row = (hook["hook_id"], hook["name"], hook["trigger"], hook["mode"], hook["priority"], state)
        table.add_row(*map(plain, row))
    Console().print(table)
    print_more(page)


@app.command("get")
@shares(connect=engine)
def get_hook(
    hook_id: HookArgument,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Show a hook with its statistics and its circuit."""
    _show(_call("hooks.get", {"hook_id": hook_id}, connect), as_json=as_json)


@app.command()
@shares(said=_fields, connect=engine)
def update(
    hook_id: HookArgument,
    *,
    said: Said,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Change a hook; what is not said stays as it is."""
    _show(_call("hooks.update", {"hook_id": hook_id} | said, connect), as_json=as_json)


@app.command()
@shares(connect=engine)
def enable(
    hook_id: HookArgument,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Enable a hook, and let one that was switched off after failures run again."""
    _show(_call("hooks.enable", {"hook_id": hook_id}, connect), as_json=as_json)


@app.command()
@shares(connect=engine)
def disable(
    hook_id: HookArgument,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Disable a hook: it does not run until it is enabled."""
    _show(_call("hooks.disable", {"hook_id": hook_id}, connect), as_json=as_json)


@app.command()
@shares(connect=engine)
def delete(
    hook_id: HookArgument,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Delete a hook. The records of its runs stay for their days."""
    result = _call("hooks.delete", {"hook_id": hook_id}, connect)
    if as_json:
        print_document(result)
    else:
        print(printable(f"{result['hook_id']} is deleted"))


@app.command()
@shares(connect=engine)
def execute(
    hook_id: HookArgument,
    context: Annotated[str, typer.Option("--context", help="The simulated event, a JSON object.")] = "{}",
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Run a hook once, with a simulated event. Exit code 1 when the run failed."""
    try:
        simulated = json.loads(context)
    except ValueError as error:
        raise InvalidParametersError(f"--context is not JSON: {error}") from error
    params = {"hook_id": hook_id, "context": simulated}
    with connect() as client:
        run = client.call("hooks.execute", params, timeout_seconds=ANSWER_SECONDS_MAX)
    if as_json:
        print_document(run)
    else:
        print(printable(run["output"]), end="" if run["output"].endswith("\n") or not run["output"] else "\n")
        print_message(f"{run['status']} after {run['duration_ms']} ms {run['error_message'] or ''}".rstrip())
    if run["status"] != "completed":
        raise typer.Exit(ExitCode.FAILED)


@app.command()
@shares(connect=engine)
def executions(
    hook: Annotated[str | None, typer.Option("--hook", help="Only those of the hook with this id.")] = None,
    execution: Annotated[
        str | None, typer.Option("--execution", help="Only those that this execution set off.")
    ] = None,
    status: Annotated[str | None, typer.Option(help="completed, failed or timeout.")] = None,
    limit: LimitOption = 100,
    page_token: PageTokenOption = None,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """List runs of hooks, the newest first."""
    query = {"limit": limit, "page_token": page_token, "hook_id": hook, "execution_id": execution, "status": status}
    with connect() as client:
        page = client.get("/api/v1/hooks/executions", **query)
    if as_json:
        print_document(page)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("when", "hook", "status", "ms", "runs", "error or event"):
        table.add_column(column, no_wrap=column in ("when", "hook", "status"), overflow="fold")
    for run in page["items"]:
        said = run["error_message"] or run["event_matched"]
        cells = (plain(run["duration_ms"]), plain(run["attempts"]), plain(said))
        table.add_row(plain(local_time(run["executed_at"])), plain(run["hook_id"]), state_text(run["status"]), *cells)
    Console().print(table)
    print_more(page)


@app.command()
@shares(connect=engine)
def switch(
    state: Annotated[str | None, typer.Argument(metavar="[on|off]", help="Absent: only show it.")] = None,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Turn all hooks of the tenant off or on."""
    if state not in (None, "on", "off"):
        raise InvalidParametersError("say on or off")
    if state is None:
        found = _call("hooks.switch", {}, connect)
    else:
        found = _call("hooks.set_switch", {"enabled": state == "on"}, connect)
    if as_json:
        print_document(found)
        return
    print("hooks are on" if found["enabled"] else "hooks are off")
    if not found["engine_enabled"]:
        print_message("the operator has turned off all hooks of this engine (ORCHESTRATOR_HOOKS_ENABLED)")


def _call(method: str, params: dict[str, Any], connect: Connect) -> dict[str, Any]:
    with connect() as client:
        return client.call(method, params)


def _show(hook: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_document(hook)
        return
    action, stats, circuit = hook["action"], hook["execution_stats"], hook["circuit"]
    does = " ".join([action["type"], action["command"] or action["function"] or "", *action["args"]])
    retry = hook["retry_policy"]
    rows = (
        ("hook", f"{hook['hook_id']} {hook['name']}"),
        ("description", hook["description"]),
        ("trigger", f"{hook['trigger']}, {hook['mode']}" + ("" if hook["enabled"] else ", disabled")),
        ("pattern", hook["event_pattern"]),
        ("action", does),
        ("limits", f"priority {hook['priority']}, {hook['timeout_seconds']} s, {_retries(retry)}"),
        ("runs", f"{stats['total_executions']}, {stats['failed_executions']} failed, "
                 f"{stats['average_duration_ms']:g} ms on average"),
        ("circuit", circuit["state"] + (f", tried {local_time(circuit['tried_at'])}" if circuit["tried_at"] else "")),
    )  # fmt: skip
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows:
        if value:
            table.add_row(name, plain(value))
    Console().print(table)


def _retries(policy: dict[str, Any] | None) -> str:
    return "no repetition" if policy is None else f"{policy['max_attempts']} repetitions, {policy['backoff']}"
